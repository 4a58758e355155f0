"""Graded pairs: every form of file, its ties and mistakes; the halves for tuning and measuring."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quip.core.jsonl import read_rows, write_rows
from quip.data import graded_pairs, votes
from quip.data.graded_pairs import GradedPair
from quip.evaluation import human_agreement
from quip.runtime.errors import DataError, ParamsError
from quip.stages import graded as read_stage
from quip.stages import pairs as pairs_stage
from stage_options import options

RAW = Path(__file__).parents[3] / "data" / "raw"
HEADER = "id,original1,edit1,grades1,meanGrade1,original2,edit2,grades2,meanGrade2,label\n"
SOUP = "Mayor opens new <library/> by the river"
RIVER = "Mayor opens new library by the <river/>"


def file(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def jsonl(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    return file(tmp_path, "votes.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def headline(label: str, first: str = "2.0", second: str = "0.5", other: str = RIVER) -> str:
    return f"7-9,{SOUP},soup,22222,{first},{other},bathtub,11000,{second},{label}\n"


# ---- the forms


def test_our_gold_pairs_keep_their_halves() -> None:
    found = graded_pairs.read(RAW / "gold.jsonl", "gold")
    assert (len(found.pairs), found.ties) == (340, 0)
    assert (
        len(graded_pairs.tuning_pairs(found.pairs))
        == len(graded_pairs.evaluation_pairs(found.pairs))
        == 170
    )
    assert {pair.source for pair in found.pairs} == {"gold"}
    assert {pair.grades for pair in found.pairs} == {None}


def test_votes_of_the_serving_page_are_read_as_they_are_written(tmp_path: Path) -> None:
    shown = votes.ShownPair("I lost a hat.", "My hat ran off.", "A hat is lost.", "dpo", "sft")
    written = [votes.gold_pair(str(i), shown, "left") for i in range(2)]
    path = tmp_path / "votes.jsonl"
    write_rows(path, [row for row in written if row])
    pair = graded_pairs.read(path).pairs[0]
    assert (pair.better, pair.worse) == (shown.left, shown.right)
    assert pair.half == written[0].half  # type: ignore[union-attr]


def test_the_edit_of_a_headline_stands_in_place_of_the_marked_word(tmp_path: Path) -> None:
    path = file(tmp_path, "h.csv", HEADER + headline("1") + headline("2", "0.2", "1.4"))
    first, second = graded_pairs.read(path, "headlines").pairs
    assert first == GradedPair(
        id="7-9",
        literal="Mayor opens new library by the river",
        better="Mayor opens new soup by the river",
        worse="Mayor opens new library by the bathtub",
        grades=(2.0, 0.5),
        source="headlines",
    )
    assert (first.gap, second.gap) == (1.5, pytest.approx(1.2))
    assert (second.better, second.worse) == (first.worse, first.better)


def test_an_edit_is_inserted_unchanged(tmp_path: Path) -> None:
    row = headline("1").replace(",soup,", r",\1 \g<0> soup,")
    assert (
        r"new \1 \g<0> soup by"
        in graded_pairs.read(file(tmp_path, "h.csv", HEADER + row))[0][0].better
    )


def test_ties_are_left_out_and_counted(tmp_path: Path) -> None:
    found = graded_pairs.read(file(tmp_path, "h.csv", HEADER + headline("0") + headline("1")))
    assert (len(found.pairs), found.ties) == (1, 1)


@pytest.mark.parametrize(
    ("label", "winner"), [("a", "one"), ("B", "two"), (1, "one"), ("2", "two"), ("tie", None)]
)
def test_labelled_texts_need_no_literal(label: object, winner: str | None, tmp_path: Path) -> None:
    row = {"text_a": "one", "text_b": "two"}
    path = jsonl(tmp_path, {**row, "label": label}, {**row, "label": "a"})
    found = graded_pairs.read(path)
    assert [pair.better for pair in found.pairs] == ([winner, "one"] if winner else ["one"])
    assert found.ties == (winner is None)
    assert {pair.literal for pair in found.pairs} == {""}


def test_grades_alone_say_which_text_won(tmp_path: Path) -> None:
    text = "literal;text_a;text_b;grade_a;grade_b\nI ran.;one;two;1;2.5\nI sat.;three;four;2;2\n"
    found = graded_pairs.read(file(tmp_path, "g.csv", text))
    assert [(p.literal, p.better, p.grades) for p in found.pairs] == [("I ran.", "two", (2.5, 1))]
    assert found.ties == 1


def test_rows_without_ids_get_stable_ones(tmp_path: Path) -> None:
    row = {"text_a": "one", "text_b": "two", "label": "a"}
    path = jsonl(tmp_path, row, row)
    ids = [pair.id for pair in graded_pairs.read(path).pairs]
    assert len(set(ids)) == 2
    assert ids == [pair.id for pair in graded_pairs.read(path).pairs]


# ---- its mistakes

TEXTS = {"text_a": "one", "text_b": "two"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"first": "one", "second": "two"}, r"no form .* columns first, second\. Wanted: better"),
        ({**TEXTS, "label": "3"}, r"label is '3'\. Wanted: 1, 2, a, b, 0, tie"),
        (TEXTS, "no label, and no grade_a and grade_b"),
        ({**TEXTS, "grade_a": 1}, "grade_b is 'None', not a number"),
        ({**TEXTS, "grade_a": 1, "grade_b": "much"}, "grade_b is 'much', not a number"),
        ({**TEXTS, "grade_a": 1, "grade_b": "nan"}, "grade_b is 'nan', not a number"),
        ({"text_a": "one", "text_b": " ", "label": "a"}, "text_b is missing or empty"),
        ({"better": "one"}, "worse is missing or empty"),
        ({"better": "one", "worse": "one "}, "both texts are the same"),
        ({"better": "one", "worse": "two", "half": "test"}, "half is 'test'"),
        (
            {**TEXTS, "label": "a", "grade_a": 1, "grade_b": 2},
            "the label names the text with the lower grade",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path, {"better": "good", "worse": "bad"}, row)
    with pytest.raises(DataError, match=f"votes.jsonl, line 2: .*{message}") as caught:
        graded_pairs.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (headline("1", other="Mayor closes the <river/>"), "original1 and original2 are different"),
        (headline("1", other="Mayor opens new library by the river"), "original2 does not mark"),
        (headline("x"), "label is 'x'"),
        (headline("1", first="funny"), "meanGrade1 is 'funny'"),
        ("7-9,too,few\n", "3 cells, but the header names 10"),
    ],
)
def test_a_mistake_among_headlines_is_named_with_its_line(
    row: str, message: str, tmp_path: Path
) -> None:
    path = file(tmp_path, "h.csv", HEADER + headline("1") + row)
    with pytest.raises(DataError, match=f"h.csv, line 3.*{message}"):
        graded_pairs.read(path)


def test_a_missing_file_and_one_of_ties_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.csv: no such file of graded pairs"):
        graded_pairs.read(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="every row is a tie"):
        graded_pairs.read(file(tmp_path, "h.csv", HEADER + headline("0")))


# ---- halves


def test_pairs_of_one_literal_get_one_half() -> None:
    pairs = [
        GradedPair(id=f"{i}{j}", literal=f"literal {i}", better="a", worse="b")
        for i in range(40)
        for j in range(3)
    ]
    halves = list(graded_pairs.assign_halves(pairs))
    learn, measure = graded_pairs.tuning_pairs(halves), graded_pairs.evaluation_pairs(halves)
    assert len(learn) + len(measure) == 120
    assert min(len(learn), len(measure)) > 20
    assert not {p.literal for p in learn} & {p.literal for p in measure}
    held = pairs[0].model_copy(update={"half": "held_out"})
    assert [p.half for p in graded_pairs.assign_halves([held])] == ["held_out"]


# ---- the stages


def gold(key: str, half: str, literal: str) -> dict[str, Any]:
    texts = {"literal": literal, "better": f"good {key}", "worse": f"bad {key}"}
    return {"id": key, "kind": "vote", "half": half, **texts}


def run(**files: Path) -> dict[str, Any]:
    for name, path in files.items():
        metrics = f"graded_{name}.json"
        out = Path("graded", f"{name}.jsonl")
        read_stage.main(options(name=name, file=path, out=out, metrics=metrics))
    out = options(learn="learn.jsonl", extra="extra.json", metrics="pairs.json")
    pairs_stage.main([*options(graded="graded"), *out])
    found: dict[str, Any] = json.loads(Path("pairs.json").read_text(encoding="utf-8"))
    return found


def test_one_half_of_the_votes_is_for_learning_and_the_other_for_measuring(
    project: Callable[..., Path], tmp_path: Path
) -> None:
    project(graded={"votes": "v"}, reward={"pairs": ["gold", "votes"]}, audit={"extra": ["votes"]})
    mine = jsonl(tmp_path, gold("v1", "tune", "l1"), gold("v2", "held_out", "l2"))
    found = run(gold=RAW / "gold.jsonl", votes=mine)
    learn = read_rows("learn.jsonl", GradedPair)
    assert [pair.id for pair in learn if pair.source == "votes"] == ["v1"]
    assert len(learn) == 171
    assert [pair.id for pair in human_agreement.read_graded_pairs("extra.json")["votes"]] == ["v2"]
    assert found == {"learn": 171, "extra": {"votes": {"pairs": 1, "learned_from": 0}}}
    assert json.loads(Path("graded_votes.json").read_text()) == {"pairs": 2, "ties": 0}


def test_by_default_the_tuning_halves_are_for_learning_and_attempts_are_measured(
    project: Callable[..., Path],
) -> None:
    project()
    files = {name: RAW / f"{name}.jsonl" for name in ("gold", "attempts")}
    run(**files)
    shipped = {name: graded_pairs.read(file, name).pairs for name, file in files.items()}
    found = read_rows("learn.jsonl", GradedPair)
    assert found == [pair for pairs in shipped.values() for pair in pairs if pair.half == "tune"]
    measured = human_agreement.read_graded_pairs("extra.json")
    held_out = [pair for pair in shipped["attempts"] if pair.half == "held_out"]
    assert measured == {"attempts": held_out}


def test_pairs_for_learning_are_not_for_measuring(
    project: Callable[..., Path], tmp_path: Path
) -> None:
    project(graded={"x": "x", "y": "y"}, reward={"pairs": ["x"]}, audit={"extra": ["y"]})
    x = jsonl(tmp_path, {"text_a": "one", "text_b": "two", "label": "a", "literal": "l1"})
    rows = "l1,five,six,a\nl2,one,seven,b\nl3,eight,nine,b\n"
    y = file(tmp_path, "y.csv", "literal,text_a,text_b,label\n" + rows)
    found = run(x=x, y=y)
    assert found["extra"] == {"y": {"pairs": 1, "learned_from": 2}}
    assert [pair.literal for pair in human_agreement.read_graded_pairs("extra.json")["y"]] == ["l3"]
    project(graded={"x": "x"}, reward={"pairs": ["x"]}, audit={"extra": ["x"]})
    with pytest.raises(DataError, match="every pair of 'x' shares a text with the training pairs"):
        run(x=x)


def test_a_name_without_a_file_is_refused_with_the_nearest(project: Callable[..., Path]) -> None:
    project(audit={"extra": ["golt"]}, reward={"pairs": ["gold"]})
    with pytest.raises(ParamsError, match=r"'golt' in 'audit.extra' .* Did you mean 'gold'\?"):
        run(gold=RAW / "gold.jsonl")
    project(audit={"extra": None}, reward={"pairs": ["gold"]})
    with pytest.raises(ParamsError, match=r"'audit.extra' must be a list"):
        run(gold=RAW / "gold.jsonl")


def test_a_file_of_held_out_pairs_alone_is_refused_for_learning(
    project: Callable[..., Path], tmp_path: Path
) -> None:
    project(graded={"x": "x"}, reward={"pairs": ["x"]})
    with pytest.raises(DataError, match="none is left to train on"):
        run(x=jsonl(tmp_path, gold("v", "held_out", "l")))
