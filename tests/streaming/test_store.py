"""What the store keeps and gives back, on both databases."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from store_fixtures import ERROR, a_command, a_host

from kindling_dagster.streaming.model import (
    DeadLetter,
    Desired,
    HistoryEntry,
    HostLaunch,
    RecoveryState,
    StreamHealth,
    StreamingQueryState,
    StreamMetrics,
    StreamStatus,
)
from kindling_dagster.streaming.store import (
    ConflictError,
    LeaseLost,
    StoreError,
    StreamStore,
)
from kindling_dagster.streaming.store import commands as commands_module
from kindling_dagster.streaming.store.documents import LAUNCHES_KEPT
from kindling_dagster.streaming.store.reports import HISTORY_KEPT

STATUS = StreamStatus(
    "orders",
    StreamingQueryState.RUNNING,
    StreamHealth.IDLE,
    "nothing to read",
    generation=3,
    spark_query_id="q",
    spark_run_id="r",
    started_at=1.5,
    restarts=2,
    metrics=StreamMetrics(batch_id=7, input_rows=10, rows_total=100, input_rows_per_second=0.5),
    rows_committed=1_000,
    last_error=ERROR,
    next_start_at=2.5,
    host_run_id="run",
    updated_at=3.5,
)


@pytest.mark.parametrize(
    ("actions", "running", "generation", "revived"),
    [
        (["start"], True, 0, 0),
        (["stop"], False, 0, 0),
        (["restart"], True, 1, 0),
        (["revive"], True, 1, 1),
        (["start", "stop"], False, 0, 0),
        (["start", "restart", "restart"], True, 2, 0),
        (["restart", "stop"], False, 1, 0),
        (["restart", "revive", "restart"], True, 3, 2),
    ],
)
def test_commands_make_what_is_desired(
    store: StreamStore, actions: list[str], running: bool, generation: int, revived: int
) -> None:
    sent = [a_command(action, reason=action, by="ada", at=5.0) for action in actions]
    assert store.submit(sent) == tuple(command.id for command in sent)
    assert store.desired() == {
        "orders": Desired("orders", running, generation, actions[-1], "ada", 5.0, revived)
    }


def test_an_id_is_obeyed_once(store: StreamStore, url: str, project: str) -> None:
    restart = a_command("restart", id_="once")
    assert store.submit([restart, restart]) == ("once",)
    assert store.submit([restart]) == ()
    with StreamStore.open(url, project) as another:
        assert another.submit([replace(restart, action="stop"), a_command("start", id_="2")]) == ("2",)
    assert store.desired()["orders"].generation == 1


def test_of_one_id_twice_in_a_call_the_first_counts(store: StreamStore) -> None:
    store.submit([a_command("start", id_="x"), a_command("stop", id_="x")])
    assert store.desired()["orders"].running


def test_an_unknown_action_changes_nothing(store: StreamStore) -> None:
    with pytest.raises(StoreError, match=r"'explode'.*start, stop, restart, revive"):
        store.submit([a_command("start"), a_command("explode")])
    assert store.desired() == {}


def test_no_command_is_no_transaction(store: StreamStore) -> None:
    assert store.submit([]) == ()


def test_a_command_without_a_time_gets_one(store: StreamStore) -> None:
    store.submit([a_command("start")])
    assert store.desired()["orders"].at > 1e9


def test_projects_do_not_see_each_other(store: StreamStore, url: str, project: str) -> None:
    store.submit([a_command("start", id_="same")])
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    store.report(lease, [STATUS], {"orders": RecoveryState()}, [HistoryEntry("orders", "started", 1.0)])
    with StreamStore.open(url, f"{project}-2") as other:
        assert (other.desired(), other.statuses(), other.history(), other.host()) == ({}, {}, (), None)
        assert other.submit([a_command("stop", id_="same")]) == ("same",)
        assert other.acquire_lease(a_host("other"), 30) is not None
    assert store.desired()["orders"].running


def test_a_report_is_given_back_as_it_was(store: StreamStore) -> None:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    recovery = RecoveryState(2, 8.5, 7.5, True, False, (ERROR,))
    entry = HistoryEntry("orders", "failed", 9.0, "why", "run", {"batch": 7, "nested": {"a": [1, None]}})
    letter = DeadLetter("orders", 9.5, 5, (ERROR,), "Mend it.")
    store.report(lease, [STATUS], {"orders": recovery}, [entry], [letter])
    assert store.statuses() == {"orders": STATUS}
    assert store.recovery_states() == {"orders": recovery}
    assert store.history() == (entry,)
    assert store.dead_letters() == {"orders": letter}
    later = replace(STATUS, state=StreamingQueryState.FAILED)
    store.report(lease, [later])
    assert store.statuses() == {"orders": later}
    assert store.recovery_states() == {"orders": recovery}


def test_revive_forgets_the_dead_letter_and_what_recovery_knew(store: StreamStore) -> None:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    dead = RecoveryState(failures=5, dead=True)
    letters = [DeadLetter("orders", 1.0, 5), DeadLetter("clicks", 1.0, 5)]
    store.report(lease, recovery={"orders": dead, "clicks": dead}, dead_letters=letters)
    store.submit([a_command("restart", "clicks"), a_command("revive", "orders")])
    assert set(store.dead_letters()) == {"clicks"}
    assert set(store.recovery_states()) == {"clicks"}


def test_a_report_made_before_a_revival_does_not_undo_it(store: StreamStore) -> None:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    store.submit([a_command("restart"), a_command("revive")])
    dead, letter = RecoveryState(dead=True), DeadLetter("orders", 1.0, 5)
    store.report(lease, [STATUS], {"orders": dead}, dead_letters=[letter], seen={"orders": 1})
    assert (store.recovery_states(), store.dead_letters()) == ({}, {})
    assert store.statuses() == {"orders": STATUS}
    store.submit([a_command("restart")])  # no revival: what the host saw at generation 2 still counts
    store.report(lease, [], {"orders": dead}, dead_letters=[letter], seen={"orders": 2})
    assert store.recovery_states() == {"orders": dead}
    assert store.dead_letters() == {"orders": letter}


def test_history_is_newest_first_and_bounded_by_stream(store: StreamStore) -> None:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    store.report(lease, history=[HistoryEntry("clicks", "started", 0.0)])
    entries = [HistoryEntry("orders", "restarted", float(n)) for n in range(HISTORY_KEPT + 30)]
    for start in range(0, len(entries), 50):
        store.report(lease, history=entries[start : start + 50])
    kept = store.history("orders", limit=1_000)
    assert [entry.at for entry in kept] == [float(n) for n in range(HISTORY_KEPT + 29, 29, -1)]
    assert len(store.history()) == 100
    assert store.history("clicks") == (HistoryEntry("clicks", "started", 0.0),)
    assert len(store.history(limit=1_000)) == HISTORY_KEPT + 1


def test_a_repeated_report_writes_no_entry_twice(store: StreamStore) -> None:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    entry = HistoryEntry("orders", "failed", 1.0)
    store.report(lease, history=[entry])
    store.report(lease, history=[entry, replace(entry, at=2.0)])
    assert [found.at for found in store.history()] == [2.0, 1.0]


def test_command_ids_are_bounded(store: StreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_module, "COMMANDS_KEPT", 5)
    monkeypatch.setattr(commands_module, "COMMANDS_AT_MOST", 20)
    monkeypatch.setattr(commands_module, "COMMAND_AGE", 3600.0)
    sent = [a_command("start", id_=f"{n:02}") for n in range(30)]
    for command in sent:
        store.submit([command])
    # The first ten are beyond any bound; the others are young, so they are known though beyond the lower one.
    assert store.submit(sent[10:]) == ()
    assert store.submit(sent[:10]) == tuple(command.id for command in sent[:10])
    monkeypatch.setattr(commands_module, "COMMAND_AGE", -3600.0)
    store.submit([a_command("start", id_="last")])
    assert store.submit(sent[6:10]) == ()
    assert store.submit(sent[20:22]) == ("20", "21")


def test_documents_are_written_by_who_read_last(store: StreamStore) -> None:
    assert store.document("restarts", "orders") == (None, 0)
    assert store.put_document("restarts", "orders", {"at": [1, None]}, expected=0) == 1
    assert store.document("restarts", "orders") == ({"at": [1, None]}, 1)
    assert store.put_document("restarts", "orders", None, expected=1) == 2
    assert store.document("restarts", "orders") == (None, 2)
    for expected in (0, 1, 3):
        with pytest.raises(ConflictError, match="restarts/orders has version 2") as caught:
            store.put_document("restarts", "orders", "mine", expected)
        assert caught.value.version == 2
    assert store.document("other", "orders") == (None, 0)


def test_counting_up_by_documents_loses_nothing(store: StreamStore) -> None:
    def count() -> None:
        for _ in range(10):
            while True:
                value, version = store.document("count", "all")
                try:
                    store.put_document("count", "all", (value or 0) + 1, version)
                    break
                except ConflictError:
                    continue

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.document("count", "all") == (40, 40)


def test_fingerprints(store: StreamStore) -> None:
    assert store.fingerprints() == {}
    store.put_fingerprint("dim.carriers", "1")
    store.put_fingerprint("dim.airports", "a\x00\ud800")
    store.put_fingerprint("dim.carriers", "2")
    assert store.fingerprints() == {"dim.carriers": "2", "dim.airports": "a\x00\ud800"}


def test_launches_are_newest_first_and_bounded(store: StreamStore) -> None:
    for n in range(LAUNCHES_KEPT + 5):
        store.record_launch(HostLaunch(float(n), f"run-{n}"))
    last = LAUNCHES_KEPT + 4
    store.record_launch(HostLaunch(float(last), f"run-{last}", "failed"))
    assert store.launches(2) == (
        HostLaunch(float(last), f"run-{last}", "failed"),
        HostLaunch(last - 1.0, f"run-{last - 1}"),
    )
    assert len(store.launches(1_000)) == LAUNCHES_KEPT


def test_many_commands_and_statuses_at_once(store: StreamStore) -> None:
    ids = [f"stream-{n:04}" for n in range(1_200)]
    assert len(store.submit([a_command("start", id_) for id_ in ids])) == 1_200
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    store.report(lease, [replace(STATUS, stream_id=id_) for id_ in ids])
    assert list(store.desired()) == list(store.statuses()) == ids


def test_a_lease_that_was_given_back_writes_nothing(store: StreamStore) -> None:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    store.release(lease)
    store.release(lease)
    for write in (lambda: store.report(lease, [STATUS]), lambda: store.renew(lease, 30)):
        with pytest.raises(LeaseLost, match="has given back"):
            write()
    assert store.statuses() == {}


def test_a_closed_store_opens_itself_again(store: StreamStore) -> None:
    store.close()
    store.submit([a_command("start")])
    store.close()
    assert set(store.desired()) == {"orders"}
