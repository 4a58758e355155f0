"""`quip export`: a student as a folder for other people and other programs.

The folder holds merged safetensors, tokenizer, model card and `export.json` (name, arm, and the
sha256 of every file); on request also a GGUF file, compared with the student, and a Modelfile for
Ollama. The folder is written whole or not at all, and replaces nothing but an earlier export.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from quip.core.jsonl import write_json
from quip.core.params import read_params
from quip.reporting import mlflow_pages, model_card
from quip.reporting.model_card import Facts
from quip.runtime.errors import DataError, EndpointError, ParamsError
from quip.serving import paraphrase
from quip.serving.gguf_writer import Precision
from quip.tracking import backfill, mlflow_store, registry, runs
from quip.tracking.lineage import hash_file, model_digest

MANIFEST = "export.json"
EXAMPLE = "I missed my bus."
METRICS = Path("data/metrics")
RUNS = Path("data/runs")


@dataclass(frozen=True)
class Origin:
    """A student's folder and the facts of its model card."""

    folder: Path
    facts: Facts


def export(wanted: str, out: Path, precision: Precision | None) -> None:
    """Write the student `wanted` (an arm trained here, or a version's number or alias) to `out`.

    Raises DataError when there is no such student, `out` holds other files, the weights are not
    those of the model card, or the GGUF file disagrees with the student.
    """
    if out.exists() and not (out / MANIFEST).is_file() and any([*out.iterdir()]):
        raise DataError(f"{out} is not empty and is no earlier export. Choose another --out.")
    found = find_origin(wanted)
    name = f"{found.facts.name}-{found.facts.arm}"
    staging = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        copy_files(found.folder, staging)
        use = write_family(staging, name, found.facts.family, precision)
        text = mlflow_store.mask_secrets(str(model_card.render_card(found.facts, "\n\n".join(use))))
        (staging / "README.md").write_text(text, encoding="utf-8")
        write_manifest(staging, found.facts)
        shutil.rmtree(out, ignore_errors=True)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# ---- what is exported ----------------------------------------------------------------------


def find_origin(wanted: str) -> Origin:
    """The student `wanted`; DataError unless its weights are those that its card was measured
    on."""
    found = origin_of_arm(wanted) if paraphrase.is_trained(wanted) else origin_of_version(wanted)
    digest = model_digest(found.folder)
    if digest != found.facts.sha256:
        raise DataError(
            f"{found.folder}: its weights (sha256 {digest[:12]}) are not those of its card "
            f"({found.facts.sha256[:12] or 'unknown'}). Run `dvc repro` (or `dvc checkout`)."
        )
    return found


def origin_of_arm(arm: str) -> Origin:
    folder, run = paraphrase.MODELS / arm, RUNS / f"{arm}.json"
    sha256 = backfill.read_pointer(run)["model_sha256"]
    respond = read_params().get("respond")
    facts = model_card.gather_facts(
        paraphrase.model_name(), arm, sha256, folder, METRICS, run, respond
    )
    return Origin(folder, facts)


def origin_of_version(wanted: str) -> Origin:
    name = paraphrase.model_name()
    with runs.require_store() as store:
        version = registry.find_version(store, name, wanted)
        facts = mlflow_pages.read_facts(store, version.run_id)
        if facts is None:
            raise DataError(
                f"{name} version {version.version} was registered without a card. Check out its "
                f"commit (`quip trace {version.version}`) and run `dvc repro -f -s register`."
            )
        return Origin(registry.model_folder(store, name, version), Facts(**facts))


# ---- the folder ----------------------------------------------------------------------------


