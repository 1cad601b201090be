"""Many processes at one store: real ones, that open, write, read and compete for the lease at the same time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from store_fixtures import a_command

from kindling_dagster.streaming.model import StreamStatus
from kindling_dagster.streaming.store import StreamStore

PROCESSES = 4
COMMANDS = 40

WORKER = """
import json, sys
from kindling_dagster.streaming.model import *
from kindling_dagster.streaming.store import *
url, project, name, commands = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
store = StreamStore.open(url, project, wait=60.0)
effective, tokens, written, lost = [], [], [], 0
for n in range(commands):
    effective += store.submit([Command(f"c-{n}", "restart", "orders"), Command(f"d-{n}", "restart", "clicks")])
    store.desired(), store.statuses(), store.host()
    lease = store.acquire_lease(HostInfo(f"{name}-{n}", 0), 30)
    if lease is not None:
        tokens.append(lease.token)
        try:
            store.report(lease, [StreamStatus("orders", StreamingQueryState.RUNNING, restarts=lease.token)],
                         history=[HistoryEntry("orders", "started", float(lease.token))])
            written.append(lease.token)
            store.release(lease)
        except LeaseLost:
            lost += 1
    while True:
        value, version = store.document("count", "all")
        try:
            store.put_document("count", "all", (value or 0) + 1, version)
            break
        except ConflictError:
            pass
print(json.dumps([effective, tokens, written, lost]))
"""


def test_processes_at_once(url: str, project: str) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, project, f"p{n}", str(COMMANDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(PROCESSES)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    said = []
    for worker in workers:  # all open an empty store at the same moment
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        said.append(json.loads(out))
    effective = [id_ for answer in said for id_ in answer[0]]
    assert sorted(effective) == sorted([f"{kind}-{n}" for kind in "cd" for n in range(COMMANDS)])
    tokens = sorted(token for answer in said for token in answer[1])
    assert tokens == list(range(1, len(tokens) + 1))
    written = sorted(token for answer in said for token in answer[2])
    assert sum(answer[3] for answer in said) == 0
    with StreamStore.open(url, project) as store:
        desired = store.desired()
        assert {key: wanted.generation for key, wanted in desired.items()} == {
            "clicks": COMMANDS,
            "orders": COMMANDS,
        }
        assert store.document("count", "all") == (PROCESSES * COMMANDS, PROCESSES * COMMANDS)
        assert store.statuses()["orders"].restarts == max(written)
        assert sorted(entry.at for entry in store.history(limit=1_000)) == [float(token) for token in written]


KILLED = """
import sys
from kindling_dagster.streaming.model import *
from kindling_dagster.streaming.store import *
store = StreamStore.open(sys.argv[1], sys.argv[2], wait=60.0)
lease = store.acquire_lease(HostInfo(sys.argv[3], 0), 3600)
n = 0
while True:
    n += 1
    store.report(
        lease,
        [StreamStatus(id_, StreamingQueryState.RUNNING, restarts=n) for id_ in ("a", "b", "c")],
        history=[HistoryEntry("a", "started", float(n))],
    )
    store.submit([Command(f"{sys.argv[3]}-{n}", "restart", id_ ) for id_ in ("a", )])
    print(n, flush=True)
"""


@pytest.mark.parametrize("reports", [1, 4, 9])
def test_a_host_killed_while_it_writes_leaves_whole_reports(url: str, project: str, reports: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, url, project, "victim"], stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        for _ in range(reports):
            victim.stdout.readline()
        victim.kill()
        heard = reports + len(victim.stdout.readlines())
    with StreamStore.open(url, project, wait=10.0) as store:
        statuses: dict[str, StreamStatus] = store.statuses()
        counts = {status.restarts for status in statuses.values()}
        assert len(counts) == 1
        (count,) = counts
        assert count in (heard, heard + 1)
        assert [entry.at for entry in store.history(limit=1_000)] == [float(n) for n in range(count, 0, -1)]
        generation = store.desired()["a"].generation
        assert generation in (heard, heard + 1)
        again = [a_command("restart", "a", f"victim-{n}") for n in range(1, generation + 1)]
        assert store.submit(again) == ()
