"""quip: teach a small language model to be funny with a large one as teacher and critic.

A package imports only what stands below it (`make check`).

    cli/         The command `quip`, and what only a command does.
    stages/      The pipeline: one module a stage, from files to files.
    serving/     A model version and its users: promote, say, serve, export.
    reporting/   Results as words, figures and pages.
    evaluation/  Measures of verdicts, texts and critics, and studies with people.
    training/    Training of students and of the reward model.
    critics/     Which of two texts is better.
    llm/         Large models behind an endpoint: scheduled, retried, stored, paid once.
    data/        Sentences, graded pairs and votes: read, checked, cleaned.
    models/      Models on this machine: pinned weights, the student, the embedded engine.
    tracking/    MLflow as a mirror of what the stages do, and where a model came from.
    core/        What every result rests on: rows, files, params, texts.
    runtime/     What every process needs and what changes no result.
    prompts/     Prompt texts; data, no code.
"""

import os
from pathlib import Path

__version__ = "0.1.0"

# An experiment in a folder of its own (`dvc exp run --temp`, the queue) runs the code that it was
# begun with, which its commit holds, and not what the main checkout has by now.
if "DVC_STAGE" in os.environ and Path("src/quip").is_dir():
    __path__ = [str(Path("src/quip").resolve())]
