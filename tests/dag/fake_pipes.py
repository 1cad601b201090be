"""Pipes without Spark: a canceller that plays Spark's part with events, and a listener that pipes can wait for."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

from kindling_dagster.dag.results import PipeStatus
from kindling_dagster.engines.base import LogLine, PipeFinished, PipeStarted

OK, SKIPPED, FAILED = PipeStatus.SUCCEEDED, PipeStatus.SKIPPED, PipeStatus.FAILED
TIMED_OUT, CANCELLED, STUCK = PipeStatus.TIMED_OUT, PipeStatus.CANCELLED, PipeStatus.STUCK
UPSTREAM, NOT_STARTED = PipeStatus.UPSTREAM_FAILED, PipeStatus.NOT_STARTED
STRATEGIES = ["fail_fast", "continue", "skip_dependents"]
PATIENCE = 20.0
"""Seconds after which a wait that should have ended fails the test."""


class JobCancelled(Exception):
    """What a Spark action raises once its job group was cancelled."""


@dataclass
class FakeCanceller:
    """Spark's part, played with events: ``work`` is a Spark job that never ends by itself."""

    calls: Counter = field(default_factory=Counter)
    interrupts: Counter = field(default_factory=Counter)
    wrote: set = field(default_factory=set)
    entered: list = field(default_factory=list)
    jobs: dict = field(default_factory=dict)
    broken: bool = False

    @contextmanager
    def scope(self, pipe_id):
        self.entered.append((pipe_id, threading.get_ident()))
        yield

    def cancel(self, pipe_id):
        self.calls[pipe_id] += 1
        if job := self.jobs.get(pipe_id):
            job.set()
        if self.broken:
            raise ConnectionError("no JVM")

    def interrupt(self, pipe_id):
        self.interrupts[pipe_id] += 1

    def committed(self, pipe_id):
        return pipe_id in self.wrote

    def work(self, pipe_id):
        self.jobs[pipe_id] = job = threading.Event()
        assert job.wait(PATIENCE)
        raise JobCancelled(f"Job of {pipe_id} cancelled")


@dataclass
class Watch:
    """Keeps events, and lets pipes wait for them."""

    events: list = field(default_factory=list)
    threads: set = field(default_factory=set)
    moments: dict = field(default_factory=dict)
    then: object = None

    def __call__(self, event):
        self.events.append(event)
        self.threads.add(threading.get_ident())
        if isinstance(event, PipeStarted):
            self.moment("started", event.pipe_id).set()
        if isinstance(event, PipeFinished):
            self.moment("finished", event.result.pipe_id).set()
        if self.then:
            self.then(event)

    def moment(self, what, pipe_id):
        return self.moments.setdefault((what, pipe_id), threading.Event())

    def wait(self, what, pipe_id):
        assert self.moment(what, pipe_id).wait(PATIENCE), f"{pipe_id} never {what}"

    def results(self):
        return [event.result for event in self.events if isinstance(event, PipeFinished)]

    def log(self):
        return [event.message for event in self.events if isinstance(event, LogLine)]


def statuses(result):
    return {pipe_id: each.status for pipe_id, each in result.results.items()}


def spin_for_ever():
    """Python code that never ends, and swallows what ordinary exceptions it can."""
    for number in itertools.count():
        try:
            int(str(number % 7))
        except Exception:
            continue
