"""Text measures against values counted by hand."""

from __future__ import annotations

import pytest

from quip.evaluation.metrics import text_metrics


def test_length_ratio_counts_words_and_never_divides_by_zero():
    assert text_metrics.length_ratio("one two three", "one two") == 1.5
    assert text_metrics.length_ratio("one two three", "") == 3.0
    assert text_metrics.length_ratio("", "one two") == 0.0


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("I missed my bus.", True),
        ("i missed MY bus!", True),
        ("I missed my buss.", True),
        ("I missed my bus, so the pavement and I are now in a relationship.", False),
        ("", False),
    ],
)
def test_copies_are_recognised(text, copied):
    assert text_metrics.is_copy(text, "I missed my bus.") is copied


def test_distinct_counts_over_the_whole_set():
    assert text_metrics.distinct_n(["a b a", "a b"], 1) == 2 / 5
    assert text_metrics.distinct_n(["a b a", "a b"], 2) == 2 / 3
    assert text_metrics.distinct_n(["a", ""], 2) == 0.0


def test_most_common_ngram_counts_each_text_once():
    repeated = "so the birds have been warned so the birds have been warned"
    found = text_metrics.most_common_ngram([repeated, "yes so the birds have flown", "no", "never"])
    assert found == ("so the birds have", 0.5)


def test_most_common_ngram_takes_the_first_in_the_alphabet_among_equals():
    assert text_metrics.most_common_ngram(["b c d e", "a b c d"]) == ("a b c d", 0.5)


def test_most_common_ngram_of_short_texts_is_empty():
    assert text_metrics.most_common_ngram(["too short", ""]) == ("", 0.0)


def test_text_measures_holds_every_measure():
    found = text_metrics.text_measures(
        [("I won a cup", "I won a cup"), ("I won a cup of it all", "I lost")]
    )
    assert found == {
        "n": 2,
        "words": 5.5,
        "length_ratio": 2.25,
        "copy_rate": 0.5,
        "distinct_1": 7 / 11,
        "distinct_2": 6 / 9,
        "top_4gram": "i won a cup",
        "top_4gram_share": 1.0,
    }
