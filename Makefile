# Needs Python 3.11 to 3.14 and GNU make. Everything else comes from the package index, into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := uv==0.13.9
PAGE   := gateway/graphql/static/playground/index.html

.PHONY: run test lint generate playground wheel clean

run: $(VENV)/synced
	@command -v npm >/dev/null && $(MAKE) --no-print-directory $(PAGE) || true
	@$(BIN)/session-gateway dev

test: $(VENV)/synced $(PAGE)
	@$(BIN)/pytest

lint: $(VENV)/synced
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/buf lint
	@tag=$$(git describe --tags --abbrev=0 2>/dev/null); \
	if [ -n "$$tag" ]; then $(BIN)/buf breaking --against ".git#tag=$$tag"; else echo "buf breaking: no release is tagged yet"; fi

# The GraphQL schema from Strawberry's types, and the Python code from proto/; OUT is where to.
OUT := .
generate: $(VENV)/synced
	@mkdir -p $(OUT)/schema
	@$(BIN)/python -m grpc_tools.protoc -Igateway/gen=proto --python_out=$(OUT) --pyi_out=$(OUT) --grpc_python_out=$(OUT) \
		--plugin=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(OUT) proto/emporix/sessioncontext/v1/session_context.proto
	@$(BIN)/session-gateway schema graphql > $(OUT)/schema/session_context.graphql

wheel: $(VENV)/synced $(PAGE)
	@$(BIN)/uv build --wheel --quiet

clean:
	rm -rf $(VENV) dist node_modules playground/node_modules gateway/graphql/static/playground

$(VENV)/synced: pyproject.toml uv.lock | $(BIN)/uv
	@$(BIN)/uv sync --frozen --inexact --quiet
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14) and "Python 3.11 to 3.14 is needed: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
