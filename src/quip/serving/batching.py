"""Dynamic batching: requests that arrive during a generation form the next batch.

A small model answers thirty sentences in little more time than one, and two concurrent generations
on the same cores take longer than two in sequence. So one thread generates for all models.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from quip.runtime.errors import QuipError
from quip.serving import paraphrase
from quip.serving.loaded_models import LoadedModel

MAX_BATCH = 32
MAX_QUEUE = 256


class Busy(QuipError):
    """The queue of requests is full."""

    exit_code = 3


@dataclass(frozen=True)
class Settings:
    """Generation settings, equal for all sentences of a batch."""

    n: int
    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Job:
    """One sentence to paraphrase; `result` resolves to its n texts."""

    model: LoadedModel
    literal: str
    seed: int
    settings: Settings
    result: Future[list[str]] = field(default_factory=Future)


class Batcher:
    """Queue of jobs from any thread, and the one thread that generates them."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[Job] = queue.Queue(MAX_QUEUE)
        threading.Thread(target=self.work, daemon=True, name="batcher").start()

    def submit(self, job: Job) -> Future[list[str]]:
        """Queue a job. Raises Busy when the queue is full."""
        try:
            self.jobs.put_nowait(job)
        except queue.Full:
            raise Busy(f"{MAX_QUEUE} sentences are waiting already; try again later.") from None
        return job.result

    def work(self) -> None:
        while True:
            for batch in group_jobs(self.next_jobs()):
                generate_batch(batch)

    def next_jobs(self) -> list[Job]:
        """Wait for a job; return it with the jobs queued behind it, at most MAX_BATCH."""
        found = [self.jobs.get()]
        while len(found) < MAX_BATCH and not self.jobs.empty():
            found.append(self.jobs.get())
        return found


def group_jobs(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups of jobs with equal model and settings, in the order of each group's first job."""
    groups: dict[tuple[str, Settings], list[Job]] = {}
    for job in jobs:
        if not job.result.cancelled():
            groups.setdefault((job.model.name, job.settings), []).append(job)
    return list(groups.values())


def generate_batch(batch: Sequence[Job]) -> None:
    """Generate a batch and set each job's result; a failure goes to every job of the batch."""
    model, settings = batch[0].model, batch[0].settings
    try:
        texts = paraphrase.paraphrases(
            model.student,
            [job.literal for job in batch],
            num_return_sequences=settings.n,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=[job.seed for job in batch],
            max_new_tokens=settings.max_new_tokens,
            num_beams=model.num_beams,
        )
    except Exception as error:  # the callers would otherwise wait for ever
        for job in batch:
            set_outcome(job, error)
        return
    for number, job in enumerate(batch):
        set_outcome(job, texts[number * settings.n : (number + 1) * settings.n])


def set_outcome(job: Job, outcome: list[str] | Exception) -> None:
    if not job.result.set_running_or_notify_cancel():
        return  # the caller hung up
    if isinstance(outcome, Exception):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)
