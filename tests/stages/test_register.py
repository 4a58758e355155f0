"""register: a version per arm and set of weights, the best as challenger; files are enough."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from quip.runtime.errors import DataError, ParamsError
from quip.tracking import mlflow_store, registry
from quip.tracking import runs as runs_module
from quip.tracking.lineage import data_hash, model_digest
from registry_project import (
    ARMS,
    NAME,
    client,
    held,
    point_to,
    run_stage,
    write,
    write_answers,
    write_params,
    write_results,
    write_student,
)


@pytest.fixture
def project(checkout: Path) -> Path:
    """A checkout in which everything before `register` is done, with weights that are not any."""
    write_params()
    write_student("sft", b"sft weights")
    write_student("dpo", b"dpo weights")
    write_results({"sft": 0.3, "dpo": 0.4})
    write_answers(*ARMS)
    Path("data/report").mkdir()
    Path("data/report/report.html").write_text("<p>report</p>")
    return checkout


def test_each_arm_becomes_a_version_and_the_better_one_champion(project: Path) -> None:
    entries = run_stage()
    assert [entries[arm]["version"] for arm in ARMS] == [1, 2]
    assert entries["dpo"]["aliases"] == ["champion"]
    assert entries["sft"]["aliases"] == ["challenger"]
    assert (held("champion"), held("challenger")) == ("2", "1")
    assert entries["dpo"]["model_sha256"] == model_digest(Path("models/dpo"))


def test_the_calls_and_costs_of_the_stages_are_on_the_run(project: Path) -> None:
    ledger = {"model": "m", "calls": 10, "stored": 4, "money": 0.5, "paid": 0.3}
    write(Path("data/metrics/teacher.json"), {"answered": 10, **ledger})
    write(Path("data/metrics/judge_dpo.json"), {"verdicts": 5, "judges": {"j": ledger}})
    run = client().get_run(run_stage()["dpo"]["run_id"])
    assert run.data.metrics["total/calls"] == 20
    assert run.data.metrics["total/paid"] == pytest.approx(0.6)
    kept = Path(client().download_artifacts(run.info.run_id, "calls.json"))
    stages = [row["stage"] for row in json.loads(kept.read_text())["stages"]]
    assert stages == ["judge_dpo", "teacher"]


def test_registering_again_changes_nothing(project: Path) -> None:
    first = run_stage()
    assert run_stage() == first
    assert len(client().search_model_versions(f"name = '{NAME}'")) == 2
    run_id = first["dpo"]["run_id"]
    assert len(client().get_metric_history(run_id, "test/score.embedded")) == 1


def test_a_version_has_its_training_run_and_its_scores(project: Path) -> None:
    with runs_module.run("align@dpo", {"beta": 0.1}, {}) as run:
        run.log(1, {"loss": 2.0})
    point_to("dpo", run.id)
    before = client().get_run(run.id).info
    run_stage()
    version = client().get_model_version_by_alias(NAME, "champion")
    assert version.run_id == run.id
    tags = version.tags
    assert (tags["arm"], tags["score"], tags["wtr"], tags["judge"], tags["n"]) == (
        *("dpo", "0.400", "0.500", "embedded", "120"),
    )
    assert (tags["score_ci95"], tags["critic.agreement"]) == ("0.300 to 0.500", "0.800")
    found = client().get_run(run.id)
    assert found.data.metrics["test/score.embedded"] == 0.4
    assert found.data.metrics["ood/wtr.embedded"] == 0.5
    assert found.data.metrics["critic/agreement"] == 0.8
    kept = [file.path for file in client().list_artifacts(run.id)]
    assert kept == ["README.md", "calls.json", "card.json", "report.html", "samples.json"]
    assert (found.info.status, found.info.end_time) == ("FINISHED", before.end_time)


def test_the_pages_of_version_and_run_describe_the_student(project: Path) -> None:
    run_stage()
    version = client().get_model_version_by_alias(NAME, "champion")
    assert "direct preference optimisation" in version.description
    assert "| test | embedded | 120 | 0.50 [0.40, 0.60] | 0.40 [0.30, 0.50] |" in (
        version.description
    )
    assert client().get_run(version.run_id).data.tags["mlflow.note.content"] == version.description
    assert f"models:/{NAME}@champion" in client().get_registered_model(NAME).description
    experiment = client().get_experiment(mlflow_store.connect().experiment)
    assert "samples.json" in experiment.tags["mlflow.note.content"]


def test_the_samples_are_a_table_that_mlflow_compares_between_runs(project: Path) -> None:
    runs = [run_stage()[arm]["run_id"] for arm in ARMS]
    run_stage()
    experiment = mlflow_store.connect().experiment
    table = client().load_table(experiment, "samples.json", extra_columns=["run_id"])
    assert sorted(table.columns) == ["input", "literal", "run_id", "student", "teacher"]
    assert sorted(table["run_id"]) == sorted(2 * runs)
    found = {(row.run_id, row.input): row.student for row in table.itertuples()}
    assert found[runs[0], "t0"] == "sft on t0"
    assert found[runs[1], "t1"] == "dpo on t1"


def test_figures_name_the_data_on_which_they_were_measured(project: Path) -> None:
    entries = [run_stage(), run_stage()][1]
    run = client().get_run(entries["dpo"]["run_id"])
    used = {
        data.dataset.name: (data.dataset.digest, data.tags[0].value)
        for data in run.inputs.dataset_inputs
    }
    md5 = data_hash(Path("data/imitation/references.jsonl"))
    assert used == {
        f"data/imitation/references.jsonl, {split}": (md5, "evaluation")
        for split in ("test", "ood")
    }
    profile = json.loads(run.inputs.dataset_inputs[0].dataset.profile)
    assert profile["num_rows"] in (1, 2)
    (model,) = client().search_logged_models(
        [mlflow_store.connect().experiment], "name = 'dpo'", max_results=10
    )
    (score,) = [m for m in model.metrics if m.key == "test/score.embedded"]
    assert (score.dataset_name, score.dataset_digest) == (
        *("data/imitation/references.jsonl, test", md5),
    )


def test_a_training_that_ran_elsewhere_shows_its_data_too(project: Path) -> None:
    model = {"path": "models/dpo", "md5": "0b.dir", "size": 1}
    deps = [{"path": "data/imitation", "md5": "0c.dir"}, {"path": "data/roles/arms/dpo.json"}]
    Path("dvc.lock").write_text(
        yaml.safe_dump({"stages": {"align@dpo": {"deps": deps, "outs": [model]}}})
    )
    run = client().get_run(run_stage()["dpo"]["run_id"])
    known = {data.dataset.name: data.tags[0].value for data in run.inputs.dataset_inputs}
    assert known["data/imitation"] == "imitation"
    assert len(known) == 3


def test_alarms_and_the_difference_to_sft_are_on_version_and_run(project: Path) -> None:
    wtr = json.loads(Path("data/metrics/wtr.json").read_text())
    wtr["alarms"] = {"dpo": {"copy_rate": {"value": 0.4, "limit": 0.2}}}
    wtr["differences"] = {"dpo": {"test": {"embedded": {"difference": 0.1}}}}
    write(Path("data/metrics/wtr.json"), wtr)
    run_stage()
    dpo, sft = (client().get_model_version_by_alias(NAME, a) for a in ("champion", "challenger"))
    assert (dpo.tags["alarms"], sft.tags["alarms"]) == ("copy_rate", "none")
    runs = [client().get_run(version.run_id).data.metrics for version in (dpo, sft)]
    assert [run["alarms"] for run in runs] == [1, 0]
    assert runs[0]["test/difference.embedded"] == 0.1


def test_the_data_and_model_hashes_of_dvc_lock_are_tags(project: Path) -> None:
    pairs = {"path": "data/imitation/pairs.jsonl", "md5": "0a", "size": 1}
    model = {"path": "models/dpo", "md5": "0b.dir", "size": 1}
    stages = {
        "imitation": {"outs": [pairs]},
        "align@dpo": {"deps": [{"path": "data/imitation", "md5": "0c.dir"}], "outs": [model]},
    }
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": stages}))
    run_stage()
    version = client().get_model_version_by_alias(NAME, "champion")
    run = client().get_run(version.run_id)
    for tags in (version.tags, run.data.tags):
        assert tags["dvc.data/imitation/pairs.jsonl"] == "0a"
        assert tags["dvc.models/dpo"] == "0b.dir"


def test_new_weights_become_challenger_and_the_champion_stays(project: Path) -> None:
    run_stage()
    write_student("sft", b"better sft weights")
    write_results({"sft": 0.6, "dpo": 0.4})
    entries = run_stage()
    assert entries["sft"] == {**entries["sft"], "version": 3, "aliases": ["challenger"]}
    assert (held("champion"), held("challenger")) == ("2", "3")


def test_the_first_champion_is_in_the_history(project: Path) -> None:
    run_stage()
    run_stage()
    ((_, first),) = registry.history(mlflow_store.connect(), NAME)
    assert (first["version"], first["over"]) == ("2", None)
    assert "the first" in first["why"]


def test_a_champion_without_files_is_replaced_by_the_best(project: Path) -> None:
    run_stage()
    shutil.rmtree("mlruns/models")
    entries = run_stage()
    assert entries["dpo"]["aliases"] == ["champion"]
    assert held("champion") == str(entries["dpo"]["version"]) == "4"


def test_new_verdicts_on_the_same_weights_renew_the_tags(project: Path) -> None:
    run_stage()
    write_results({"sft": 0.3, "dpo": 0.45})
    assert run_stage()["dpo"]["version"] == 2
    assert client().get_model_version_by_alias(NAME, "champion").tags["score"] == "0.450"


def test_the_earlier_arm_of_equal_scores_is_champion(project: Path) -> None:
    write_results({"sft": 0.4, "dpo": 0.4})
    assert run_stage()["sft"]["aliases"] == ["champion"]


def test_a_single_arm_leaves_no_challenger(project: Path) -> None:
    write_params(("sft",))
    assert run_stage()["sft"]["aliases"] == ["champion"]
    assert "challenger" not in client().get_registered_model(NAME).aliases


def test_a_clone_that_pulled_everything_registers_from_the_files(
    project: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_stage()
    clone = project.with_name("clone")
    for name in ("models", "data"):
        shutil.copytree(project / name, clone / name)
    shutil.copy(project / "params.yaml", clone)
    shutil.copyfile(migrated_database, clone / "mlflow.db")
    monkeypatch.chdir(clone)
    entries = run_stage()
    assert entries["dpo"]["version"] == 2
    assert entries["dpo"]["run_id"] != first["dpo"]["run_id"]
    run = client().get_run(entries["dpo"]["run_id"])
    assert run.data.tags["quip.backfilled"] == "true"
    assert run.data.params == {"beta": "0.1"}
    assert len(client().get_metric_history(run.info.run_id, "loss")) == 2


def test_a_version_without_files_is_registered_anew(project: Path) -> None:
    run_stage()
    shutil.rmtree("mlruns/models")
    assert run_stage()["dpo"]["version"] == 4


def test_a_version_with_older_serving_code_is_logged_anew_and_gives_up_its_aliases(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of the serving code in a version imports modules by name. When they were renamed,
    older versions no longer loaded, and `register` kept them by the hash of their weights."""
    run_stage()
    old = held("champion")
    other = project / "pyfunc_model.py"
    other.write_text(registry.MODEL_CODE.read_text(encoding="utf-8") + "# changed\n")
    monkeypatch.setattr(registry, "MODEL_CODE", other)
    run_stage()
    assert held("champion") != old
    assert run_stage() == run_stage()


