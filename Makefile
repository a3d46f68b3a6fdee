# Two commands do everything:
#   make demo    set up, then train a small bilingual GLM and watch it fill blanks
#   make test    set up, then lint, types and the default test suite
# make setup only sets up, into .venv.
#
# PYTHON=python3.12 picks another interpreter (3.11 or newer).
# TORCH_INDEX=URL takes torch from another package index: without a GPU the CPU one that
# pytorch.org/get-started shows, which saves gigabytes.

PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
READY := .venv/ready

.PHONY: setup demo test check format clean
.DEFAULT_GOAL := help

help:
	@sed -n '2,8p' Makefile | sed 's/^# \{0,1\}//'

setup: $(READY)
	@echo "== ready: . .venv/bin/activate makes blankfill known to this shell"

demo: $(READY)
	@$(BIN)/blankfill demo --out runs/demo

test: $(READY) check
	@echo "== tests (default suite), on two workers of one thread each"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 20

check: $(READY)
	@echo "== lint (ruff)"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== types (basedpyright, strict over src)"
	@$(BIN)/basedpyright --warnings src

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The stamp is newer than what decides the environment, so a second start skips this.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "blankfill needs Python 3.11 or newer; name one with: make PYTHON=python3.11"; exit 2; }
	@echo "== set-up: .venv with $$($(PYTHON) --version) (about a minute, once)"
	@$(PYTHON) -m venv .venv
	@if [ -n "$(TORCH_INDEX)" ]; then scripts/install $(BIN)/python \
		-c constraints.txt torch --no-deps --index-url "$(TORCH_INDEX)"; fi
	@scripts/install $(BIN)/python -c constraints.txt -e '.[dev,parquet]'
	@touch $(READY)

clean:
	rm -rf .venv build .pytest_cache .ruff_cache
