"""Whatever README.md names exists: paths, commands, options, stages, params keys, links.

The last tests break names on purpose: the checker (tests/support/page_checks.py) must see it.
"""

from __future__ import annotations

import re

import pytest

from page_checks import problems, seen
from repository import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


# ---- the README ------------------------------------------------------------------------------


def test_everything_that_the_readme_names_exists() -> None:
    assert problems(README) == []


def test_the_checker_saw_what_the_readme_is_made_of() -> None:
    found = seen(README)
    least = {"path": 6, "key": 12, "make": 3, "quip": 9, "mlflow": 1, "link": 14}
    assert {kind: found[kind] for kind, n in least.items() if found[kind] < n} == {}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 180


def test_the_tree_names_every_package_with_what_it_is_for() -> None:
    tree = README.split("\n## What is where\n")[1].split("\n## ")[0]
    named = re.findall(r"^  (\w+)/ +\w.*$", tree, re.MULTILINE)
    folders = [path.name for path in (ROOT / "src" / "quip").iterdir() if any(path.glob("*.*"))]
    assert sorted(named) == sorted({*folders} - {"__pycache__"})


def test_the_readme_keeps_its_order() -> None:
    assert re.findall(r"^## (.+)$", README, re.MULTILINE) == [
        *("What it makes of a sentence", "Quick start", "What you get", "Result", "For real"),
        *("Your own data", "What is where", "Limits", "Contribute, cite, licence"),
    ]


def test_the_pictures_are_there_and_small() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert sorted(shown) == ["docs/images/report.png", "docs/images/voting.png"]
    assert all(5_000 < (ROOT / name).stat().st_size < 300_000 for name in shown)


def test_it_names_no_path_of_one_machine() -> None:
    assert not re.search(r"/(home|root|work|Users|tmp)/", README)


# ---- the checker -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        "`make fly`",
        "`quip fly`",
        "`quip say --loud hello`",
        "`dvc fly`",
        "`dvc repro aling@dpo`",
        "`dvc repro --sideways`",
        "`dvc exp run -S dpo.betta=0.3`",
        "`mlflow fly`",
        "`python -m quip.wieghts`",
        "`python -m pytest tests/test_nothing.py`",
        "`export QUIP_NOTHING=1`",
        "`QUIP_NOTHING`",
        "`dpo.betta`",
        "`arms.first`",
        "`betta: 0.1`",
        "`data/raw/nothing.jsonl`",
        "`models/bart`",
        "`data/report/nothing.html`",
        "`nothing.py`",
        "`nobody_knows_me`",
        "[text](docs/NOTHING.md)",
        "[text](#nowhere)",
        "```yaml\nteacher:\n  nn: 3\n```",
        "```yaml\nendpoints:\n  mine:\n    url: x\n```",
        "```sh\nmake run\nmake fly  # both\n```",
        "```sh\nfly away\n```",
        "```python\nimport quip_nothing\n```",
        "```bash\nmake run\n```",
    ],
)
def test_a_broken_name_is_noticed(broken: str) -> None:
    assert len(problems(f"# Title\n\n{broken}\n")) == 1, broken


@pytest.mark.parametrize(
    "right",
    [
        "`make run PYTHON=python3.12`",
        '`quip say "I missed my bus." --n 5`',
        "`dvc repro align@dpo`",
        "`dvc exp run -S dpo.beta=0.3`",
        "`models/dpo`",
        "`data/verdicts`",
        "`data/report/report.html`",
        "`dpo.beta`",
        "`prepare.limit.train`",
        "[here](#title)",
        "```yaml\nteacher:\n  n: 3\n```",
        "```text\nanything `fly`\n```",
        "<!-- results -->\n`fly`\n<!-- /results -->",
    ],
)
def test_a_right_name_passes(right: str) -> None:
    assert problems(f"# Title\n\n{right}\n") == []
