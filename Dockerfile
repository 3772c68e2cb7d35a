# syntax=docker/dockerfile:1
#
# docker build -t session-gateway:0.1.0 --label org.opencontainers.image.revision="$(git rev-parse HEAD)" .
#
# Tags say which line of a base image is meant. A release build should hold them to digests as well
# (python:3.14-slim-trixie@sha256:...), and let Renovate or Dependabot move both; a digest written here by hand would
# only grow old.
ARG PYTHON=python:3.14-slim-trixie
ARG NODE=node:24-trixie-slim

# GraphiQL, bundled.
FROM ${NODE} AS playground
WORKDIR /src/playground
COPY playground/package.json playground/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY playground/ ./
# Writes to ../gateway/graphql/static/playground.
RUN npm run build

# The environment: first what is locked, by its hashes, which changes seldom; then the gateway's own wheel. What is not
# everybody's comes along if it is asked for: --build-arg EXTRAS="--extra otel --extra http2".
FROM ${PYTHON} AS build
ARG EXTRAS=
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_PROGRESS=1 UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/gateway
RUN --mount=type=cache,target=/root/.cache/pip python -m pip install --disable-pip-version-check uv==0.13.9
WORKDIR /src
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-dev --no-install-project --no-build ${EXTRAS}
COPY LICENSE README.md ./
COPY proto/ proto/
COPY schema/ schema/
COPY gateway/ gateway/
COPY --from=playground /src/gateway/graphql/static/playground/ gateway/graphql/static/playground/
RUN --mount=type=cache,target=/root/.cache/uv \
    uv build --wheel --out-dir /dist && uv pip install --python /opt/gateway/bin/python --no-deps /dist/*.whl

# What runs: Python and the environment; no compiler, no package manager of ours, no source tree.
FROM ${PYTHON}
LABEL org.opencontainers.image.title="session-gateway" \
      org.opencontainers.image.description="A gRPC and GraphQL gateway in front of Emporix's Session Context REST service." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
# By number, so that Kubernetes can see that it is not root; nobody's number on the host.
USER 65532:65532
# GraphQL, gRPC, and the operator's listener. Which address they listen on is a setting, loopback by default.
EXPOSE 8000 50051 9000
STOPSIGNAL SIGTERM
# Alive, that is; whether it wants calls is /readyz, for whoever sends them. Orchestrators with probes ignore this.
# Asked past whatever proxy the environment names, as Docker's own configuration has it name one in every container.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-Ic", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('SESSION_GATEWAY_ADMIN__PORT', '9000') + '/livez', timeout=2)"]
ENTRYPOINT ["session-gateway"]
CMD ["serve"]
