"""Streams that fail: what heals is tried again, what cannot heal is given up, and others never notice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pyarrow as pa
import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from deltalake import write_deltalake
from faults.harness import PRICES, Flow, Host, flow, wait_for

from kindling_dagster.streaming.checkpoints import accept_reset
from kindling_dagster.streaming.model import StreamingQueryState as State

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flow, Host]]:
    """One host for all of these: a stream's failure must not touch it."""
    with flow(tmp_path_factory.mktemp("flow")) as made:
        made.ask("start")
        host = made.host()
        made.await_state(State.RUNNING)
        yield made, host


@pytest.fixture
def running(hosted: tuple[Flow, Host]) -> Iterator[Flow]:
    running, host = hosted
    running.await_state(State.RUNNING)
    running.await_exact()
    yield running
    assert host.process.poll() is None, host.text()


def last_failures(running: Flow, stream_id: str, before: int) -> list[str]:
    return [event for event in running.events(stream_id)[before:] if event in ("failed", "dead_letter")]


def test_poison_exhausts_the_retries_and_is_revived_after_mending(running: Flow) -> None:
    before = len(running.events("priced"))
    running.put_items({**PRICES, "ink": -1})
    running.land(4)
    running.await_state(State.DEAD_LETTER, "priced")
    # Each start gets as far as its first batch: that is no recovery.
    assert last_failures(running, "priced", before) == ["failed", "failed", "failed", "dead_letter"]
    letter = running.store.dead_letters()["priced"]
    assert letter.failures == 3
    assert "poison" in letter.errors[-1].message
    running.await_exact("silver/orders", "gold/history")
    assert {each: running.state(each) for each in ("clean", "history")} == {
        "clean": "running",
        "history": "running",
    }
    running.put_items(PRICES)
    running.ask("revive", "priced")
    running.await_state(State.RUNNING, "priced")
    running.await_exact()
    assert running.store.dead_letters() == {}


def test_a_path_that_is_missing_for_a_while_heals(running: Flow) -> None:
    """The output of one stream and the source of another: neither goes on with an empty table in its place."""
    silver, aside = running.lake / "silver/orders", running.folder / "aside"
    before = {each: len(running.events(each)) for each in ("priced", "clean")}
    silver.rename(aside)
    running.ask("restart", *before)
    for each in before:
        wait_for("a failed start", lambda each=each: "failed" in running.events(each)[before[each] :], 60)
    assert not (silver / "_delta_log").exists()
    running.land(3)
    shutil.rmtree(silver, ignore_errors=True)
    aside.rename(silver)

    def up() -> bool:
        for each in before:
            if running.state(each) == "dead_letter":  # so slow a machine that the few retries were used up
                running.ask("revive", each)
        return all(running.state(each) == "running" for each in before)

    wait_for("both streams", up, pause=2)
    running.await_exact()


def test_a_schema_that_does_not_fit_is_given_up_at_once(running: Flow) -> None:
    before = len(running.events("priced"))
    items = running.lake / "ref/items"
    shutil.rmtree(items)
    write_deltalake(str(items), pa.table({"item": ["pen"], "cost": pa.array([1], pa.int64())}))
    running.ask("restart", "priced")
    running.await_state(State.DEAD_LETTER, "priced")
    assert last_failures(running, "priced", before) == ["failed", "dead_letter"]
    letter = running.store.dead_letters()["priced"]
    assert letter.errors[-1].kind == "permanent"
    assert letter.suggestion
    shutil.rmtree(items)
    running.put_items(PRICES)
    running.ask("revive", "priced")
    running.await_state(State.RUNNING, "priced")
    running.land(2)
    running.await_exact()


@pytest.mark.faults
def test_a_checkpoint_that_is_gone_is_refused_until_somebody_accepts_it(running: Flow) -> None:
    folder, aside = running.checkpoints / "history", running.folder / "history"
    running.ask("stop", "history")
    running.await_state(State.STOPPED, "history")
    folder.rename(aside)
    running.ask("start", "history")
    running.await_state(State.DEAD_LETTER, "history")
    letter = running.store.dead_letters()["history"]
    assert "checkpoint" in letter.errors[-1].message
    assert "--reset-checkpoint" in letter.suggestion
    aside.rename(folder)
    running.ask("revive", "history")
    running.await_state(State.RUNNING, "history")
    running.land(2)
    running.await_exact("gold/history")

    running.ask("stop", "history")
    running.await_state(State.STOPPED, "history")
    shutil.rmtree(folder)
    shutil.rmtree(running.lake / "gold/history")
    accept_reset(running.store, "history", "tests")
    running.ask("restart", "history")
    running.await_state(State.RUNNING, "history")
    running.await_exact("gold/history")


@pytest.mark.faults
def test_streams_the_app_does_not_declare_hide_no_other(running: Flow) -> None:
    running.ask("start", "stranger")
    running.await_state(State.FAILED, "stranger")
    error = running.store.statuses()["stranger"].last_error
    assert error is not None
    assert "no pipe 'stranger'" in error.message
    running.ask("stop", "stranger")
    running.land(2)
    running.await_exact()
