# `make demo` and `make test` are all the set-up there is: each makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := tests/requirements.lock
# PyPI's torch for Linux needs CUDA's libraries, its CPU build does not
CPU_BUILD := $(BIN)/python -c 'import importlib.metadata as m, sys; sys.exit("+cpu" not in m.version("torch"))'

.PHONY: demo test audit clean

$(VENV)/.installed: requirements.txt tests/requirements.txt $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) found, Python 3.11 or newer is needed; run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@if $(PIP) --require-hashes --no-deps -r $(LOCK); \
	then $(CPU_BUILD) || $(PIP) --require-hashes --no-deps -r tests/requirements-cuda.lock; \
	else echo "notice: $(LOCK) (exact versions, checked by hash) does not fit this Python or package index; by tests/requirements.txt:"; \
	  $(PIP) -r tests/requirements.txt; fi
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python extras/run_demo.py

test: $(VENV)/.installed
	$(BIN)/python -m ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n 2 --dist loadfile

# known holes of the pinned versions; asks the package index and OSV over the network
audit: $(VENV)/.installed
	$(PIP) pip-audit
	$(BIN)/python -m pip_audit --require-hashes --disable-pip -r $(LOCK) -r tests/requirements-cuda.lock

# only what can be made again without thought: data/, artifacts/, observations/ and results/ may hold a user's own work
clean:
	rm -rf demo .pytest_cache .ruff_cache .hypothesis .import_linter_cache __pycache__ */__pycache__ calibration/*/__pycache__
