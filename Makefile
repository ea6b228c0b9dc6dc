# `make demo` and `make test` set up .venv on their first run. They need Python 3.11 and nothing
# else; everything comes from PyPI, in the versions of requirements/constraints.txt. Python 3.12 and
# 3.13 do too, the latter with constraints-newest.txt: make setup PYTHON=python3.13 VENV=.venv-newest

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
TESTS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
NEWEST = $(shell $(PYTHON) -c 'import sys; print("-newest" if sys.version_info >= (3, 13) else "")')
INSTALL = $(PIP) install --constraint requirements/constraints$(NEWEST).txt
STAMP := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## set up .venv with the package, both frameworks and the demo's data

# The last two files go in without their declared dependencies; requirements/frameworks.txt says
# why, and requirements/python-3.13 what BasicSR's setup needs there.
$(STAMP): $(wildcard requirements/*.txt) pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --requirement requirements/dependencies.txt
	PYTHONPATH=$(CURDIR)/requirements/python-3.13 \
		$(INSTALL) --no-deps --no-build-isolation --requirement requirements/frameworks.txt
	$(INSTALL) --no-deps --requirement requirements/demo.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP) ## show what the plugin does, on a real clip with real weights
	$(BIN)/python tools/demo.py
	$(BIN)/python tools/demo_video.py

test: $(STAMP) ## run every test, or those of TESTS="tests/ops …"
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(TESTS)

lint: $(STAMP) ## check the style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv-docs/installed ## build the site of docs/ in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict

.venv-docs/installed: requirements/docs.txt
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip --disable-pip-version-check install --requirement $<
	touch $@

clean: ## remove .venv, and nothing that a training has written
	rm -rf .venv .venv-newest .venv-wheel .venv-docs site
