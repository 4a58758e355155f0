"""`quip human`: blind pairs, checks of the answer files, counts and gold pairs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from blind_study_answers import ARMS, hand_in, prefer, verdict, write_answers
from quip.cli.main import app
from quip.core.jsonl import read_rows, write_rows
from quip.core.records import GoldPair
from quip.critics.debiasing import Debias
from quip.evaluation import blind_study, blind_study_results
from quip.evaluation.blind_study import StudyKey
from quip.evaluation.metrics import interrater
from quip.runtime.errors import DataError

Project = Callable[..., Path]
DEBIAS = Debias(method="log_odds", scale=1.0, per_word=0.0)
PAGE, KEY = Path("data/human/page.html"), Path("data/human/page.key.json")


@pytest.fixture
def key(project: Project) -> StudyKey:
    """A project with answers to eight inputs and the page made of all of them."""
    project(arms=[*ARMS], debias=DEBIAS.model_dump())
    write_answers()
    made = quip("make")
    assert made.exit_code == 0, made.output
    return blind_study.read_key(KEY)


def quip(*words: object) -> Result:
    return CliRunner().invoke(app, ["human", *map(str, words)])


def refused(*words: object) -> str:
    result = quip(*words)
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1, result.output
    return result.output


# ---- making


def test_every_arm_meets_the_teacher_and_every_other_arm_on_the_same_inputs(key: StudyKey) -> None:
    assert key.sides == [("zebra", "teacher"), ("quokka", "teacher"), ("quokka", "zebra")]
    pairs = [*key.pairs, *key.same]
    met = {frozenset(both): {p.input for p in pairs if {*p.names} == {*both}} for both in key.sides}
    assert set(map(frozenset, met.values())) == {frozenset(f"s{i}" for i in range(8))}
    assert [pair.names for pair in key.same] in ([("quokka", "zebra")], [("zebra", "quokka")])


def test_each_side_comes_first_in_half_of_its_pairs_and_the_order_is_mixed(key: StudyKey) -> None:
    pairs = [*key.pairs, *key.same]
    first = Counter(both for pair in pairs for both in key.sides if pair.names == both)
    assert first == dict.fromkeys(key.sides, 4)
    names = [pair.names for pair in key.pairs]
    assert names != sorted(names)


def test_another_seed_gives_another_page_and_the_same_seed_the_same(key: StudyKey) -> None:
    literals, texts = blind_study.read_texts(
        ARMS, "test", Path("data/responses"), Path("data/imitation/references.jsonl")
    )
    pages = [
        blind_study.draw_pairs(literals, texts, key.sides, "test", 15, seed).page for seed in (1, 2)
    ]
    assert pages[0] == key.page
    assert pages[1] != key.page
    few = blind_study.draw_pairs(literals, texts, key.sides, "test", 2, 1)
    assert len({pair.input for pair in few.pairs}) == 2


def test_the_page_names_nobody_and_asks_no_network(key: StudyKey) -> None:
    page = PAGE.read_text()
    for name in (*ARMS, "teacher", "student", "sft", "dpo"):
        assert name not in page.lower()
    assert not re.search(r"https?:|//\w+\.|<link (?!rel=\"icon\" href=\"data:)|src=", page)
    assert "default-src 'none'" in page


def test_no_text_can_end_the_script_it_stands_in(key: StudyKey) -> None:
    page = PAGE.read_text()
    assert page.count("</script>") == 2
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    shown = json.loads(found[1])
    assert [pair["texts"] for pair in shown["pairs"]] == [list(pair.texts) for pair in key.pairs]
    assert any("</script>" in text for pair in shown["pairs"] for text in pair["texts"])


def test_the_key_of_a_page_that_may_be_out_is_not_replaced(key: StudyKey) -> None:
    before = KEY.read_text()
    assert quip("make").exit_code == 0
    assert "is the key of another page" in refused("make", "--seed", 2)
    assert KEY.read_text() == before
    assert quip("make", "--seed", 2, "--out", "other.html").exit_code == 0
    assert Path("other.key.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "tset"], "no split 'tset'"),
        (["--split", "val"], "no input of split 'val' has an answer by every arm"),
        (["--arms", "okapi"], "data/responses/okapi.jsonl: no such file"),
        (["--arms", ","], "no arm is named"),
    ],
)
def test_what_cannot_be_made_is_one_line(words: list[str], message: str, key: StudyKey) -> None:
    assert message in refused("make", *words)


def test_texts_that_are_all_the_same_leave_nothing_to_ask(project: Project) -> None:
    project(arms=[*ARMS])
    texts = {name: {"s1": "x"} for name in (*ARMS, "teacher")}
    with pytest.raises(DataError, match="all compared texts are equal"):
        blind_study.draw_pairs({"s1": "l"}, texts, blind_study.arm_pairs(ARMS, False), "test", 5, 1)


# ---- checking what comes back


def edited(file: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    found = json.loads(file.read_text())
    change(found)
    file.write_text(json.dumps(found))
    return file


def flip(found: dict[str, Any]) -> None:
    found["answers"][2]["humor"] = "tie"


def rename(found: dict[str, Any]) -> None:
    found["rater"] = "Bob"


def twice(found: dict[str, Any]) -> None:
    found["answers"][1] = found["answers"][0]


def foreign(found: dict[str, Any]) -> None:
    found["answers"][0]["pair"] = "p999"


@pytest.mark.parametrize("change", [flip, rename, twice, foreign])
def test_an_altered_file_is_refused(
    change: Callable[[dict[str, Any]], None], key: StudyKey
) -> None:
    file = hand_in(key, "Ada", prefer("zebra"))
    assert quip("read", file).exit_code == 0
    assert "Ada.json: altered" in refused("read", edited(file, change))


def test_answers_to_a_page_whose_texts_were_changed_are_refused(key: StudyKey) -> None:
    first = key.pairs[0].model_copy(update={"texts": ("another", "text")})
    changed = key.model_copy(update={"pairs": [first, *key.pairs[1:]]})
    assert "altered" in refused("read", hand_in(changed, "Ada", prefer("zebra")))


def test_answers_to_another_page_are_refused(key: StudyKey) -> None:
    other = key.model_copy(update={"page": "0123456789abcdef"})
    message = refused("read", hand_in(other, "Ada", prefer("zebra")))
    assert f"another page (0123456789abcdef, the key is of {key.page})" in message


def test_an_incomplete_file_is_refused_unless_asked_for(key: StudyKey) -> None:
    file = hand_in(key, "Ada", prefer("zebra"), pairs=5)
    message = refused("read", file)
    assert f"incomplete, 5 of {len(key.pairs)} pairs" in message
    result = quip("read", file, "--partial")
    assert result.exit_code == 0
    results = json.loads(Path("data/human/people.json").read_text())["questions"]["humor"]
    assert sum(cell["n"] for cell in results["results"].values()) == 5 + len(key.same)


def test_two_files_of_one_rater_are_refused(key: StudyKey) -> None:
    first = hand_in(key, "Ada", prefer("zebra"))
    Path("b").mkdir()
    second = hand_in(key, "ADA", prefer("quokka"), Path("b"))
    assert "b/ADA.json: 'ADA' has answered in Ada.json already" in refused("read", first, second)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"page": "x"}', "\xff"])
def test_a_file_of_another_kind_is_refused(content: str, key: StudyKey) -> None:
    Path("x.json").write_bytes(content.encode("latin-1"))
    assert "x.json: not an answer file" in refused("read", "x.json")


def test_a_missing_file_and_a_missing_key_are_named(key: StudyKey) -> None:
    assert "x.json: no such file" in refused("read", "x.json")
    assert "k.json: no such key file" in refused("read", "x.json", "--key", "k.json")
    Path("k.json").write_text("{}")
    assert "k.json: not a key" in refused("read", "x.json", "--key", "k.json")


# ---- counting


def people(key: StudyKey, *files: Path, judges: Any = ()) -> dict[str, Any]:
    raters = blind_study_results.read_answer_files(files, key, partial=False)
    return blind_study_results.summarise(key, raters, judges, DEBIAS, 0.05, 500, 1)


def test_win_tie_rates_of_every_question(key: StudyKey) -> None:
    """Ada finds quokka always funnier and the zebra always truer; ties wherever neither is shown.
    Of quokka against zebra one input has two equal texts: a tie."""
    file = hand_in(key, "Ada", lambda p, q: prefer("zebra" if q == "content" else "quokka")(p, q))
    found = people(key, file)["questions"]
    humor, content = (found[question]["results"] for question in ("humor", "content"))
    assert (humor["quokka_vs_zebra"]["wtr"], humor["quokka_vs_zebra"]["n"]) == (1.0, 8)
    assert humor["quokka_vs_zebra"]["score"] == pytest.approx(7.5 / 8)
    assert humor["zebra_vs_teacher"]["tie"] == 1.0
    assert content["quokka_vs_zebra"]["wtr"] == pytest.approx(1 / 8)
    assert content["zebra_vs_teacher"]["win"] == 1.0
    low, high = content["quokka_vs_zebra"]["ci95"]
    assert 0 <= low <= 1 / 8 <= high <= 1


def test_an_input_counts_once_however_many_people_judged_it(key: StudyKey) -> None:
    """Two for the zebra, one for quokka: the zebra wins. One each: a tie."""
    two, one = [hand_in(key, n, prefer("zebra")) for n in ("A", "B")], prefer("quokka")
    three = [*two, hand_in(key, "C", one)]
    cell = people(key, *three)["questions"]["humor"]["results"]["quokka_vs_zebra"]
    assert (cell["loss"], cell["tie"], cell["n"]) == (7 / 8, 1 / 8, 8)
    even = people(key, *three[1:])["questions"]["humor"]["results"]["quokka_vs_zebra"]
    assert even["tie"] == 1.0


def test_people_who_agree_and_people_who_contradict_each_other(key: StudyKey) -> None:
    same = [hand_in(key, name, prefer("zebra")) for name in ("A", "B")]
    agree = people(key, *same)["questions"]["overall"]["people"]
    assert agree["alpha_ordinal"] == agree["alpha_nominal"] == 1.0
    opposed = [same[0], hand_in(key, "C", prefer("quokka"))]
    assert people(key, *opposed)["questions"]["overall"]["people"]["alpha_ordinal"] < 0
    alone = people(key, same[0])["questions"]["overall"]["people"]
    assert (alone["alpha_ordinal"], alone["ci95"]) == (None, None)


def test_the_habit_of_naming_the_text_shown_first_is_seen(key: StudyKey) -> None:
    found = people(key, hand_in(key, "A", lambda pair, question: "first"))
    assert found["questions"]["humor"]["people"]["first_share"] == 1.0
    assert found["questions"]["humor"]["people"]["ties"] == 0.0


def test_a_judge_of_the_same_pairs_is_compared_with_the_people(key: StudyKey) -> None:
    """The judge puts 0.9 on the zebra wherever it is shown and else one half, as Ada does; another
    judge the other way round; a third judged other texts."""
    pairs = [pair for pair in key.pairs if pair.input != "s0"]  # there both arms say the same

    def judged(judge: str, p: float) -> Any:
        for pair in pairs:
            sure = p if pair.names[1] == "zebra" else 1 - p
            yield verdict(pair, judge, sure if "zebra" in pair.names else 0.5)

    stale = [
        row.model_copy(update={"judge": "stale", "a": "an older text"}) for row in judged("x", 0.9)
    ]
    judges = [*judged("same", 0.9), *judged("opposite", 0.1), *stale]
    found = people(key, hand_in(key, "Ada", prefer("zebra")), judges=judges)["questions"]["humor"]
    assert set(found["judges"]) == {"same", "opposite"}
    assert (found["judges"]["same"]["kappa"], found["judges"]["same"]["agreement"]) == (1.0, 1.0)
    assert found["judges"]["opposite"]["agreement"] == 0.0
    assert found["judges"]["opposite"]["n"] == len(pairs)
    assert found["judges"]["opposite"]["decided"] == sum("zebra" in p.names for p in pairs)


def test_votes_become_gold_pairs_of_the_text_that_more_people_preferred(key: StudyKey) -> None:
    files = [hand_in(key, name, prefer("zebra")) for name in ("A", "B")]
    result = quip("read", *files, hand_in(key, "C", prefer("quokka")))
    assert result.exit_code == 0, result.output
    rows = read_rows("data/human/votes_overall.jsonl", GoldPair)
    with_zebra = [pair for pair in key.pairs if "zebra" in pair.names]
    assert {row.kind for row in rows} == {"vote"}
    assert all("zebra-over-" in row.id or "quokka-over-teacher" in row.id for row in rows)
    assert sum("zebra-over-" in row.id for row in rows) == len(with_zebra)
    assert len({row.id for row in rows}) == len(rows)
    texts = {(pair.literal, *sorted(pair.texts)) for pair in key.pairs}
    assert all((row.literal, *sorted((row.better, row.worse))) in texts for row in rows)
    halves = {
        row.literal: {other.half for other in rows if other.literal == row.literal} for row in rows
    }
    assert all(len(half) == 1 for half in halves.values())


def test_the_terminal_shows_every_result(key: StudyKey) -> None:
    write_rows("data/verdicts/zebra.jsonl", [verdict(pair, "j", 0.9) for pair in key.pairs])
    files = [hand_in(key, name, prefer("zebra")) for name in ("Ada", "Bo")]
    out = quip("read", *files).output
    assert "2 people (Ada, Bo), 23 pairs of split test, 1 more of equal texts" in out
    assert re.search(r"zebra vs teacher +WTR-H +1\.00 \[1\.00, 1\.00\].*100/0/0 +8", out)
    assert "WTR-H: Krippendorff's alpha 1.00 [1.00, 1.00]" in out
    assert re.search(r"judge j: kappa -?0\.\d\d .* of the \d+ they decided", out)
    assert "data/human/votes_humor.jsonl" in out


# ---- Krippendorff's alpha

NO = None
BY_OBSERVER = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NO, NO, NO],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NO, 3],
    [NO, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NO],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NO],
]
"""Krippendorff 2011, section C: four observers, twelve units, some values missing."""


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_of_the_published_worked_example(level: interrater.Level, published: float) -> None:
    units = [list(unit) for unit in zip(*BY_OBSERVER, strict=True)]
    assert interrater.krippendorff_alpha(units, level) == pytest.approx(published, abs=5e-4)
    found = interrater.alpha_interval(units, level, 500, 1)
    assert found is not None
    assert found[0] < published < found[1]


@pytest.mark.parametrize("values", [[[0, 0], [0, 0]], [[1, None], [None, 2]], []])
def test_alpha_is_not_defined_where_nobody_could_disagree(values: Any) -> None:
    assert interrater.krippendorff_alpha(values, "ordinal") is None
    assert interrater.alpha_interval(values, "ordinal", 100, 1) is None


def test_ordinal_alpha_forgives_a_tie_more_than_a_contradiction() -> None:
    near = [[0, 1], [2, 2], [0, 0], [2, 1]]
    far = [[0, 2], [2, 2], [0, 0], [2, 0]]
    one, other = (interrater.krippendorff_alpha(values, "ordinal") for values in (near, far))
    assert one is not None
    assert other is not None
    assert one > other
