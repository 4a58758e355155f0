"""The rows that stages exchange, and JSONL files of them.

Every row type is frozen and refuses unknown fields, so that a file written by an older
version fails by name and line instead of being half understood.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "val", "test", "ood"]


Outcome = Literal["win", "tie", "loss"]


class Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LiteralText(Row):
    """A literal sentence, the input of everything. Ids are unique over all splits."""

    id: str
    text: str = Field(min_length=1)
    emotion: str | None = None


class Paraphrase(Row):
    text: str = Field(min_length=1)
    device: str | None = None


class Exemplar(Row):
    """A worked example for the teacher's prompt."""

    id: str
    literal: str
    paraphrases: list[Paraphrase] = Field(min_length=1)


class GoldPair(Row):
    """Two paraphrases of one literal, the better one known. `half` says what it may be used for."""

    id: str
    kind: str
    half: Literal["tune", "held_out"]
    literal: str
    better: str
    worse: str
    device: str | None = None


class Reply(Row):
    """One raw answer of the teacher, unparsed. `input` is the id of the literal."""

    input: str
    split: Split
    literal: str
    text: str
    finish_reason: str


class TrainingPair(Row):
    """What the student imitates."""

    input: str
    literal: str
    paraphrase: str


class Reference(Row):
    """The teacher's own paraphrases of one evaluation input, in the order it gave them."""

    input: str
    split: Split
    literal: str
    paraphrases: list[str] = Field(min_length=1)


class Candidate(Row):
    """One sample of the student for one input."""

    input: str
    split: Split
    literal: str
    sample: int
    text: str


class Response(Row):
    """The answer of one trained student (an arm) to one evaluation input."""

    input: str
    split: Split
    literal: str
    text: str


class Answer(Row):
    """What a critic said in one order of presentation.

    `p_first` is its probability for the choice shown first, between 0 and 1; None when the
    answer could not be read (then it is never a vote). `source` says how it was read.
    """

    p_first: float | None
    source: Literal["logprobs", "samples", "identical", "unread", "learned"]
    raw: str = ""


class Critique(Row):
    """One comparison of two texts for one literal, asked in both orders.

    `forward` showed `a` first, `backward` showed `b` first. `name_a` and `name_b` say who wrote
    them (an arm, "teacher", "copy", "better", a sample number).
    """

    input: str
    split: Split | Literal["gold"]
    literal: str
    name_a: str
    name_b: str
    a: str
    b: str
    judge: str
    forward: Answer
    backward: Answer


class Meaning(Row):
    """How near one text stays to its literal: the cosine of their sentence embeddings.

    `name` is an arm, "teacher" (its first paraphrase), "copy" or "best_of_n".
    """

    name: str
    input: str
    split: Split
    cosine: float


class Preference(Row):
    """A training pair for feedback learning. `confidence` is the critic's debiased preference of
    `chosen` over `rejected`, between 0.5 and 1."""

    input: str
    literal: str
    chosen: str
    rejected: str
    confidence: float


class Ranking(Row):
    """Texts for one literal as the critic ranks them, best first.

    `scores` are mean debiased preferences over the other texts, between 0 and 1; `ranks` count
    from 0, and texts of equal score share one.
    """

    input: str
    literal: str
    texts: list[str] = Field(min_length=2)
    scores: list[float]
    ranks: list[int]
