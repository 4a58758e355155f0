"""The page of `quip human make` in a real browser: answered whole, with mouse, keys and thumb."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from typer.testing import CliRunner

from blind_study_answers import ARMS, write_answers
from quip.cli.main import app
from quip.evaluation import blind_study
from quip.evaluation.blind_study import StudyKey

DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(DRIVER is None, reason="chromedriver is not installed")
PAGE, KEY = Path("data/human/page.html"), Path("data/human/page.key.json")
QUESTIONS = ("humor", "content", "overall")
ALL = 6
"""Pairs of the page."""
Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    for switch in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    assert DRIVER
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def key(project: Callable[..., Path]) -> StudyKey:
    """A page of six pairs: three inputs, each arm against the teacher."""
    project(arms=[*ARMS])
    write_answers(ALL // 2, same=0)
    made = CliRunner().invoke(app, ["human", "make", "--no-duels"])
    assert made.exit_code == 0, made.output
    return blind_study.read_key(KEY)


@pytest.fixture
def browser(started: Browser, key: StudyKey) -> Iterator[Browser]:
    """At the page, in a window as of a desk; nothing is remembered of an earlier test."""
    started.set_window_size(1200, 1000)
    folder = {"behavior": "allow", "downloadPath": str(Path.cwd())}
    started.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    started.get(PAGE.resolve().as_uri())
    started.execute_script("localStorage.clear()")
    started.refresh()
    yield started
    errors = [line for line in started.get_log("browser") if line["level"] == "SEVERE"]
    assert not errors
    started.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def begin(browser: Browser, name: str = "Ada Lovelace") -> None:
    browser.find_element(By.ID, "name").send_keys(name)
    browser.find_element(By.ID, "begin").click()


def shown(browser: Browser, *names: str) -> list[str]:
    return [browser.find_element(By.ID, name).text for name in names]


def press(browser: Browser, *keys: str) -> None:
    """Keys, to whatever has the focus."""
    for one in keys:
        browser.switch_to.active_element.send_keys(one)


def tap(browser: Browser, question: str, place: int) -> None:
    """The A (0), no difference (1) or B (2) of a question, as a pointer finds it."""
    buttons = browser.find_elements(By.CSS_SELECTOR, f"input[name={question}]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", buttons[place])
    buttons[place].click()


def checked(browser: Browser) -> list[int | None]:
    """Which choice is marked, question by question."""
    found: list[int | None] = []
    for question in QUESTIONS:
        marks = browser.find_elements(By.CSS_SELECTOR, f"input[name={question}]")
        found.append(next((i for i, mark in enumerate(marks) if mark.is_selected()), None))
    return found


def liking(browser: Browser) -> int:
    """The place (0 or 2) of the text that the zebra wrote, else of the longer one: what one who
    judges by the text alone, on whichever side it stands, would choose."""
    left, right = shown(browser, "left", "right")
    return 0 if ("dumped" in left, len(left)) > ("dumped" in right, len(right)) else 2


def saved(browser: Browser) -> Path:
    browser.find_element(By.ID, "save").click()
    name = browser.find_element(By.ID, "said").text.split()[2].rstrip(".")
    file = Path(name)
    for _ in range(100):
        if file.exists():
            return file
        time.sleep(0.1)
    raise AssertionError(f"{name} was not saved; there is {[*Path().iterdir()]}")


def read(*words: object) -> Any:
    return CliRunner().invoke(app, ["human", "read", *map(str, words)])


def test_a_whole_set_by_mouse_with_a_reload_half_way_is_exported_and_read(
    browser: Browser, key: StudyKey
) -> None:
    begin(browser)
    told: dict[tuple[str, str, str], dict[str, int]] = {}
    for number in range(ALL):
        assert shown(browser, "place", "count") == [
            f"Pair {number + 1} of {ALL}",
            f"{number} of {ALL}",
        ]
        places = {"humor": liking(browser), "content": 1, "overall": 2 - liking(browser)}
        for question, place in places.items():
            tap(browser, question, place)
        literal, left, right = shown(browser, "literal", "left", "right")
        told[literal, left, right] = places
        if number == 2:
            before = (shown(browser, "place", "literal", "left", "right"), checked(browser))
            browser.refresh()
            after = (shown(browser, "place", "literal", "left", "right"), checked(browser))
            assert after == before
        browser.find_element(By.ID, "next").click()
    assert shown(browser, "thanks") == ["That was all. Thank you!"]

    file = saved(browser)
    assert file.name == f"answers-{key.page[:8]}-ada-lovelace.json"
    assert len(told) == ALL
    pairs = {pair.id: pair for pair in key.pairs}
    for answer in json.loads(file.read_text())["answers"]:
        pair = pairs[answer["pair"]]
        left, right = pair.texts if answer["left"] == "first" else pair.texts[::-1]
        for question, place in told[pair.literal, left, right].items():
            sides = [answer["left"], "tie", {"first": "second", "second": "first"}[answer["left"]]]
            assert answer[question] == sides[place]

    result = read(file)
    assert result.exit_code == 0, result.output
    found = json.loads(Path("data/human/people.json").read_text())["questions"]
    assert found["content"]["people"]["ties"] == 1.0
    zebra = found["humor"]["results"]["zebra_vs_teacher"]
    assert (zebra["n"], found["overall"]["results"]["zebra_vs_teacher"]["score"]) == (
        ALL // 2,
        pytest.approx(1 - zebra["score"]),
    )


def test_a_whole_set_by_keyboard(browser: Browser, key: StudyKey) -> None:
    browser.switch_to.active_element.send_keys(Keys.TAB)
    press(browser, "Bo", Keys.ENTER)
    press(browser, "1", "2", Keys.ENTER)
    assert shown(browser, "said") == ["Please answer all three questions first."]
    press(browser, "3")
    assert checked(browser) == [0, 1, 2]
    press(browser, "1")
    assert checked(browser) == [0, 1, 0]
    press(browser, Keys.ENTER)
    assert shown(browser, "place") == ["Pair 2 of 6"]
    press(browser, Keys.BACKSPACE)
    assert (shown(browser, "place"), checked(browser)) == (["Pair 1 of 6"], [0, 1, 0])
    press(browser, Keys.ENTER)
    for _ in range(ALL - 1):
        press(browser, "3", "3", "3", Keys.ENTER)
    assert shown(browser, "thanks") == ["That was all. Thank you!"]
    result = read(saved(browser))
    assert result.exit_code == 0, result.output
    habit = json.loads(Path("data/human/people.json").read_text())["questions"]["overall"]["people"]
    assert habit["first_share"] == pytest.approx(1 / ALL)


def test_a_phone_shows_it_all_without_scrolling_sideways(browser: Browser, key: StudyKey) -> None:
    screen = {"width": 320, "height": 640, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    begin(browser, "Cy")
    for _ in range(ALL):
        inside = "return document.documentElement.scrollWidth <= innerWidth"
        assert browser.execute_script(inside)
        for question in QUESTIONS:
            tap(browser, question, 2)
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('.choices label, nav button')]"
            ".map((one) => one.getBoundingClientRect()).map((box) => [box.width, box.height])"
        )
        assert all(min(size) >= 44 for size in sizes), "a thumb needs 44 pixels"
        browser.find_element(By.ID, "next").click()
    assert read(saved(browser)).exit_code == 0


def test_what_is_unfinished_can_be_saved_and_gone_on_with(browser: Browser, key: StudyKey) -> None:
    begin(browser)
    press(browser, "1", "1", "1", Keys.ENTER, "2")
    browser.find_element(By.ID, "pause").click()
    assert shown(browser, "thanks") == ["5 pairs are still open"]
    file = saved(browser)
    assert "incomplete, 1 of 6 pairs" in read(file).output
    assert read(file, "--partial").exit_code == 0
    browser.find_element(By.ID, "again").click()
    assert shown(browser, "place") == ["Pair 2 of 6"]
    assert checked(browser) == [1, None, None]


def test_two_people_at_one_browser_keep_their_own_answers_and_orders(
    browser: Browser, key: StudyKey
) -> None:
    orders = []
    for name, choice in (("Ada", "1"), ("Bo", "3")):
        begin(browser, name)
        order = []
        for _ in range(ALL):
            order.append(tuple(shown(browser, "literal", "left", "right")))
            press(browser, choice, choice, choice, Keys.ENTER)
        orders.append(order)
        browser.find_element(By.ID, "again").click()
        browser.find_element(By.ID, "other").click()
    assert orders[0] != orders[1]
    texts = [sorted((a, *sorted(b)) for a, *b in order) for order in orders]
    assert texts[0] == texts[1]
    begin(browser, "ada")
    assert (shown(browser, "count"), checked(browser)) == (["6 of 6"], [0, 0, 0])


def test_nothing_is_asked_of_a_network_and_texts_are_no_markup(
    browser: Browser, key: StudyKey
) -> None:
    browser.get_log("performance")
    browser.refresh()
    begin(browser)
    (literal,) = shown(browser, "literal")
    assert "& <b>cried</b>." in literal
    asked = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    addresses = [
        one["params"]["request"]["url"]
        for one in asked
        if one["method"] == "Network.requestWillBeSent"
    ]
    assert addresses
    assert all(address.startswith(("file:", "data:")) for address in addresses)


def test_it_can_be_read_aloud_and_seen(browser: Browser, key: StudyKey) -> None:
    """Every control has a name, every group its question, the focus goes to the new pair, and text
    stands out from its ground by the 4.5 : 1 of WCAG 2.2 AA, in light and in dark."""
    begin(browser)
    assert browser.switch_to.active_element.get_attribute("id") == "place"
    for field in browser.find_elements(By.TAG_NAME, "fieldset"):
        assert field.accessible_name.endswith("?")
    names = [one.accessible_name for one in browser.find_elements(By.CSS_SELECTOR, "form input")]
    assert names[1:] == ["A", "No difference", "B"] * 3
    assert browser.find_element(By.ID, "bar").accessible_name == "Pairs answered"
    press(browser, "1")
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        worst = browser.execute_script(CONTRAST)
        assert worst[0] >= 4.5, (scheme, worst)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


CONTRAST = """
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => parts(colour).slice(0, 3).map((c) => c / 255)
  .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if ((parts(colour)[3] ?? 1) > 0) return colour;
  }
};
let worst = [99, ""];
const texts = "p, b, span, h1, h2, label, legend, button, blockquote";
for (const one of document.querySelectorAll(texts)) {
  if (!one.offsetParent || one.disabled || !one.textContent.trim()) continue;
  const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < worst[0]) worst = [ratio, one.outerHTML];
}
return worst;
"""
