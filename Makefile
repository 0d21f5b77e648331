# Everything a newcomer needs: `make quickstart` and `make test`. The rest is for those who change the code.
# One virtual environment, made once; touching pyproject.toml makes it again.

VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
BIN := $(VENV)/bin
# Files of tests go to a few processes, whole, since tests of one file share what is slow to make, and in the order that
# tests/conftest.py gives them: long ones first.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready

.PHONY: help quickstart test check docs bench soak clean

help:
	@echo "make quickstart   install, then train and edit the embedded model (minutes, no download of a model)"
	@echo "make test         install, then run the suite"
	@echo "make check        ruff, mypy, then the suite with doctests"
	@echo "make docs         build the documentation strictly into site/"
	@echo "make bench        measure the ratios of docs/performance.md"
	@echo "make soak         kill and resume a training run until it hurts"

# torch comes first and in exactly this version, so that nothing else decides which build of it arrives.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; found '$(PYTHON)'. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(DOCS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

quickstart: $(READY)
	$(BIN)/lightning-edit run quickstart

test: $(READY)
	$(PYTEST)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lightning_edit
	$(PYTEST)

docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(READY)
	$(BIN)/python -m benchmarks

soak: $(READY)
	$(BIN)/python -m pytest -m soak

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
