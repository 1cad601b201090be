"""The stream host's looks at a table of its session, on its own thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kindling_dagster.jvm import activate_session
from kindling_dagster.spark import build_session
from kindling_dagster.streaming import session_looks
from kindling_dagster.streaming.dimensions.fingerprint import session_key
from kindling_dagster.streaming.dimensions.look import compare
from kindling_dagster.streaming.dimensions.model import Dimension
from kindling_dagster.streaming.session_looks import ASKED, KIND, SessionLooks, ask_session
from kindling_dagster.streaming.store import StreamStore

pytestmark = [pytest.mark.spark, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    session = build_session({"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1"})
    yield session
    session.stop()


def until(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)
    return found


def test_changes_of_a_table_of_the_session_are_seen(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_looks, "_SHARE", 0)  # the first look of a cold JVM takes seconds
    dimension = Dimension("ref.session", "memory", method="hash")
    with StreamStore.open(f"sqlite:///{tmp_path / 'store.db'}", "shop") as store:
        ask_session(store, [dimension])
        assert set(store.document(KIND, ASKED)[0]) == {"ref.session"}
        key = session_key("ref.session")

        def fill(*names: str) -> None:
            spark.createDataFrame(list(enumerate(names)), "id int, name string").createOrReplaceTempView(
                "session_table"
            )

        fill("a", "b")
        looks = SessionLooks(
            store, lambda _: spark.table("session_table"), partial(activate_session, spark), interval=0.1
        )
        looks.start()
        try:
            first = until(lambda: store.fingerprints().get(key))
            fill("a", "c")
            second = until(lambda: (now := store.fingerprints()[key]) != first and now)
        finally:
            assert looks.stop(30)
        found = compare(dimension, first, second)
        assert (found.change, found.rows) == ("data", 2)
