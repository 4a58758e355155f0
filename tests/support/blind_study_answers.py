"""A small world for the tests of `quip human`: two arms and a teacher, and files people hand in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quip.core.jsonl import write_rows
from quip.core.records import Critique, Reference, Response
from quip.evaluation import blind_study_results
from quip.evaluation.blind_study import BlindPair, StudyKey
from quip.evaluation.blind_study_results import AnswerFile, PairAnswer

THINGS = ["bus", "train", "tram", "boat", "plane", "lift", "bike", "taxi"]
ARMS = ("zebra", "quokka")
"""Names that stand in no sentence and in no page."""
Choose = Callable[[BlindPair, str], blind_study_results.Choice]


def write_answers(inputs: int = len(THINGS), same: int = 1) -> None:
    """data/responses and data/imitation/references.jsonl; `same`: inputs where the arms agree."""
    rows = list(enumerate(THINGS[:inputs]))
    literals = [f"I missed my {thing} & <b>cried</b>." for _, thing in rows]
    keys = [f"s{i}" for i, _ in rows]
    references = [
        Reference(input=key, split="test", literal=text, paraphrases=[f"My {thing} </script> left"])
        for key, text, (_, thing) in zip(keys, literals, rows, strict=True)
    ]
    write_rows("data/imitation/references.jsonl", references)
    for arm, verb in zip(ARMS, ("dumped", "ghosted"), strict=True):
        texts = [f"The {thing} {'left' if i < same else verb} me" for i, thing in rows]
        write_rows(
            f"data/responses/{arm}.jsonl",
            [
                Response(input=key, split="test", literal=literal, text=text)
                for key, literal, text in zip(keys, literals, texts, strict=True)
            ],
        )


def hand_in(
    key: StudyKey, rater: str, choose: Choose, folder: Path = Path(), pairs: int | None = None
) -> Path:
    """A file as the page saves it: `rater` answers the first `pairs` pairs by `choose`."""
    answers = [
        PairAnswer(
            pair=pair.id,
            left="first",
            humor=choose(pair, "humor"),
            content=choose(pair, "content"),
            overall=choose(pair, "overall"),
        )
        for pair in key.pairs[:pairs]
    ]
    bare = AnswerFile(page=key.page, rater=rater, started="x", saved="y", answers=answers, sum="")
    file = folder / f"{rater}.json"
    whole = bare.model_copy(update={"sum": blind_study_results.checksum(bare, key)})
    file.write_text(whole.model_dump_json(indent=1), encoding="utf-8")
    return file


def prefer(name: str) -> Choose:
    """Somebody to whom `name` is always the better, in every question; else a tie."""

    def choose(pair: BlindPair, question: str) -> blind_study_results.Choice:
        if name not in pair.names:
            return "tie"
        return "first" if pair.names[0] == name else "second"

    return choose


def verdict(pair: BlindPair, judge: str, p: float) -> Critique:
    """`judge` puts `p` on the second text of the pair, which it saw as text a."""
    forward, backward = ({"p_first": x, "source": "logprobs"} for x in (p, 1 - p))
    return Critique.model_validate(
        {
            **{"input": pair.input, "split": "test", "literal": pair.literal, "judge": judge},
            **{"name_a": pair.names[1], "name_b": pair.names[0]},
            **{"a": pair.texts[1], "b": pair.texts[0], "forward": forward, "backward": backward},
        }
    )
