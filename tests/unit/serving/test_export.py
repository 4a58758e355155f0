"""quip export: a folder for other programs; a GGUF file must agree with the student."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from cli_runner import quip
from quip.models import student, weights
from quip.models.pins import STUDENT
from quip.reporting import model_card
from quip.runtime.errors import DataError
from quip.serving import export, gguf_check, gguf_writer
from quip.tracking import mlflow_store
from quip.tracking.lineage import hash_file, model_digest
from registry_project import (
    ARMS,
    NAME,
    point_to,
    run_stage,
    write_answers,
    write_params,
    write_results,
)

OUT = Path("out")


@pytest.fixture
def project(checkout: Path, tiny_student: Path) -> Path:
    """A checkout with two trained arms (of equal weights) and their figures."""
    write_params()
    for arm in ARMS:
        shutil.copytree(tiny_student, Path("models", arm))
        point_to(arm)
    write_results({"sft": 0.3, "dpo": 0.4})
    write_answers(*ARMS)
    Path("data/report").mkdir()
    Path("data/report/report.html").write_text("<p>report</p>")
    return checkout


# ---- the folder


def test_an_arm_becomes_a_folder_that_transformers_loads(project: Path) -> None:
    done = quip("export", "dpo", "--out", "out")
    assert done.exit_code == 0, done.output
    assert "out/model.safetensors" in done.stdout
    assert model_digest(OUT) == model_digest(Path("models/dpo"))
    AutoModelForCausalLM.from_pretrained(OUT)
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "It rained."}]
    read = AutoTokenizer.from_pretrained(OUT).apply_chat_template(
        said, tokenize=False, add_generation_prompt=True
    )
    assert read == student.prompt("It rained.")
    assert not list(project.glob(".out*"))


def test_the_manifest_holds_every_file_s_sha256(project: Path) -> None:
    quip("export", "dpo", "--out", "out")
    found = json.loads((OUT / "export.json").read_text())
    assert (found["arm"], found["model_sha256"]) == ("dpo", model_digest(OUT))
    names = {path.name for path in OUT.iterdir()} - {"export.json"}
    assert found["files"] == {name: hash_file(OUT / name, "sha256") for name in names}


def test_the_card_gives_score_judge_and_number_of_inputs(project: Path) -> None:
    critic = {"agreement": 0.8, "ci95": [0.7, 0.9], "n": 40, "position_bias": 0.1}
    Path("data/metrics/critic.json").write_text(json.dumps({**critic, "judges": {}}))
    quip("export", "dpo", "--out", "out")
    found = ModelCard.load(OUT / "README.md")
    results = {(r.dataset_split, r.metric_type): r for r in found.data.eval_results}
    score = results["test", "score"]
    assert score.metric_value == 0.4
    assert score.metric_args == {
        **{"judge": "embedded", "n": 120, "ci95": [pytest.approx(0.3), pytest.approx(0.5)]},
    }
    assert "| test | embedded | 120 | 0.50 [0.40, 0.60] | 0.40 [0.30, 0.50] |" in found.text
    assert "| critic | 0.80 [0.70, 0.90] | 40 | 0.10 |" in found.text
    assert student.prompt("I missed my bus.") in found.text
    for heading in ("Use", "Base and objective", "Data", "Evaluation", "Limits", "Licence"):
        assert f"\n## {heading}\n" in found.text


def test_the_card_names_base_data_prompts_and_settings(project: Path) -> None:
    lock = {"path": "data/raw/literals.jsonl", "md5": "0aff"}
    prompt = {"path": "src/quip/prompts/teacher.txt", "md5": "0bff"}
    folder = {"path": "data/imitation", "md5": "0cff.dir"}
    base = {"sft": {"base": "smollm2-135m-instruct", "epochs": 3}}
    secret = {
        "endpoints": {"mine": {"base_url": "http://10.0.0.7/v1"}},
        "prepare": {"source": "shipped"},
    }
    stages = {
        "prepare": {"deps": [lock], "outs": [{"path": "data/prepared", "md5": "0dff.dir"}]},
        "teacher": {
            "deps": [{"path": "data/prepared"}, prompt],
            "params": {"params.yaml": secret},
            "outs": [folder],
        },
        "sft": {
            "deps": [folder],
            "params": {"params.yaml": base},
            "outs": [{"path": "models/sft", "md5": "0eff.dir"}],
        },
    }
    Path("dvc.lock").write_text(json.dumps({"stages": stages}))
    Path("data/roles").mkdir()
    Path("data/roles/teacher.json").write_text('{"model": "large-1", "endpoint": "mine"}')
    quip("export", "sft", "--out", "out")
    found = ModelCard.load(OUT / "README.md")
    assert found.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found.data.license == "apache-2.0"
    assert "| `data/raw/literals.jsonl` | `0aff` |" in found.text
    assert "teacher: `large-1`, endpoint `mine`, prompt `teacher` (md5 `0bff`)" in found.text
    assert "epochs 3" in found.text
    assert "10.0.0.7" not in found.text


@pytest.mark.parametrize(
    ("base", "source", "licence"),
    [
        ("smollm2-135m-instruct", "shipped", "apache-2.0"),
        ("smollm2-135m-instruct", "empatheticdialogues", "cc-by-nc-4.0"),
        ("smollm2-135m-instruct", "mine.csv", "other"),
        ("facebook/bart-large", "shipped", "other"),
    ],
)
def test_the_licence_is_never_freer_than_base_and_data(
    base: str, source: str, licence: str
) -> None:
    params = {"sft": {"base": base}, "prepare": {"source": source}}
    made = {"sft": {"params": {"params.yaml": params}}}
    facts = model_card.Facts("n", "sft", "", "causal", made, {}, {}, {}, {}, {}, None)
    assert model_card.licence_id(facts) == licence
    assert model_card.render_card(facts, "").data.license == licence


def test_a_description_fits_into_the_registry(project: Path) -> None:
    facts = export.origin_of_arm("dpo").facts
    facts.wtr["arms"]["dpo"]["test"].update(
        {f"judge{i}": facts.wtr["arms"]["dpo"]["test"]["embedded"] for i in range(200)}
    )
    assert len(model_card.description(facts)) <= model_card.MAX_DESCRIPTION


def test_an_earlier_export_is_replaced_and_nothing_else(project: Path) -> None:
    assert quip("export", "sft", "--out", "out").exit_code == 0
    assert quip("export", "dpo", "--out", "out").exit_code == 0
    assert json.loads((OUT / "export.json").read_text())["arm"] == "dpo"
    done = quip("export", "dpo", "--out", "data")
    assert (done.exit_code, "no earlier export" in done.stderr) == (2, True)
    assert Path("data/metrics").is_dir()


def test_weights_of_another_training_are_refused(project: Path) -> None:
    Path("models/dpo/model.safetensors").write_bytes(b"changed by hand")
    done = quip("export", "dpo", "--out", "out")
    assert (done.exit_code, "not those of its card" in done.stderr) == (2, True)
    assert not OUT.exists()


# ---- versions of the registry


def test_a_version_is_exported_with_the_card_it_was_registered_with(project: Path) -> None:
    run_stage()
    shutil.rmtree("models")
    write_results({"sft": 0.9, "dpo": 0.9})  # of a later run: does not count for this version
    done = quip("export", "champion", "--out", "out")
    assert done.exit_code == 0, done.output
    assert "| 0.40 [0.30, 0.50] |" in (OUT / "README.md").read_text()
    AutoTokenizer.from_pretrained(OUT)
    assert json.loads((OUT / "export.json").read_text())["name"] == NAME


def test_a_version_without_a_card_says_what_to_do(project: Path) -> None:
    entries = run_stage()
    shutil.rmtree("models")
    run = entries["dpo"]["run_id"]
    Path("mlruns", run, "artifacts", "card.json").unlink()
    done = quip("export", str(entries["dpo"]["version"]), "--out", "out")
    assert (done.exit_code, "registered without a card" in done.stderr) == (2, True)


def test_no_secret_reaches_the_card(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    pointer = json.loads(Path("data/runs/dpo.json").read_text())
    pointer["params"]["rows"] = "hf_abcdefghijkl"
    Path("data/runs/dpo.json").write_text(json.dumps(pointer))
    quip("export", "dpo", "--out", "out")
    assert "hf_abcdefghijkl" not in (OUT / "README.md").read_text()
    run_stage()
    found = mlflow_store.connect().client.list_artifacts(run_stage()["dpo"]["run_id"])
    assert "card.json" in [file.path for file in found]
    assert not [p for p in Path("mlruns").rglob("*.*") if b"hf_abcdefghijkl" in p.read_bytes()]


# ---- GGUF


@pytest.mark.parametrize("precision", ["f16", "f32"])
def test_a_gguf_file_agrees_with_the_student(project: Path, precision: Any) -> None:
    done = quip("export", "dpo", "--out", "out", "--gguf", precision)
    assert done.exit_code == 0, done.output
    file = OUT / f"{NAME}-dpo-{precision}.gguf"
    assert gguf_check.measure(student.load(OUT), file).worst < 0.005
    fields = gguf.GGUFReader(file).fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert fields["tokenizer.chat_template"].contents() == export.chat_template()
    assert f"FROM ./{file.name}" in (OUT / "Modelfile").read_text()
    assert student.prompt("{{ .Prompt }}") in (OUT / "Modelfile").read_text()
    assert "positions differ" in (OUT / "README.md").read_text()


def test_the_engine_s_chat_reads_the_student_s_own_prompt(project: Path) -> None:
    quip("export", "dpo", "--out", "out", "--gguf", "f32")
    server = gguf_check.start_engine(OUT / f"{NAME}-dpo-f32.gguf")
    said = [{"role": "user", "content": "It rained."}]
    found = gguf_check.post(server, "/apply-template", {"messages": said})
    assert found["prompt"] == student.prompt("It rained.")


def test_rows_that_are_not_reordered_are_noticed_and_nothing_is_left(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_writer, "permute_rotary_rows", lambda key, values, config: values)
    monkeypatch.setitem(gguf_check.BOUNDS, "f32", 1e-3)  # random weights give small differences
    done = quip("export", "dpo", "--out", "out", "--gguf", "f32")
    assert (done.exit_code, "disagrees with the student" in done.stderr) == (2, True)
    assert not OUT.exists()
    assert not list(project.glob(".out*"))


def test_another_tokenizer_is_noticed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*words: Any) -> None:
        to_gguf_tokenizer(*words)
        words[0].kv_data[0]["tokenizer.ggml.tokens"].value[20:22] = ["22", "33"]

    to_gguf_tokenizer = gguf_writer.add_tokenizer
    monkeypatch.setattr(gguf_writer, "add_tokenizer", other)
    done = quip("export", "dpo", "--out", "out", "--gguf", "f32")
    assert (done.exit_code, "differently" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "qwen2"}, "it is a 'qwen2'"),
        ("config.json", {"rope_parameters": {"rope_type": "llama3"}}, "rope type 'llama3'"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Metaspace"}}, r"\(BPE after Metaspace\)"),
    ],
)
def test_what_cannot_be_written_faithfully_is_refused(
    project: Path, file: str, change: dict[str, Any], message: str
) -> None:
    path = Path("models/dpo", file)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        gguf_writer.write(Path("models/dpo"), Path("x.gguf"), "x", "f16")
    assert not Path("x.gguf").exists()


def test_an_encoder_decoder_is_exported_without_gguf(project: Path, tiny_bart: Path) -> None:
    shutil.copytree(tiny_bart, "models/brio")
    point_to("brio")
    assert quip("export", "brio", "--out", "out").exit_code == 0
    assert "AutoModelForSeq2SeqLM" in (OUT / "README.md").read_text()
    done = quip("export", "brio", "--out", "other", "--gguf", "f16")
    assert (done.exit_code, "no GGUF of an encoder-decoder" in done.stderr) == (2, True)


@pytest.mark.slow
def test_the_real_base_agrees_with_its_gguf_file(checkout: Path) -> None:
    base = Path(weights.student_base(STUDENT))
    loaded = student.load(base)
    for precision, bound in gguf_check.BOUNDS.items():
        file = Path(f"{precision}.gguf")
        gguf_writer.write(base, file, "base", precision)  # type: ignore[arg-type]
        assert gguf_check.check(loaded, file, bound).positions > 50
        file.unlink()


# ---- the hub


def test_a_push_is_dry_unless_yes_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    done = quip("export", "dpo", "--out", "out", "--push", "me/funny")
    assert done.exit_code == 0, done.output
    assert "Nothing was sent" in done.stdout
    assert "huggingface.co/me/funny" in done.stdout
    done = quip("export", "dpo", "--out", "out", "--push", "me/funny", "--yes")
    assert (done.exit_code, "the hub refused" in done.stderr) == (3, True), done.output
    assert len(done.stderr.strip().splitlines()) == 1
    assert (OUT / "README.md").is_file()


def test_an_impossible_name_and_a_yes_without_a_push_are_refused(project: Path) -> None:
    done = quip("export", "dpo", "--out", "out", "--push", "a/b/c")
    assert (done.exit_code, "--push a/b/c" in done.stderr) == (2, True)
    assert quip("export", "dpo", "--out", "out", "--yes").exit_code == 2


def test_an_unknown_student_is_refused(project: Path) -> None:
    run_stage()
    done = quip("export", "7", "--out", "out")
    assert (done.exit_code, "no version '7'" in done.stderr) == (2, True)