def copy_files(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.name.startswith("."):
            shutil.copyfile(file, target / file.name)


def write_family(folder: Path, name: str, family: str, precision: Precision | None) -> list[str]:
    """Write the files that this model family needs beside its weights.

    Returns the paragraphs of the card on its use. Raises DataError for a GGUF of an
    encoder-decoder.
    """
    if family != "causal":
        if precision:
            raise DataError("no GGUF of an encoder-decoder is possible. Export it without --gguf.")
        return [SEQUENCE_USE]
    from quip.models.student import prompt

    write_chat_template(folder)
    if not precision:
        return [causal_use(prompt(EXAMPLE))]
    agreement = write_gguf(folder, name, precision)
    return [causal_use(prompt(EXAMPLE)), gguf_use(f"{name}-{precision}.gguf", agreement, name)]


def write_chat_template(folder: Path) -> None:
    """Write a chat template that puts the training prompt around the last user message.

    It replaces the base model's template, whose conversations the student was never trained on.
    """
    (folder / "chat_template.jinja").write_text(chat_template(), encoding="utf-8")


def chat_template() -> str:
    """The template in the subset of Jinja that transformers and llama.cpp share."""
    from quip.models.student import prompt

    before, after = prompt("\0").split("\0")
    return f"{before}{{{{ messages[-1]['content'] }}}}{after}"


def write_gguf(folder: Path, name: str, precision: Precision) -> str:
    """Write a GGUF file and a Modelfile; returns the agreement with the student as text."""
    from quip.models import student
    from quip.serving import gguf_check, gguf_writer

    file = folder / f"{name}-{precision}.gguf"
    gguf_writer.write(folder, file, name, precision)
    bound = gguf_check.BOUNDS[precision]
    found = gguf_check.check(student.load(folder), file, bound)
    (folder / "Modelfile").write_text(modelfile(file.name), encoding="utf-8")
    return found.summary(bound)


def modelfile(gguf: str) -> str:
    """The Modelfile for `ollama create NAME -f Modelfile`."""
    from quip.models.student import prompt

    return (
        f'FROM ./{gguf}\nTEMPLATE """{prompt("{{ .Prompt }}")}"""\n'
        'PARAMETER stop "\\n"\n'
        f"PARAMETER temperature {paraphrase.SAMPLING_TEMPERATURE}\n"
        f"PARAMETER top_p {registry.SERVING_OPTIONS['top_p']}\n"
        f"PARAMETER num_predict {registry.SERVING_OPTIONS['max_new_tokens']}\n"
    )


def write_manifest(folder: Path, facts: Facts) -> None:
    files = {path.name: hash_file(path, "sha256") for path in sorted(folder.iterdir())}
    about = {"name": facts.name, "arm": facts.arm, "model_sha256": facts.sha256}
    write_json(folder / MANIFEST, {**about, "files": files})


def file_list(folder: Path) -> str:
    """The files of an export with their sizes, a line each."""
    return "\n".join(f"{folder / name}  {size:,} bytes" for name, size in file_sizes(folder))


def file_sizes(folder: Path) -> list[tuple[str, int]]:
    return [(file.name, file.stat().st_size) for file in sorted(folder.iterdir())]


# ---- how it is used ------------------------------------------------------------------------


def causal_use(prompt: str) -> str:
    return f"""\
The model continues one plain prompt and ends by itself. It is no chat model: give it the sentence
as the only message. The chat template beside the weights writes this prompt around it:

```text
{prompt}
```

```python
from transformers import pipeline

say = pipeline("text-generation", model=".")
print(say({json.dumps(prompt)}, max_new_tokens=40, return_full_text=False))
```"""


def gguf_use(file: str, agreement: str, name: str) -> str:
    return f"""\
For llama.cpp and Ollama:

```sh
llama-server -m {file}
ollama create {name} -f Modelfile && ollama run {name} "{EXAMPLE}"
```

Agreement of the GGUF file (in llama.cpp's engine) with the safetensors: {agreement}."""


SEQUENCE_USE = f"""\
The model is an encoder-decoder: it reads the sentence itself and writes the paraphrase.

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
ids = model.generate(**tokenizer("{EXAMPLE}", return_tensors="pt"), max_new_tokens=40)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
```"""


# ---- the hub -------------------------------------------------------------------------------


def push(folder: Path, repo: str, send: bool) -> str:
    """Upload an export to the hub repository `repo`; without `send` only describe the upload.

    A repository that does not exist is created as a private one. Raises ParamsError for an invalid
    name, EndpointError when the hub refuses or cannot be reached.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ParamsError(f"--push {repo}: {str(error).splitlines()[0]}") from None
    total = sum(size for _, size in file_sizes(folder))
    plan = f"{len(file_sizes(folder))} files, {total:,} bytes, to https://huggingface.co/{repo}"
    if not send:
        return f"Nothing was sent. --yes sends {plan} (a new repository is made private)."
    api = HfApi()
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"quip {folder.name}")
    except (OSError, httpx2.HTTPError) as error:
        reason = mlflow_store.mask_secrets(str(error).strip().splitlines()[0])
        raise EndpointError(f"the hub refused {plan}: {reason}") from None
    return f"Sent {plan}."
