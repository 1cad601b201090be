"""Many processes at one store: real ones, that open, write, read and compete for the lease at the same time."""

from __future__ import annotations

import faulthandler
import itertools
from dataclasses import dataclass, field
from multiprocessing.queues import Queue, SimpleQueue
from multiprocessing.synchronize import Barrier

import pytest
from fork_server import FORK_SERVER
from store_fixtures import a_command, a_host

from kindling_dagster.streaming.model import HistoryEntry, StreamingQueryState, StreamStatus
from kindling_dagster.streaming.store import ConflictError, StreamStore

PROCESSES = 4
COMMANDS = 12


@dataclass
class Answer:
    """What one process saw: ids that took effect by it, tokens it got."""

    effective: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


def work(url: str, project: str, name: str, ready: Barrier, answers: Queue[Answer]) -> None:
    """One client and host: sends what the others send too, takes the lease when it can, counts."""
    faulthandler.dump_traceback_later(100)  # says where, should it hang
    ready.wait(60)  # all open an empty store at the same moment
    with StreamStore.open(url, project, wait=60.0) as store:
        answer = Answer()
        for n in range(COMMANDS):
            sent = [a_command("restart", stream_id, f"{stream_id}-{n}") for stream_id in ("orders", "clicks")]
            answer.effective += store.submit(sent)
            store.desired(), store.statuses(), store.host()
            lease = store.acquire_lease(a_host(f"{name}-{n}"), 60)
            if lease is not None:
                answer.tokens.append(lease.token)
                status = StreamStatus("orders", StreamingQueryState.RUNNING, restarts=lease.token)
                entry = HistoryEntry("orders", "started", float(lease.token))
                store.report(lease, [status], history=[entry])
                store.release(lease)
            count_up(store)
    answers.put(answer)


def count_up(store: StreamStore) -> None:
    while True:
        value, version = store.document("count", "all")
        try:
            store.put_document("count", "all", (value or 0) + 1, version)
            return
        except ConflictError:
            continue


def test_processes_at_once(url: str, project: str) -> None:
    ready, answers = FORK_SERVER.Barrier(PROCESSES), FORK_SERVER.Queue()
    workers = [
        FORK_SERVER.Process(target=work, args=(url, project, f"p{n}", ready, answers), daemon=True)
        for n in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    said = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    ids = [f"{stream_id}-{n}" for stream_id in ("clicks", "orders") for n in range(COMMANDS)]
    assert sorted(id_ for answer in said for id_ in answer.effective) == sorted(ids)
    tokens = sorted(token for answer in said for token in answer.tokens)
    assert tokens == list(range(1, len(tokens) + 1))
    with StreamStore.open(url, project) as store:
        generations = {key: wanted.generation for key, wanted in store.desired().items()}
        assert generations == {"clicks": COMMANDS, "orders": COMMANDS}
        assert store.document("count", "all") == (PROCESSES * COMMANDS, PROCESSES * COMMANDS)
        assert store.statuses()["orders"].restarts == tokens[-1]
        assert [entry.at for entry in store.history(limit=1_000)] == [float(token) for token in tokens[::-1]]


def report_for_ever(url: str, project: str, told: SimpleQueue[int]) -> None:
    store = StreamStore.open(url, project, wait=60.0)
    lease = store.acquire_lease(a_host("victim"), 3600)
    assert lease is not None
    for n in itertools.count(1):
        statuses = [
            StreamStatus(id_, StreamingQueryState.RUNNING, restarts=n)
            for id_ in ("orders", "clicks", "users")
        ]
        store.report(lease, statuses, history=[HistoryEntry("orders", "started", float(n))])
        store.submit([a_command("restart", "orders", f"victim-{n}")])
        told.put(n)


@pytest.mark.parametrize("reports", [1, 6])
def test_a_host_killed_while_it_writes_leaves_whole_reports(url: str, project: str, reports: int) -> None:
    told = FORK_SERVER.SimpleQueue()
    victim = FORK_SERVER.Process(target=report_for_ever, args=(url, project, told), daemon=True)
    victim.start()
    heard = 0
    while heard < reports:
        heard = told.get()
    victim.kill()
    victim.join()
    while not told.empty():
        heard = told.get()
    with StreamStore.open(url, project, wait=10.0) as store:
        counts = {status.restarts for status in store.statuses().values()}
        assert len(counts) == 1
        (count,) = counts
        assert count in (heard, heard + 1)
        assert [entry.at for entry in store.history(limit=1_000)] == [float(n) for n in range(count, 0, -1)]
        generation = store.desired()["orders"].generation
        assert generation in (heard, heard + 1)
        again = [a_command("restart", "orders", f"victim-{n}") for n in range(1, generation + 1)]
        assert store.submit(again) == ()
