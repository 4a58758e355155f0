"""Many callers, one student at a time: what arrives while a batch is made is the next batch.

A small model answers thirty sentences in little more time than one, and two generations at once
on the same cores take longer than one after the other. So one thread generates for all voices.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from quip.runtime.errors import QuipError
from quip.serving import paraphrase
from quip.serving.loaded_models import Voice

LARGEST = 32
WAITING = 256


class Busy(QuipError):
    """More callers are waiting than will be served in good time."""

    exit_code = 3


@dataclass(frozen=True)
class Settings:
    """What the sentences of one batch must have in common."""

    n: int
    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Job:
    """One sentence to paraphrase; `result` will hold its n texts."""

    voice: Voice
    literal: str
    seed: int
    settings: Settings
    result: Future[list[str]] = field(default_factory=Future)


class Batcher:
    """Takes jobs from any thread and works on them in one of its own."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[Job] = queue.Queue(WAITING)
        threading.Thread(target=self.work, daemon=True, name="batcher").start()

    def ask(self, job: Job) -> Future[list[str]]:
        """Queue a job. Raises Busy when the queue is full."""
        try:
            self.jobs.put_nowait(job)
        except queue.Full:
            raise Busy(f"{WAITING} sentences are waiting already; try again soon.") from None
        return job.result

    def work(self) -> None:
        while True:
            for batch in batches(self.take()):
                answer(batch)

    def take(self) -> list[Job]:
        """The next job, waiting for it, and all that stand behind it, as far as they fit."""
        found = [self.jobs.get()]
        while len(found) < LARGEST and not self.jobs.empty():
            found.append(self.jobs.get())
        return found


def batches(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that can be generated together, in the order in which the first of each came."""
    groups: dict[tuple[str, Settings], list[Job]] = {}
    for job in jobs:
        if not job.result.cancelled():
            groups.setdefault((job.voice.name, job.settings), []).append(job)
    return list(groups.values())


def answer(batch: Sequence[Job]) -> None:
    """Generate a batch; a failure is every caller's, and the next batch is not harmed by it."""
    voice, settings = batch[0].voice, batch[0].settings
    try:
        texts = paraphrase.paraphrases(
            voice.student,
            [job.literal for job in batch],
            num_return_sequences=settings.n,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=[job.seed for job in batch],
            max_new_tokens=settings.max_new_tokens,
            num_beams=voice.num_beams,
        )
    except Exception as error:  # must reach the callers, who would otherwise wait for ever
        for job in batch:
            give(job, error)
        return
    for number, job in enumerate(batch):
        give(job, texts[number * settings.n : (number + 1) * settings.n])


def give(job: Job, outcome: list[str] | Exception) -> None:
    if not job.result.set_running_or_notify_cancel():
        return  # the caller hung up
    if isinstance(outcome, Exception):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)
