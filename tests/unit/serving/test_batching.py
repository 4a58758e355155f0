"""Dynamic batching: requests that arrive during a generation form the next batch."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from quip.serving import batching
from quip.serving.loaded_models import LoadedModel


def job(seed: int = 0, name: str = "a", **more: Any) -> batching.Job:
    settings = {"n": 1, "temperature": 0.0, "top_p": 0.9, "max_new_tokens": 4, **more}
    model = LoadedModel(name, name, None, 4, 1)
    return batching.Job(model, "x", seed, batching.Settings(**settings))


def test_only_equal_settings_of_one_model_make_a_batch() -> None:
    jobs = [job(1), job(2), job(n=2), job(3, name="b"), job(4)]
    assert [[j.seed for j in batch] for batch in batching.group_jobs(jobs)] == [[1, 2, 4], [0], [3]]


def test_a_failure_reaches_every_caller_and_the_thread_goes_on() -> None:
    batcher = batching.Batcher()
    for _ in range(2):
        with pytest.raises(AttributeError):
            batcher.submit(job()).result()  # a model without a student
    assert threading.active_count() >= 2


def test_a_full_queue_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_QUEUE", 1)
    monkeypatch.setattr(batching.Batcher, "work", lambda self: None)
    batcher = batching.Batcher()
    batcher.submit(job())
    with pytest.raises(batching.Busy, match="waiting already"):
        batcher.submit(job())
