"""Skill packs: finding and installing one; the shipped pack fits the pipeline."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from rapidfuzz import fuzz, process

from quip.cli import skill_packs, try_run
from quip.core.jsonl import read_rows
from quip.core.params import read_params
from quip.core.records import Exemplar, GoldPair, LiteralText, Row, Split
from quip.core.text import count_words, fold
from quip.llm.requests import prompts
from quip.runtime.errors import DataError

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(path.parent for path in (ROOT / skill_packs.PACKS).glob("*/params.yaml"))
NEAR = 80
"""Similarity (rapidfuzz ratio of the folded texts, 0 to 100) from which two texts say the same."""


class Sentence(Row):
    id: str
    split: Split
    text: str


def test_a_pack_is_shipped_beside_humor() -> None:
    assert [pack.name for pack in SHIPPED] == ["plain_language"]


# ---- finding and putting


def test_a_pack_is_found_by_its_name_or_its_path(tmp_path: Path) -> None:
    assert skill_packs.find_pack(ROOT, "plain_language") == ROOT / "packs" / "plain_language"
    shutil.copytree(ROOT / "packs" / "plain_language", tmp_path / "mine")
    assert skill_packs.find_pack(ROOT, str(tmp_path / "mine")) == tmp_path / "mine"
    with pytest.raises(DataError, match=r"Known packs: plain_language. Did you mean"):
        skill_packs.find_pack(ROOT, "plain_languag")


def test_a_pack_that_lacks_a_part_is_refused_by_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(ROOT / "packs" / "plain_language", mine)
    (mine / "raw" / "gold.jsonl").unlink()
    shutil.rmtree(mine / "prompts")
    with pytest.raises(DataError, match=r"the pack lacks raw/gold.jsonl, prompts/\*.txt"):
        skill_packs.find_pack(tmp_path, str(mine))


@pytest.fixture
def laid_out(tmp_path: Path) -> Path:
    """This project's small version with the skill of the shipped pack."""
    try_run.lay_out(ROOT, tmp_path / "small", skill_packs.find_pack(ROOT, "plain_language"))
    return tmp_path / "small"


def test_no_prompt_or_text_of_the_earlier_skill_stays(laid_out: Path) -> None:
    pack = ROOT / "packs" / "plain_language"
    for part, place in skill_packs.PLACES.items():
        there = {file.name: file.read_bytes() for file in (laid_out / place).iterdir()}
        assert there == {file.name: file.read_bytes() for file in (pack / part).iterdir()}


def test_values_are_the_pack_s_then_the_small_run_s_then_the_project_s(laid_out: Path) -> None:
    ours, small = read_params(ROOT / "params.yaml"), read_params(ROOT / "params.try.yaml")
    found = read_params(laid_out / "params.yaml")
    assert found["register"]["name"] == "quip-plain-language"
    assert found["prepare"]["limit"] == small["prepare"]["limit"]
    assert found["endpoints"] == ours["endpoints"]
    over = read_params(ROOT / "packs" / "plain_language" / "params.yaml")
    del ours["graded"]["attempts"]  # of humor: the pack brings no such file
    ours["reward"]["pairs"], ours["audit"]["extra"] = ["gold"], []
    assert found == skill_packs.merge_params(skill_packs.merge_params(ours, over), small)


