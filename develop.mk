# For work on quip itself; a project that `quip init` laid out has none of this.

.PHONY: test slow check bench

test: setup  ## the fast tests
	$(BIN)/python -m pytest -m "not slow"

slow: weights  ## the tests with real weights and a real `dvc repro` (ten minutes)
	$(BIN)/python -m pytest -m slow

check: setup  ## linters and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: weights  ## how fast the endpoint client and the embedded engine are (minutes)
	$(BIN)/python bench/calls.py --engine

load: setup  ## how `quip serve` answers 32 clients for a minute (needs trained students)
	$(BIN)/python bench/serve.py
