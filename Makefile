# make demo [ARGS=--no-serve]   train the demo's models from nothing, measure them, serve one
# make test [ARGS=...]          all tests; ARGS="-m 'not slow'" runs the quick ones
# make check                    format, lint, types; of the page too, with Node.js
#
# Each sets up .venv first, and again only when pyproject.toml has changed.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check
.NOTPARALLEL:
.DELETE_ON_ERROR:

demo: .venv/.installed
	@$(BIN)/antiphon demo $(ARGS)

test: .venv/.installed-dev
	@$(BIN)/python -m pytest $(ARGS)

check: .venv/.installed-dev node_modules/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	npm run --silent check

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Antiphon needs Python 3.11 or newer, and '$(PYTHON)' is not one; say which: make PYTHON=python3.12"; exit 1; }
	@echo "Making .venv"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: pyproject.toml | .venv/.made
	@echo "Installing Antiphon into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install -q -e .
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/.made
	@echo "Installing Antiphon and what its tests need into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install -q -e ".[dev]"
	@touch .venv/.installed $@

node_modules/.installed: package-lock.json
	@command -v npm > /dev/null || { echo "The page is checked with Node.js 20 or newer, and there is no npm; install it."; exit 1; }
	@npm ci --silent --no-audit --no-fund
	@touch $@
