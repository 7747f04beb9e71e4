# One virtual environment for everything; `make demo VENV=elsewhere` uses another.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# A process a core, a thread each; tests of a module share what they prepare.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope
export HF_HUB_OFFLINE := 1

.PHONY: demo check quick test lint format
.DEFAULT_GOAL := demo

# Redone when what is to be installed changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/unsee demo

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# The type check takes one core, and most of the time that lint takes: both at once.
check: $(VENV)/.installed
	$(MAKE) --no-print-directory -j2 lint quick

quick: $(VENV)/.installed
	$(PYTEST) -m 'not slow' tests/unit tests/contract

# `check` and everything it leaves out, each test once; the longest first, so that no core waits.
test: lint
	$(PYTEST) --no-loadscope-reorder --durations=20 tests/end_to_end tests/families tests/contract tests/unit

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
