# For work on quip itself; a project that `quip init` laid out has none of this.

.PHONY: test slow check bench

test: setup  ## the fast tests
	$(BIN)/python -m pytest -m "not slow"

slow: weights  ## the tests with real weights and a real `dvc repro` (ten minutes)
	$(BIN)/python -m pytest -m slow

check: setup  ## linters, types and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

bench: weights  ## speed, as ratios that say what got slower; RECORD=1 keeps them (docs/performance.md)
	$(BIN)/python bench/calls.py --engine
	$(BIN)/python bench/training.py
	$(BIN)/python bench/generation.py
	$(BIN)/python bench/generation.py --beams
	$(BIN)/python bench/growth.py
	$(BIN)/python bench/startup.py --models
	$(BIN)/python bench/engine.py

load: setup  ## how `quip serve` answers 32 clients for a minute (needs trained students)
	$(BIN)/python bench/serve.py
