"""params.yaml: every mistake is one line with the key and the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pytest

from quip.core.params import Section, load, read_params
from quip.runtime.errors import ParamsError


class Adapter(Section):
    rank: int
    alpha: int


class Align(Section):
    beta: float
    epochs: int
    splits: list[str]
    adapter: Adapter | None


GOOD = "align:\n  beta: 0.1\n  epochs: 2\n  splits: [val]\n  adapter: null\n"


def refusal(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError) as caught:
        load("align", Align)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_section_is_read_into_its_model(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD.replace("null", "{rank: 4, alpha: 8}"), encoding="utf-8")
    found = load("align", Align, path)
    assert found == Align(beta=0.1, epochs=2, splits=["val"], adapter=Adapter(rank=4, alpha=8))
    with pytest.raises(ValueError, match="frozen"):
        found.beta = 0.2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "beta:",
            "betta:",
            "unknown key 'align.betta'. Known keys: adapter, beta, epochs, splits. "
            "Did you mean 'beta'?",
        ),
        (
            "epochs: 2",
            "epochs: 2\n  zzz: 1",
            "unknown key 'align.zzz'. Known keys: adapter, beta, epochs, splits.",
        ),
        (
            "adapter: null",
            "adapter: {rank: 4, alpha: 8, rang: 4}",
            "unknown key 'align.adapter.rang'. Known keys: alpha, rank. Did you mean 'rank'?",
        ),
        ("  epochs: 2\n", "", "key 'align.epochs' is missing."),
        ("adapter: null", "adapter: {rank: 4}", "key 'align.adapter.alpha' is missing."),
        (
            "epochs: 2",
            "epochs: two",
            "key 'align.epochs' is 'two': Input should be a valid integer, unable to parse string "
            "as an integer.",
        ),
        ("beta: 0.1", "beta: [0.1]", "key 'align.beta' is [0.1]: Input should be a valid number."),
        (
            "splits: [val]",
            "splits: [val, 3]",
            "key 'align.splits.1' is 3: Input should be a valid string.",
        ),
        ("beta: 0.1", "beta:", "key 'align.beta' is None: Input should be a valid number."),
    ],
)
def test_a_mistake_is_named_by_its_key(
    old: str, new: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new)
    assert refusal(text, monkeypatch, tmp_path) == f"params.yaml: {message}"


def test_a_missing_section_is_named_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = refusal("alignn: {}\n", monkeypatch, tmp_path)
    assert message == "params.yaml: section 'align' is missing. Did you mean 'alignn'?"


def test_an_empty_section_misses_its_first_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = refusal("align:\n", monkeypatch, tmp_path)
    assert message == "params.yaml: key 'align.beta' is missing."


def test_a_section_that_is_no_mapping_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = refusal("align: 3\n", monkeypatch, tmp_path)
    assert message.startswith("params.yaml: key 'align' is 3: Input should be a valid dictionary")


def test_bad_yaml_is_named_by_line_and_column(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = refusal("align:\n  beta: 0.1\n  epochs: [2\n", monkeypatch, tmp_path)
    assert message == (
        "params.yaml, line 4, column 1: not YAML (expected ',' or ']', but got '<stream end>')."
    )
    tab = refusal("align:\n\tbeta: 0.1\n", monkeypatch, tmp_path)
    assert tab.startswith("params.yaml, line 2, column 1: not YAML (found character '\\t'")


@pytest.mark.parametrize("text", ["", "- align\n", "just words\n"])
def test_a_file_without_sections_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = refusal(text, monkeypatch, tmp_path)
    assert message == "params.yaml: expected sections such as 'teacher:', found no mapping."


def test_a_missing_file_says_where_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParamsError) as caught:
        read_params()
    assert str(caught.value) == "params.yaml: no such file. Run from the project's root."
