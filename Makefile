# `make help` lists what there is. What takes more than a line or two stands in scripts/.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
export PYTHON
BIN := .venv/bin
# A stamp repeats the work only when a requirements file changed.
ENV := .venv/.stamp
JUPYTER := .venv-jupyter/.stamp
OIDC_PROVIDER := .oidc-provider/oidc-provider
LOCK := env UV_SYSTEM_CERTS=1 $(BIN)/uv --no-config pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

.PHONY: help env demo test coverage lint format types docs bench lock jupyter-env oidc-provider clean

help: ## list these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

env: $(ENV) ## make .venv from the locked requirements

$(ENV): requirements/uv.txt requirements/dev.txt
	@scripts/make-env
	@touch $@

demo: $(ENV) ## see an unguarded chat being hijacked in your browser, and a guarded one not
	@$(BIN)/wsguard demo

test: $(ENV) ## run all tests; as root install first the programs that they need (APT=no: do not)
	@scripts/install-debian-packages
# Other people's programs: always in CI; on a laptop, whose tests skip them by name, once they are there.
	@if [[ $${CI:-} == true || -e $(JUPYTER) ]]; then $(MAKE) --no-print-directory jupyter-env; fi
	@if [[ $${CI:-} == true || -e $(OIDC_PROVIDER) ]]; then $(MAKE) --no-print-directory oidc-provider; fi
	@scripts/test

coverage: $(ENV) ## run the fast tests, and print which lines and branches no test reaches
	@mkdir -p .test-results
	@$(BIN)/python -m pytest -q -m 'not (slow or browser or story or benchmark)' -n 3 --cov --cov-report=term

lint: $(ENV) ## ruff: lint, and is everything formatted
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: $(ENV) ## ruff: format, and repair what it can
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

types: $(ENV) ## pyright strict; mypy over the public API as tests/typing uses it
	@$(BIN)/pyright
	@$(BIN)/mypy

docs: $(ENV) ## build the documentation into site/
	@$(BIN)/zensical build --strict --clean

bench: $(ENV) ## measure the relay beside nginx and HAProxy
	@$(BIN)/python -m benchmarks.relay

lock: $(ENV) ## lock the requirements anew; UPGRADE=1 takes newer versions (requirements/README.md)
	@$(LOCK) $(if $(UPGRADE),--upgrade) requirements/uv.in --output-file requirements/uv.txt
	@$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --all-extras --group dev --group guides --output-file requirements/dev.txt
	@$(LOCK) $(if $(UPGRADE),--upgrade) --group pyproject.toml:jupyter --output-file requirements/jupyter.txt

jupyter-env: $(JUPYTER) ## make .venv-jupyter, the JupyterLab that a story test puts behind the gateway

$(JUPYTER): $(ENV) requirements/jupyter.txt
	@$(PYTHON) -m venv --without-pip .venv-jupyter
	@UV_SYSTEM_CERTS=1 $(BIN)/uv pip sync --quiet --python .venv-jupyter --require-hashes requirements/jupyter.txt
	@touch $@

oidc-provider: $(OIDC_PROVIDER) ## make .oidc-provider, the OpenID Provider whose tokens a story test takes (needs npm)

$(OIDC_PROVIDER): tests/story/oidc/package.json tests/story/oidc/package-lock.json
	@mkdir -p $(@D)
	@cp $^ $(@D)
	@cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@printf '#!/bin/sh\nexec node "%s/tests/story/oidc/provider.mjs" "%s/$(@D)"\n' "$(CURDIR)" "$(CURDIR)" >$@
	@chmod +x $@

clean: ## remove the environments and everything that was built
	rm -rf .venv .venv-jupyter .oidc-provider .test-results .hypothesis .pytest_cache .ruff_cache .mypy_cache .cache dist site
