"""Text generation: reproducible in any batch, and from the stated distribution."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from scipy.stats import chi2

from quip.core.seeds import seed_of
from quip.models import generation, student
from quip.models.generation import SeededNucleus, first_line

LITERALS = [
    "I missed my bus.",
    "I burnt the toast again this morning and the whole kitchen smelled of it.",
    "My neighbour sang.",
    "I lost my keys.",
    "It rained on our picnic, so we went home early.",
    "I ran.",
]
SEEDS = [seed_of(1, text, 0) for text in LITERALS]
LOGITS = [2.0, 1.5, 1.0, 0.0, -1.0, -3.0]


@pytest.fixture
def tiny(tiny_student: Path) -> student.Student:
    return student.load(tiny_student)


def draw(tiny: student.Student, rows: list[int], batch_size: int) -> dict[int, str]:
    """The sample of each row by its number, drawn in this order and batch size."""
    texts = generation.sample(
        tiny,
        [LITERALS[i] for i in rows],
        [SEEDS[i] for i in rows],
        temperature=1.0,
        top_p=0.9,
        max_new_tokens=10,
        batch_size=batch_size,
    )
    return dict(zip(rows, texts, strict=True))


def chosen(logits: list[float], seeds: range, temperature: float, top_p: float) -> list[int]:
    """The token that each seed draws, all in one batch."""
    scores = torch.tensor([logits]).repeat(len(seeds), 1)
    processed = SeededNucleus(list(seeds), temperature, top_p)(torch.empty(0), scores)
    assert torch.isfinite(processed).sum() == len(seeds), "one token a row is left"
    return processed.argmax(-1).tolist()


def nucleus(logits: list[float], temperature: float, top_p: float) -> dict[int, float]:
    """The truncated and renormalised softmax, worked out with sets and sums alone."""
    p = (torch.tensor(logits, dtype=torch.float64) / temperature).softmax(-1).tolist()
    kept: dict[int, float] = {}
    for token in sorted(range(len(p)), key=lambda token: -p[token]):
        if sum(kept.values()) < top_p:
            kept[token] = p[token]
    return {token: value / sum(kept.values()) for token, value in kept.items()}


# ---- seeds


def test_a_seed_depends_on_every_part_and_on_nothing_else() -> None:
    assert seed_of(1, "t1", 0) == 4046460453923031575
    others = {seed_of(1, "t1", 0), seed_of(2, "t1", 0), seed_of(1, "t2", 0), seed_of(1, "t1", 1)}
    assert len(others) == 4
    assert all(0 <= seed < 2**63 for seed in others)


# ---- the distribution


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(1.0, 0.8), (1.0, 1.0), (0.7, 0.95), (2.0, 0.5)]
)
def test_frequencies_are_those_of_the_truncated_softmax(temperature: float, top_p: float) -> None:
    draws = 20_000
    counts = Counter(chosen(LOGITS, range(draws), temperature, top_p))
    expected = nucleus(LOGITS, temperature, top_p)
    assert set(counts) <= set(expected), "a token outside the nucleus was drawn"
    statistic = sum((counts[t] - draws * p) ** 2 / (draws * p) for t, p in expected.items())
    assert statistic < chi2.ppf(0.999, max(1, len(expected) - 1))


def test_a_tiny_nucleus_is_greedy() -> None:
    assert set(chosen(LOGITS, range(500), 1.0, 1e-6)) == {0}


def test_the_token_that_crosses_the_limit_belongs_to_the_nucleus() -> None:
    even = [0.0, 0.0, 0.0, 0.0]
    assert len(set(chosen(even, range(300), 1.0, 0.25))) == 1
    assert len(set(chosen(even, range(300), 1.0, 0.3))) == 2


def test_the_tokens_of_a_row_do_not_repeat_its_first_random_number() -> None:
    chooser = SeededNucleus([7], 1.0, 1.0)
    even = torch.zeros(1, 50)
    drawn = [int(chooser(torch.empty(0), even).argmax()) for _ in range(30)]
    assert len(set(drawn)) > 10


def test_of_a_large_vocabulary_only_the_likeliest_tokens_are_drawn() -> None:
    logits = [0.0] * 1000
    likely = set(range(0, 1000, 5))
    for token in likely:
        logits[token] = 1.0
    assert len(likely) == generation.TOP_K
    assert set(chosen(logits, range(2000), 1.0, 1.0)) <= likely


# ---- the texts


def test_a_sample_depends_on_neither_its_batch_nor_its_place(tiny: student.Student) -> None:
    alone = {i: draw(tiny, [i], 1)[i] for i in range(len(LITERALS))}
    assert len(set(alone.values())) == len(LITERALS)
    order = list(range(len(LITERALS)))
    for batch_size in (2, 4, 48):
        random.Random(batch_size).shuffle(order)
        assert draw(tiny, order, batch_size) == alone


def test_another_seed_is_another_text(tiny: student.Student) -> None:
    texts = generation.sample(
        tiny, ["I ran."] * 8, range(8), temperature=1.0, top_p=1.0, max_new_tokens=8
    )
    assert len(set(texts)) == 8


def test_the_global_random_state_plays_no_part(tiny: student.Student) -> None:
    torch.manual_seed(1)
    before = draw(tiny, [0, 1], 2)
    torch.manual_seed(2)
    assert draw(tiny, [0, 1], 2) == before


@pytest.fixture(params=["causal", "encoder-decoder"])
def either(request: pytest.FixtureRequest, tiny_student: Path, tiny_bart: Path) -> student.Student:
    return student.load(tiny_student if request.param == "causal" else tiny_bart)


def test_samples_are_those_that_generate_would_write(either: student.Student) -> None:
    """Three of each literal: the same tokens are drawn from the same seeds, padding and texts that
    have ended notwithstanding."""
    rows = [literal for literal in LITERALS for _ in range(3)]
    seeds = [seed_of(3, i) for i in range(len(rows))]
    options = {"max_new_tokens": 24, "num_beams": 1, "do_sample": False}
    chooser = SeededNucleus(seeds, 1.0, 0.95)
    expected = generation.generate(either, rows, {**options, "logits_processor": [chooser]})
    assert len(set(expected)) > len(rows) / 2
    found = generation.sample(either, rows, seeds, temperature=1.0, top_p=0.95, max_new_tokens=24)
    assert found == expected


def test_a_literal_is_read_once_and_a_finished_text_leaves_the_batch(
    either: student.Student,
) -> None:
    """Rows of each call of the model: first the two literals, then fewer and fewer samples."""
    calls: list[int] = []
    either.model.register_forward_hook(lambda m, i, output: calls.append(len(output.logits)))
    ends = {i: 1 + i // 2 for i in range(16)}

    class Scripted(SeededNucleus):
        def __init__(self) -> None:
            self.rows, self.step = list(range(16)), 0

        def draw(self, scores: torch.Tensor) -> torch.Tensor:
            assert len(scores) == len(self.rows)
            self.step += 1
            end = either.tokenizer.eos_token_id
            return torch.tensor([end if self.step >= ends[row] else 40 for row in self.rows])

        def keep(self, rows: list[int]) -> None:
            self.rows = [self.rows[row] for row in rows]

    generation.sample_batch(either, LITERALS[:2] * 8, Scripted(), 30)
    assert calls == [2, 14, 12, 10, 8, 6, 4, 2]


def test_the_tokens_after_the_first_come_from_the_student_s_distribution_too(
    tiny: student.Student,
) -> None:
    """Chi-square over whole texts of two tokens: of `sample`, and of `generate` as the library's
    documentation calls it, against probabilities worked out from the model's logits alone."""
    draws, literal, temperature, top_p = 3000, "I ran.", 0.05, 0.9
    start = tiny.tokenizer(student.prompt(literal))["input_ids"]

    def after(written: list[int]) -> dict[int, float]:
        with torch.inference_mode():
            logits = tiny.model(input_ids=torch.tensor([[*start, *written]])).logits[0, -1]
        top, index = logits.topk(generation.TOP_K)
        return {int(index[t]): p for t, p in nucleus(top.tolist(), temperature, top_p).items()}

    expected: Counter[str] = Counter()
    for first, p in after([]).items():
        ended = first == tiny.tokenizer.eos_token_id
        for second, q in ({first: 1.0} if ended else after([first])).items():
            text = tiny.tokenizer.decode([first, second], skip_special_tokens=True)
            expected[first_line(text)] += p * q

    def statistic(texts: list[str]) -> tuple[float, int]:
        """Texts expected fewer than five times are one cell."""
        counts = Counter(texts)
        assert set(counts) <= set(expected)
        cells = [(counts[t], draws * p) for t, p in expected.items() if draws * p >= 5]
        rest = draws - sum(seen for seen, _ in cells), draws - sum(mean for _, mean in cells)
        cells += [rest] if rest[1] > 1 else []
        return sum((seen - mean) ** 2 / mean for seen, mean in cells), len(cells) - 1

    options = {"temperature": temperature, "top_p": top_p, "max_new_tokens": 2}
    ours = generation.sample(tiny, [literal] * draws, range(draws), batch_size=1000, **options)
    torch.manual_seed(5)
    ids = tiny.model.generate(
        **tiny.tokenizer(student.prompt(literal), return_tensors="pt"),
        do_sample=True,
        top_k=generation.TOP_K,
        num_return_sequences=draws,
        **options,
    )
    theirs = tiny.tokenizer.batch_decode(ids[:, len(start) :], skip_special_tokens=True)
    for texts in (ours, [first_line(text) for text in theirs]):
        found, freedom = statistic(texts)
        assert freedom > 10
        assert found < chi2.ppf(0.999, freedom)