def test_comments_go_with_their_values(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a:  # first\n  b: 1   # one\n  c: null   # two\n")
    (tmp_path / "over.yaml").write_text("a:\n  b: 2   # more\n")
    skill_packs.overlay_file(tmp_path / "params.yaml", tmp_path / "over.yaml")
    written = (tmp_path / "params.yaml").read_text()
    assert written == "a:  # first\n  b: 2   # more\n  c: null   # two\n"


# ---- every pack that is shipped


@pytest.fixture(params=SHIPPED, ids=lambda pack: pack.name)
def pack(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def merged(pack: Path) -> dict[str, Any]:
    found: dict[str, Any] = skill_packs.merge_params(
        read_params(ROOT / "params.yaml"), read_params(pack / "params.yaml")
    )
    return found


def test_its_params_name_keys_that_there_are(pack: Path) -> None:
    def keys(tree: Any, prefix: str = "") -> set[str]:
        if not isinstance(tree, dict):
            return {prefix}
        return {found for key, part in tree.items() for found in keys(part, f"{prefix}.{key}")}

    assert keys(merged(pack)) == keys(read_params(ROOT / "params.yaml"))


def test_it_has_every_prompt_that_its_params_name(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "FOLDER", pack / "prompts")
    wanted = {
        "teacher": {"n": "2", "exemplars": "x", "literal": "y"},
        "critic": {"literal": "x", "first": "y", "second": "z"},
    }
    for role in ("teacher", "critic", "judge"):
        name = merged(pack)[role]["prompt"]
        values = wanted["teacher" if role == "teacher" else "critic"]
        filled = prompts.fill(prompts.read(name), **values)
        assert all(value in "".join(text for _, text in filled) for value in values.values())


def test_it_has_examples_enough_for_the_teacher(pack: Path) -> None:
    teacher = merged(pack)["teacher"]
    rows = read_rows(pack / "raw" / "exemplars.jsonl", Exemplar)
    assert len(rows) >= teacher["exemplars"] * teacher["prefixes"]
    assert all(len(row.paraphrases) >= teacher["n"] for row in rows)


def test_it_has_inputs_for_every_part(pack: Path) -> None:
    parts = Counter(row.split for row in read_rows(pack / "raw" / "literals.jsonl", Sentence))
    assert parts["train"] >= 60
    assert parts["test"] >= 20
    assert parts["val"] >= 5
    assert len(read_rows(pack / "raw" / "ood.jsonl", LiteralText)) >= 10


def test_its_gold_pairs_are_even_over_kinds_and_halves(pack: Path) -> None:
    rows = read_rows(pack / "raw" / "gold.jsonl", GoldPair)
    counts = Counter((row.kind, row.half) for row in rows)
    assert len(rows) >= 60
    assert len(set(counts.values())) == 1, counts
    assert {kind for kind, half in counts if half == "tune"} == {kind for kind, _ in counts}
    shorter = sum(count_words(row.better) < count_words(row.worse) for row in rows)
    assert 0.3 < shorter / len(rows) < 0.7, "a critic could win by counting words"


def test_no_sentence_stands_in_two_places(pack: Path) -> None:
    raw = pack / "raw"
    texts = [row.text for row in read_rows(raw / "literals.jsonl", Sentence)]
    texts += [row.text for row in read_rows(raw / "ood.jsonl", LiteralText)]
    texts += [row.literal for row in read_rows(raw / "exemplars.jsonl", Exemplar)]
    texts += [row.literal for row in read_rows(raw / "gold.jsonl", GoldPair)]
    folded = [fold(text) for text in texts]
    scores = process.cdist(folded, folded, scorer=fuzz.ratio)
    alike = [
        (texts[i], texts[j]) for i in range(len(texts)) for j in range(i) if scores[i, j] >= NEAR
    ]
    assert not alike


def test_its_card_counts_its_rows(pack: Path) -> None:
    card = (pack / "README.md").read_text(encoding="utf-8")
    for file in sorted((pack / "raw").glob("*.jsonl")):
        rows = len(file.read_text(encoding="utf-8").splitlines())
        assert f"| `{file.name}` | {rows} |" in card


def test_the_checks_see_a_key_that_nobody_reads(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(SHIPPED[0], mine)
    (mine / "params.yaml").write_text(yaml.safe_dump({"critic": {"promt": "critic"}}))
    with pytest.raises(AssertionError):
        test_its_params_name_keys_that_there_are(mine)


@pytest.mark.slow
def test_a_critic_grown_from_its_gold_pairs_agrees_with_the_other_half(pack: Path) -> None:
    """Otherwise `critique` would refuse it, and the pack would not run."""
    from quip.core.params import validate
    from quip.data import graded_pairs
    from quip.training import reward

    pairs = graded_pairs.read(pack / "raw" / "gold.jsonl").pairs
    params = validate(merged(pack)["reward"], reward.RewardParams, "reward")
    model = reward.train([pair for pair in pairs if pair.half == "tune"], params)
    said = reward.pair_accuracies(model, [pair for pair in pairs if pair.half == "held_out"])
    assert sum(said) / len(said) > 0.65