def test_everything_lies_under_the_main_checkout(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "exps" / "tmp1"
    for name in ("models", "data"):
        shutil.copytree(project / name, temporary / name)
    shutil.copy(project / "params.yaml", temporary)
    monkeypatch.chdir(temporary)
    monkeypatch.setenv("DVC_ROOT", str(project))
    run_stage()
    assert sorted(path.name for path in temporary.iterdir()) == ["data", "models", "params.yaml"]
    assert list((project / "mlruns" / "models").glob("*/artifacts/MLmodel"))


def test_no_secret_is_stored_with_a_model(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1234567890abcdef")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    run_stage()
    for path in [Path("mlflow.db"), *(p for p in Path("mlruns").rglob("*") if p.is_file())]:
        assert b"1234567890abcdef" not in path.read_bytes()
        assert b"hf_abcdefghijkl" not in path.read_bytes()


def test_requirements_are_pinned_and_portable() -> None:
    assert [line.partition("==")[0] for line in registry.requirements()] == list(
        registry.REQUIREMENTS
    )
    assert not [line for line in registry.requirements() if "+" in line]


def test_weights_of_another_training_are_refused(project: Path) -> None:
    Path("models/dpo/model.safetensors").write_bytes(b"changed by hand")
    with pytest.raises(DataError, match=r"models/dpo: not the weights that data/runs/dpo\.json"):
        run_stage()


def test_an_arm_without_verdicts_is_named(project: Path) -> None:
    write_results({"sft": 0.3})
    with pytest.raises(DataError, match="no test verdicts on arm 'dpo'"):
        run_stage()


@pytest.mark.parametrize("arms", [None, [], "sft", [1]])
def test_ill_typed_arms_are_refused(project: Path, arms: Any) -> None:
    write_params(arms)
    with pytest.raises(ParamsError, match="key 'arms' is"):
        run_stage()


def test_broken_metrics_are_named_by_line_and_column(project: Path) -> None:
    Path("data/metrics/critic.json").write_text('{"agreement":\n x}')
    with pytest.raises(DataError, match=r"critic\.json, line 2, column 2: not JSON"):
        run_stage()


def test_the_champion_gives_paraphrases(project: Path, tiny_student: Path) -> None:
    for arm in ARMS:
        shutil.copytree(tiny_student, Path("models", arm), dirs_exist_ok=True)
        point_to(arm)
    run_stage()
    with mlflow_store.use_store(mlflow_store.connect()) as mlflow:
        model = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    said = model.predict(["I missed my bus."])
    assert [type(text) for text in said] == [str]
    assert model.predict(["I missed my bus."]) == said
    three = {"num_return_sequences": 3, "seed": 1, "max_new_tokens": 8}
    assert len(model.predict(["I missed my bus.", "It rained."], params=three)) == 6
    again = model.predict(["I missed my bus."], params={**three, "temperature": 1.0})
    assert model.predict(["I missed my bus."], params={**three, "temperature": 1.0}) == again
    defaults = {p.name: p.default for p in model.metadata.signature.params}
    assert defaults == {**registry.SERVING_OPTIONS, "num_beams": 2}


def test_stage_times_are_on_the_run(project: Path) -> None:
    entry = {"stage": "sft", "seconds": 9.0, "at": 10.0, "parts": {"start": 2.0, "training": 6.0}}
    Path(".quip").mkdir(exist_ok=True)
    Path(".quip/times.jsonl").write_text(json.dumps(entry) + "\n")
    run = client().get_run(run_stage()["dpo"]["run_id"])
    found = {k: v for k, v in run.data.metrics.items() if k.startswith("time/") and v}
    assert found == {"time/start": 2.0, "time/training": 6.0, "time/other": 1.0}
