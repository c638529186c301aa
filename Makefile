# Set-up, the demo and the checks. `make` alone lists the targets.

PYTHON ?= python3
# Passed to every pip install: the README says how to get PyTorch's CPU build with it.
PIP_ARGS ?=
# Passed to the command: make demo ARGS="--port 8600"
ARGS ?=
# Two workers, each with one thread for tensors: right for two cores, and no test depends on it.
PYTEST_ARGS ?= -n 2

VENV := .venv
BIN := $(VENV)/bin
# pyright asks a server for a newer version unless told not to.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo serve lab test lint format browser docs results screenshots clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.runtime ## set up, train a nano run and open the dashboard on it; Ctrl-C ends both
	@$(BIN)/python -m bottleneck_core demo $(ARGS)

serve: $(VENV)/.runtime ## open the dashboard on runs/
	@$(BIN)/python -m bottleneck_core serve $(ARGS)

lab: $(VENV)/.runtime ## open Jupyter on notebooks/
	@mkdir -p notebooks
	@$(BIN)/jupyter lab --notebook-dir=notebooks $(ARGS)

test: lint browser ## set up, lint, types, import contracts, all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev ## lint, formatting, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/.dev ## put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## write docs/commands.md from the schema
	$(BIN)/python docs/commands.py

results: $(VENV)/.dev ## write docs/RESULTS.md and its figures from runs/
	$(BIN)/python docs/results.py $(ARGS)

screenshots: $(VENV)/.dev browser ## take the pictures of docs/img from runs/
	$(BIN)/python docs/screenshots.py $(ARGS)

clean: ## remove the environment and all caches; runs and token files stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is the last thing that venv puts in place: where it is, the environment is whole.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 or newer is needed and $(PYTHON) is not: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) has no venv module: on Debian, apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(BIN)/pip
	$(BIN)/python -m pip install $(PIP_ARGS) -r requirements.txt
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.runtime
	$(BIN)/python -m pip install $(PIP_ARGS) -c requirements.txt -e '.[dev]'
	@touch $@

# The pages are also tested in a real browser. It comes from Debian, so only root can fetch it.
browser:
	@if (command -v chromium || command -v chromium-browser || command -v google-chrome) >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -q && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core; then :; \
	elif [ "$$CI" = true ]; then echo "error: no chromium: the browser tests cannot run" >&2; exit 1; \
	else echo "no chromium: the browser tests will be skipped (on Debian, apt install chromium)"; fi
