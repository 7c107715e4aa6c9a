# Small targets that each do one thing. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test check format screenshots bench torture lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/run.stamp ## install, start on the sample configuration, print the addresses to open
	$(BIN)/adserver serve

test: $(VENV)/dev.stamp ## install everything and run all tests
	tools/install-system-programs
	tools/fetch-amp-validator $(VENV)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/dev.stamp ## formatting, lint, strict types, and the sample configuration
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/adserver check config

format: $(VENV)/dev.stamp ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

screenshots: $(VENV)/dev.stamp ## a picture of every page of the console, light and dark, at a desk and on a phone, in var/screenshots
	tools/install-system-programs
	mkdir -p var/screenshots
	ADSERVER_SCREENSHOTS=var/screenshots $(BIN)/python -m pytest tests/console/test_stories.py -k every_page

bench: $(VENV)/dev.stamp ## print the speed table, each figure beside its baseline
	tools/install-system-programs
	$(BIN)/python -m benchmarks $(ARGS)

torture: $(VENV)/dev.stamp ## the long proof: 20 rounds of 50,000 events on each store, 10 on each cluster, all controls, 50,000 worlds
	tools/install-system-programs
	$(BIN)/adserver torture --rounds 40 --events 50000 --server embedded,redis-server $(ARGS)
	$(BIN)/adserver torture --rounds 20 --events 50000 --server cluster:embedded,cluster:redis-server $(ARGS)
	$(BIN)/adserver torture --rounds 2 --events 100000 --server embedded,redis-server --faults outage $(ARGS)
	$(BIN)/adserver torture --controls
	$(BIN)/adserver torture --simulate 50000

lock: $(VENV)/dev.stamp ## pin all dependencies anew, with hashes, within the ranges of pyproject.toml
	$(BIN)/python -m pip install --quiet --upgrade uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 pyproject.toml --extra embedded --group build --output-file requirements/run.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 pyproject.toml --extra embedded --group build --group test --group check \
		--constraints requirements/run.txt --output-file requirements/dev.txt

clean: ## remove what the other targets made, the counts under var/ excepted
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; run: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

# The dev lock holds everything of the run lock in the same versions, so either stamp will do for `run`.
$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/run.stamp
