"""Transactions whose answer is lost on the way: done once, and known to be done when they are tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from store_fixtures import a_command, a_host

from kindling_dagster.streaming.model import (
    DeadLetter,
    HistoryEntry,
    HostLaunch,
    Lease,
    RecoveryState,
    StreamingQueryState,
    StreamStatus,
)
from kindling_dagster.streaming.store import ConflictError, StoreUnavailable, StreamStore
from kindling_dagster.streaming.store.database import Retry

STATUS = StreamStatus("orders", StreamingQueryState.RUNNING)


@pytest.fixture
def lose_answers(store: StreamStore, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the answers of the next n transactions be lost, after the database has carried them out."""
    database, left = store._database, [0]
    run = database._transaction

    def transaction(*arguments: Any) -> Any:
        result = run(*arguments)
        if left[0]:
            left[0] -= 1
            raise OperationalError("COMMIT", {}, ConnectionError("server closed the connection unexpectedly"))
        return result

    monkeypatch.setattr(database, "_transaction", transaction)
    monkeypatch.setattr(database, "_translate", lambda error: Retry(StoreUnavailable("It did not answer.")))

    def lose(count: int) -> None:
        left[0] = count

    return lose


def acquire(store: StreamStore) -> Lease:
    lease = store.acquire_lease(a_host(), 30)
    assert lease is not None
    return lease


@pytest.mark.parametrize("lost", [1, 3])
def test_commands_take_effect_once_and_are_told_to_have(
    store: StreamStore, lose_answers: Callable[[int], None], lost: int
) -> None:
    store.submit([a_command("restart", id_="before")])
    lose_answers(lost)
    sent = [a_command("restart", id_=id_) for id_ in ("b", "before", "a")]
    assert store.submit(sent) == ("b", "a")
    assert store.desired()["orders"].generation == 3
    lose_answers(lost)
    assert store.submit(sent) == ()


def test_a_document_is_written_once(store: StreamStore, lose_answers: Callable[[int], None]) -> None:
    lose_answers(2)
    assert store.put_document("kind", "key", 1, expected=0) == 1
    lose_answers(2)
    with pytest.raises(ConflictError):
        store.put_document("kind", "key", 1, expected=0)
    assert store.document("kind", "key") == (1, 1)


def test_a_report_is_written_once(store: StreamStore, lose_answers: Callable[[int], None]) -> None:
    lease = acquire(store)
    lose_answers(2)
    history = [HistoryEntry("orders", "failed", 1.0), HistoryEntry("orders", "restarted", 2.0)]
    letter = DeadLetter("orders", 1.0, 5)
    store.report(lease, [STATUS], {"orders": RecoveryState(failures=1)}, history, [letter])
    assert store.history() == tuple(reversed(history))
    assert store.statuses() == {"orders": STATUS}
    assert store.dead_letters() == {"orders": letter}


def test_a_lease_whose_grant_was_not_heard_is_replaced_by_the_next(
    store: StreamStore, lose_answers: Callable[[int], None]
) -> None:
    lose_answers(2)
    lease = acquire(store)
    assert lease.token == 3
    store.report(lease, [STATUS])
    lose_answers(1)
    lease = store.renew(lease, 30)
    lose_answers(1)
    store.release(lease)
    host = store.host()
    assert host is not None
    assert host.state == "ended"


def test_small_writes_and_reads(store: StreamStore, lose_answers: Callable[[int], None]) -> None:
    lose_answers(1)
    store.put_fingerprint("dim", "1")
    lose_answers(1)
    assert store.fingerprints() == {"dim": "1"}
    lose_answers(1)
    store.record_launch(HostLaunch(1.0, "run"))
    assert store.launches() == (HostLaunch(1.0, "run"),)


def test_in_the_end_it_is_unavailable_and_the_call_can_be_repeated(
    store: StreamStore, lose_answers: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._database, "wait", 0.2)
    lose_answers(1_000)
    command = a_command("restart", id_="1")
    with pytest.raises(StoreUnavailable):
        store.submit([command])
    lose_answers(0)
    assert store.submit([command]) == ()
    assert store.desired()["orders"].generation == 1
