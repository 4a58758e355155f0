# Two commands: `make run` (the whole job) and `make test` (develop.mk). Both set up what they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export PYTHONUNBUFFERED := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help setup weights run try clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## make the virtual environment from the pinned requirements

$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "quip needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

weights: setup  ## fetch and check the pinned model files (1.3 GB, once for all clones)
	$(BIN)/python -m quip.models.weights

run: weights  ## the main job: dvc repro, then the result table
	dvc repro
	@quip times
	@quip results

try: weights  ## the same pipeline on little data, in a folder of its own (a few minutes)
	@quip try

clean:  ## remove the environment and local scratch; outputs, calls and MLflow stay
	rm -rf $(VENV) .quip/checkpoints .pytest_cache .mypy_cache .ruff_cache

-include develop.mk
