"""Take the pictures of README: the report's first screen and the voting page.

    python docs/images/take_screenshots.py [PROJECT]

PROJECT is a folder with a finished run (`dvc repro`); without it, the current one. Needs chromium
and chromedriver (apt: chromium-driver). Writes report.png and voting.png beside this file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).resolve().parent
ROOT = IMAGES.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "src")]

from browser import browsing  # noqa: E402 (found by the line above)

WIDTH, REPORT_HEIGHT, VOTING_HEIGHT = 960, 690, 690
"""Pixels of what is seen of the pages."""
NO_SCROLLBAR = "document.documentElement.style.overflow = 'hidden'"


def main(project: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, browsing() as browser:
        take(browser, project / "data" / "report" / "report.html", "report.png", REPORT_HEIGHT)
        take(browser, voting_page(project, Path(folder)), "voting.png", VOTING_HEIGHT, begin)


def voting_page(project: Path, folder: Path) -> Path:
    """The page that `quip human make` makes of the project's answers."""
    page = folder / "page.html"
    command = [sys.executable, "-m", "quip.cli.main", "human", "make", "--out", str(page)]
    subprocess.run(command, cwd=project, check=True)
    return page


def begin(browser: Any) -> None:
    """Past the page's first screen, to the first pair."""
    browser.find_element("id", "name").send_keys("reader")
    browser.find_element("id", "begin").click()


def take(browser: Any, page: Path, name: str, height: int, before: Any = None) -> None:
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.resolve().as_uri())
    if before:
        before(browser)
    browser.execute_script(NO_SCROLLBAR)
    browser.save_screenshot(str(IMAGES / name))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
