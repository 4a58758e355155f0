"""A headless browser for tests; where there is none they are skipped by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt: chromium-driver)"
)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,1400")
PATIENCE = 30
"""Seconds until something that should be on a page is given up."""


@contextmanager
def browsing() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in FLAGS:
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


def seen(browser: Any, words: str) -> None:
    """Wait until these words stand on the page."""
    waited(browser, words, lambda driver: words in driver.find_element("tag name", "body").text)


def click(browser: Any, words: str, tag: str = "a") -> None:
    """Click the last visible element of this kind with these words, waited for."""
    path = f'//{tag}[contains(normalize-space(.), "{words}")]'

    def clicked(driver: Any) -> bool:
        found = [part for part in driver.find_elements("xpath", path) if part.is_displayed()]
        if found:
            found[-1].click()
        return bool(found)

    waited(browser, words, clicked)


def waited(browser: Any, words: str, action: Callable[[Any], bool]) -> None:
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, PATIENCE, ignored_exceptions=[WebDriverException])
    wait.until(action, f"not on the page: {words}")
