"""Similarity of embeddings, worked by hand; the slow test runs the model itself."""

from __future__ import annotations

import pytest
import torch

from quip.models.embeddings import cosines, self_similarity, vectors


def test_self_similarity_is_the_mean_over_every_two_different_rows():
    rows = torch.nn.functional.normalize(torch.randn(7, 5, generator=torch.manual_seed(1)), dim=1)
    pairs = [float(rows[i] @ rows[j]) for i in range(7) for j in range(7) if i != j]
    assert self_similarity(rows) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_equal_texts_are_wholly_alike_and_one_text_is_like_none():
    row = torch.tensor([[0.6, 0.8]])
    assert self_similarity(row.repeat(4, 1)) == pytest.approx(1)
    assert self_similarity(row) == 0.0
    assert self_similarity(row[:0]) == 0.0


def test_cosines_go_row_by_row():
    left, right = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert cosines(left, right) == pytest.approx([1.0, 0.8])


@pytest.mark.slow
def test_one_joke_for_everything_is_more_alike_than_a_joke_for_each():
    one = ["My bus left, so the kettle filed a complaint.", "My cat left, so the kettle did too."]
    each = ["My bus left me for a faster man.", "Rain again; the ducks sent a thank-you card."]
    assert self_similarity(vectors(one)) > self_similarity(vectors(each)) + 0.1
