# Two commands do everything: `make demo` and `make test`. Every target sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test check bench clean

setup: $(INSTALLED) ## create .venv and install perso with the tested versions

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "perso needs Python 3.11 or newer; $$($(PYTHON) --version) found. Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(INSTALLED)

demo: $(INSTALLED) ## the whole loop on a synthetic shop; ARGS=--once ends after the clicks
	$(BIN)/perso demo $(ARGS)

test: $(INSTALLED) ## the tests; SLOW=1 adds those that take minutes, NODES=1 whole clusters; ARGS go to pytest
	$(BIN)/python -m pytest -m "not slow" $(ARGS)
ifdef SLOW # a run of their own: they start clusters
	$(BIN)/python -m pytest -m "slow and not nodes" $(ARGS)
endif
ifdef NODES
	$(BIN)/python -m pytest -m nodes $(ARGS)
endif

check: $(INSTALLED) ## format, lint, strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED) ## every benchmark, each a ratio within one run, beside the peers it installs
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	@set -e; for bench in tests/benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench $(ARGS); done

clean: ## remove the environment, caches and the default workspace
	rm -rf $(VENV) .perso .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