def greedy(tiny: student.Student, literal: str, steps: int) -> str:
    """The likeliest next token again and again, one forward pass of the whole text each."""
    ids = tiny.tokenizer(student.prompt(literal), return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(steps):
        with torch.inference_mode():
            token = tiny.model(input_ids=ids).logits[0, -1].argmax()
        if int(token) == tiny.tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, token.view(1, 1)], dim=1)
    return first_line(tiny.tokenizer.decode(ids[0, start:], skip_special_tokens=True))


def test_one_beam_is_the_likeliest_token_at_every_step(tiny: student.Student) -> None:
    answers = generation.respond(tiny, LITERALS, max_new_tokens=6, num_beams=1, batch_size=4)
    assert answers == [greedy(tiny, literal, 6) for literal in LITERALS]


def test_beam_search_answers_do_not_depend_on_the_batch(tiny: student.Student) -> None:
    options = {"max_new_tokens": 6, "num_beams": 3}
    together = generation.respond(tiny, LITERALS, batch_size=6, **options)
    assert generation.respond(tiny, LITERALS, batch_size=1, **options) == together
    assert generation.respond(tiny, LITERALS[::-1], batch_size=4, **options) == together[::-1]


def test_no_literals_give_no_answers(tiny: student.Student) -> None:
    assert generation.respond(tiny, [], max_new_tokens=4, num_beams=2) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [(" A joke. ", "A joke."), ("\n A joke.\nLiteral: x", "A joke."), ("", ""), (" \n ", "")],
)
def test_an_answer_is_one_line(text: str, line: str) -> None:
    assert first_line(text) == line
