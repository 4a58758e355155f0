"""MLflow pages: descriptions, model cards, tables of samples and the data behind each figure.

Every function is idempotent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quip.core.records import Reference, Response
from quip.reporting import model_card
from quip.reporting.tables import sample_inputs
from quip.tracking.lineage import data_hash
from quip.tracking.mlflow_store import Store, mask_secrets, now_ms
from quip.tracking.registry import Version
from quip.tracking.runs import inputs, send_inputs

FACTS, README, SAMPLES = "card.json", "README.md", "samples.json"
SAMPLE_COUNT = 20
NOTE = "mlflow.note.content"
"""MLflow's own tag for the description of an experiment or a run."""
ABOUT_EXPERIMENT = """\
One run a training; `test/score` 0.5 is the teacher's level. Choose *Model training*, top left.

- `sft` imitates the teacher, `align@...` learns from the critic; tag `dvc.exp.name` names DVC's
  experiment.
- A run's artifacts: `README.md` (the model card), `samples.json` (answers beside the teacher's; the
  table view compares runs), `report.html` (the whole comparison), `lineage.json` (code, params and
  data behind it).
"""
ABOUT_MODEL = """\
A small language model that says a plain sentence with humor. One version a trained student.

`champion` is the one to use, `challenger` the one that may become it: `quip promote` moves the
alias only when the challenger wins head to head, and keeps why in the tags `promotion.*`.

    quip say "I missed my bus."
    mlflow models serve -m models:/{name}@champion --env-manager local
"""


def describe_project(store: Store, name: str) -> None:
    """Write the descriptions of the experiment and of the registered model."""
    store.client.set_experiment_tag(store.experiment, NOTE, ABOUT_EXPERIMENT)
    store.client.update_registered_model(name, ABOUT_MODEL.format(name=name))


def describe_version(store: Store, name: str, version: Version, facts: model_card.Facts) -> None:
    """Write the card of one version: short on the pages of version and run, full as an artifact."""
    text = mask_secrets(model_card.description(facts))
    store.client.update_model_version(name, version.number, text)
    store.client.set_tag(version.run_id, NOTE, text)
    whole = model_card.render_card(facts, usage_text(name, version))
    store.client.log_text(version.run_id, mask_secrets(str(whole)), README)
    store.client.log_dict(
        version.run_id, json.loads(mask_secrets(json.dumps(facts.as_json()))), FACTS
    )


def usage_text(name: str, version: Version) -> str:
    return f"""\
```sh
mlflow models serve -m models:/{name}/{version.number} --env-manager local
quip serve {version.number}
quip export {version.number} --out student --gguf f16
```"""


def log_samples(
    store: Store, version: Version, references: Sequence[Reference], answers: Sequence[Response]
) -> None:
    """Log a table of sample answers, which MLflow's table view shows and compares between runs."""
    texts = {row.input: row.text for row in answers}
    rows = [
        [row.literal, texts.get(row.input, ""), row.paraphrases[0], row.input]
        for row in sample_inputs(references, "test", SAMPLE_COUNT)
    ]
    # The table view groups by the first column and compares the second by default.
    table = {"columns": ["literal", "student", "teacher", "input"], "data": rows}
    store.client.log_dict(version.run_id, table, SAMPLES)
    shown = json.dumps([{"path": SAMPLES, "type": "table"}])
    store.client.set_tag(version.run_id, "mlflow.loggedArtifacts", shown)


def log_results(
    store: Store,
    version: Version,
    values: Mapping[str, float],
    references: Path,
    rows: Sequence[Reference],
) -> None:
    """Log final figures on the run and on the model of the version, once each, with the data they
    were measured on. The keys of `values` begin with the split, as in test/score.learned."""
    from mlflow.entities import Metric

    known = store.client.get_run(version.run_id).data.metrics
    data = {
        split: log_evaluation_data(store, version, split, references, rows)
        for split in model_card.SPLITS
    }
    new = []
    for key, value in values.items():
        if known.get(key) != value:
            measured = data.get(key.partition("/")[0], {})
            new.append(Metric(key, value, now_ms(), 0, model_id=version.model, **measured))
    store.client.log_batch(version.run_id, metrics=new)


def log_evaluation_data(
    store: Store, version: Version, split: str, references: Path, rows: Sequence[Reference]
) -> dict[str, str]:
    """Log the inputs of a split as evaluation data of the run. Returns their name and digest; {}
    for a split without inputs."""
    import pandas
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.data.sources import (  # type: ignore[attr-defined]  # made at import
        LocalArtifactDatasetSource,
    )
    from mlflow.entities import DatasetInput, InputTag

    shown = [{"input": r.input, "literal": r.literal} for r in rows if r.split == split]
    if not shown:
        return {}
    named = {"name": f"{references.as_posix()}, {split}", "digest": data_hash(references)}
    source = LocalArtifactDatasetSource(references.as_posix())
    frame = from_pandas(pandas.DataFrame(shown), source=source, **named)
    tags = [InputTag("mlflow.data.context", "evaluation")]
    entry = DatasetInput(frame._to_mlflow_entity(), tags)
    store.client.log_inputs(version.run_id, [entry])
    return {"dataset_name": named["name"], "dataset_digest": named["digest"]}


def log_training_data(store: Store, version: Version, stage: str, made: model_card.Recipe) -> None:
    """Log the data of a training that did not run here, from its entry in dvc.lock; a training that
    ran here has logged its data itself."""
    run = store.client.get_run(version.run_id)
    known = [data.dataset.name for data in run.inputs.dataset_inputs]
    deps = [Path(dep["path"]) for dep in made.get(stage, {}).get("deps", [])]
    data = {
        path.stem: path for path in deps if path.parts[0] == "data" and path.parts[1] != "roles"
    }
    if run.data.tags.get("quip.backfilled") and data and not known:
        send_inputs(store, version.run_id, {"inputs": inputs(data)})


def read_facts(store: Store, run_id: str) -> dict[str, Any] | None:
    """The facts that `describe_version` stored; None for a version registered without a card."""
    if FACTS not in [file.path for file in store.client.list_artifacts(run_id)]:
        return None
    return dict(json.loads(Path(store.client.download_artifacts(run_id, FACTS)).read_text("utf-8")))
