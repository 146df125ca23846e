# Two commands after a clone: `make run` and `make test`. Everything they need goes into .venv and
# .cache; Debian packages for the tests are installed when this runs as root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := .cache
SOURCES := broker_config bridge cli bench docs tests
DEMO ?= 10

.PHONY: run test check format bench services docs clean help

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

run: $(VENV)/run.stamp  ## Start the system with ten simulated devices; Ctrl-C stops it
	@exec $(BIN)/iotctl up --demo $(DEMO)

test: $(VENV)/dev.stamp services  ## Run every test against the real parts
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/dev.stamp  ## Format, lint and types
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@! command -v shellcheck >/dev/null || git ls-files '*.sh' .ci/run | xargs shellcheck

format: $(VENV)/dev.stamp  ## Format the sources
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

bench: $(VENV)/dev.stamp services  ## Measure, and write bench/results and docs/performance.md
	@$(BIN)/python -m bench

docs: $(VENV)/dev.stamp  ## Generate the references in docs/
	@$(BIN)/python -m docs.generate

services:
	@tests/services/debian_packages.sh
	@tests/services/build_influxd.sh $(CACHE) || \
	  { test -z "$$CI" && echo "tests that need InfluxDB will be skipped"; }

clean:  ## Remove what this Makefile made
	rm -rf $(VENV) $(CACHE) build dist *.egg-info

$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which with: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 2; }
	@touch $@

$(VENV)/run.stamp: $(VENV)/made.stamp setup.cfg constraints.txt
	@echo "installing into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@echo "installing what the tests need into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
