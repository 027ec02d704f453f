# driftloop: `make` lists what there is. Every target brings its own set-up.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MVN ?= mvn
# Threads that contend for the same cores made training 20 times slower.
TWO_AT_A_TIME := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
# Tests and demo start dozens of processes that import torch: byte code is made once, whatever the environment says (5 s of CPU, not 13).
export PYTHONDONTWRITEBYTECODE :=
.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast check fix bench prerequisites clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

prerequisites: # say once, and at once, what this machine lacks
	@sh deploy/prerequisites.sh $(PYTHON) $(PREREQUISITES)

# Not compiled ahead: a quarter of the time went into byte code of which most is never imported.
$(STAMP): pyproject.toml constraints.txt deploy/prerequisites.sh
	@sh deploy/prerequisites.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt $(PIP_ARGS) --editable '.[all,test]'
	@touch $@

install: $(STAMP) ## make .venv with everything (PIP_ARGS="--extra-index-url URL" picks another torch build)

demo: $(STAMP) ## watch a model drift on a real broker, get repaired, and recover
	$(BIN)/driftloop demo

test: $(STAMP) check ## run all checks and tests
	@sh deploy/prerequisites.sh $(PYTHON) test
	$(TWO_AT_A_TIME) -m "not kafka"
	$(BIN)/python -m pytest -m kafka

test-fast: $(STAMP) ## run what needs no broker and is not slow, on two cores
	$(TWO_AT_A_TIME) -m "not kafka and not slow"

check: $(STAMP) ## format, lint and types, as CI checks them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python deploy/check_types.py

fix: $(STAMP) ## format, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure throughput beside its peers
	$(BIN)/python benchmarks/throughput.py

clean: ## remove .venv and caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
