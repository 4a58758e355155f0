"""Row types that stages exchange in JSONL files.

Every row type is frozen and refuses unknown fields, so that a file of another version fails with
field and line instead of being misread.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "val", "test", "ood"]


Outcome = Literal["win", "tie", "loss"]


class Row(BaseModel):
    """Base of every row type: frozen, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LiteralText(Row):
    """A literal sentence, the input to be paraphrased. Ids are unique over all splits."""

    id: str
    text: str = Field(min_length=1)
    emotion: str | None = None


class Paraphrase(Row):
    """A paraphrase and its rhetorical device, such as irony."""

    text: str = Field(min_length=1)
    device: str | None = None


class Exemplar(Row):
    """A worked example for the teacher's prompt."""

    id: str
    literal: str
    paraphrases: list[Paraphrase] = Field(min_length=1)


class GoldPair(Row):
    """Two paraphrases of one literal, one of them known to be better.

    `half` says what the pair is for: "tune" for choosing a critic, "held_out" for measuring it.
    """

    id: str
    kind: str
    half: Literal["tune", "held_out"]
    literal: str
    better: str
    worse: str
    device: str | None = None


class Reply(Row):
    """One raw reply of the teacher, before parsing. `input` is the id of the literal."""

    input: str
    split: Split
    literal: str
    text: str
    finish_reason: str


class TrainingPair(Row):
    """A literal and a teacher's paraphrase, for supervised fine-tuning."""

    input: str
    literal: str
    paraphrase: str


class Reference(Row):
    """The teacher's paraphrases of one evaluation input, in the order of its reply."""

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
    """A critic's answer in one order of presentation.

    `p_first` is its probability for the choice shown first, between 0 and 1; None when the answer
    could not be read (then it is never a vote). `source` says how the answer was read.
    """

    p_first: float | None
    source: Literal["logprobs", "samples", "identical", "unread", "learned"]
    raw: str = ""


class Critique(Row):
    """One comparison of two texts for one literal, with the critic's answers in both orders.

    `forward` shows `a` first, `backward` shows `b` first. `name_a` and `name_b` name the texts'
    sources (an arm, "teacher", "copy", "better", a sample number).
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
    """Meaning preservation of one text: the cosine of its embedding and its literal's.

    `name` is an arm, "teacher" (its first paraphrase), "copy" or "best_of_n".
    """

    name: str
    input: str
    split: Split
    cosine: float


class Preference(Row):
    """A preference pair for DPO. `confidence` is the critic's debiased preference for `chosen` over
    `rejected`, between 0.5 and 1."""

    input: str
    literal: str
    chosen: str
    rejected: str
    confidence: float


class Ranking(Row):
    """The critic's ranking of texts for one literal, best first.

    `scores` are mean debiased preferences over the other texts, between 0 and 1; `ranks` count
    from 0, and texts of equal score share one.
    """

    input: str
    literal: str
    texts: list[str] = Field(min_length=2)
    scores: list[float]
    ranks: list[int]
