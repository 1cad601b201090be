from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kindling.signaling import BlinkerSignalProvider

from kindling_dagster.signals.collector import ErrorCollector
from kindling_dagster.signals.payloads import (
    PAYLOAD_BY_SIGNAL,
    FailurePayload,
    PipeExecutePayload,
    PipeFailedPayload,
)


@pytest.fixture
def provider() -> BlinkerSignalProvider:
    return BlinkerSignalProvider()


def send(provider: BlinkerSignalProvider, name: str, /, **kwargs: Any) -> None:
    provider.create_signal(name)._signal.send(None, **kwargs)  # Kindling's own send has a parameter "sender"


def test_one_error_told_by_many_signals_is_one(provider: BlinkerSignalProvider) -> None:
    with ErrorCollector().connected(provider) as errors:
        told = {"error": "no column x", "error_type": "AnalysisException"}
        send(provider, "entity.merge_failed", entity_id="silver.o", duration_seconds=1.0, **told)
        send(provider, "persist.persist_failed", pipe_id="p", output_entity_id="silver.o", **told)
        send(provider, "datapipes.pipe_failed", pipe_id="p", suggestion="Add it.", where="a.py:3", **told)
        send(provider, "datapipes.run_failed", pipe_ids=["p", "q"], failed_pipe="p", **told)
        send(provider, "datapipes.pipe_failed", pipe_id="q", error="other", error_type="ValueError")
        send(provider, "datapipes.after_pipe", pipe_id="r")
    send(provider, "datapipes.pipe_failed", pipe_id="late", error="after close")

    assert [(e.subject, e.error_type, e.message, e.count) for e in errors.errors] == [
        ("silver.o", "AnalysisException", "no column x", 1),
        ("p", "AnalysisException", "no column x", 1),
        ("q", "ValueError", "other", 1),
    ]
    pipe = errors.errors[1]
    assert pipe.signals == {
        "persist.persist_failed": 1,
        "datapipes.pipe_failed": 1,
        "datapipes.run_failed": 1,
    }
    assert (pipe.suggestion, pipe.where) == ("Add it.", "a.py:3")
    assert pipe.first_at <= pipe.last_at
    assert errors.by_signal == {
        "datapipes.pipe_failed": 2,
        "datapipes.run_failed": 1,
        "entity.merge_failed": 1,
        "persist.persist_failed": 1,
    }
    errors.close()


@pytest.mark.parametrize(
    "name", sorted(name for name, payload in PAYLOAD_BY_SIGNAL.items() if issubclass(payload, FailurePayload))
)
def test_every_failure_is_collected(provider: BlinkerSignalProvider, name: str) -> None:
    with ErrorCollector().connected(provider) as errors:
        field = {"streaming.query_exception": "exception"}.get(name, "error")
        field = "failure_reason" if name.startswith("streaming.recovery") else field
        send(provider, name, **{field: "boom"})
    assert [(e.message, e.signals) for e in errors.errors] == [("boom", {name: 1})]


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        (
            "streaming.spark_query_terminated",
            {"query_id": "s", "exception": "boom", "error_class": "E"},
            ("s", "E"),
        ),
        ("streaming.spark_query_terminated", {"query_id": "s"}, None),
        ("streaming.recovery_exhausted", {"query_id": "s", "failure_reason": "x"}, ("s", "")),
        ("config.reload_failed", {"error": ValueError("x"), "old_config": {}}, ("", "ValueError")),
        (
            "file_ingestion.file_failed",
            {"filename": "a.csv", "error": "x", "error_type": "E"},
            ("a.csv", "E"),
        ),
    ],
)
def test_subjects(
    provider: BlinkerSignalProvider, name: str, kwargs: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    with ErrorCollector().connected(provider) as errors:
        send(provider, name, **kwargs)
    assert [(e.subject, e.error_type) for e in errors.errors] == ([expected] if expected else [])


def test_unknown_failures_the_provider_already_has_are_collected(provider: BlinkerSignalProvider) -> None:
    provider.create_signal("mine.load_failed")
    provider.create_signal("mine.loaded")
    with ErrorCollector().connected(provider) as errors:
        send(
            provider,
            "mine.load_failed",
            signal="s",
            sender="t",
            pipe_id="p",
            error="boom password=hunter2",
            error_type="E",
        )
        send(provider, "mine.loaded", pipe_id="p", error="none")
    assert [(e.subject, e.error_type, e.message) for e in errors.errors] == [("p", "E", "boom password=***")]


def test_it_is_bounded_and_counts_what_it_does_not_keep() -> None:
    errors = ErrorCollector(capacity=5)

    def record(number: int) -> None:
        for _ in range(10):
            errors.record(
                PipeFailedPayload(signal="datapipes.pipe_failed", pipe_id=f"p{number}", error="boom")
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(40)))
    errors.record(PipeExecutePayload(signal="datapipes.after_pipe", pipe_id="p"))
    assert len(errors.errors) == 5
    assert all(error.count == 10 for error in errors.errors)
    assert errors.not_kept == 350
    assert errors.by_signal == {"datapipes.pipe_failed": 400}
    assert "350 more were not kept." in errors.to_text()


def test_the_table() -> None:
    errors = ErrorCollector()
    assert errors.to_text() == ""
    errors.record(
        PipeFailedPayload(
            signal="datapipes.pipe_failed", pipe_id="p", error="a|b\n<c>", error_type="E", suggestion="Do it."
        )
    )
    errors.record(PipeFailedPayload(signal="datapipes.run_failed", error="x" * 300))
    assert errors.to_text().splitlines()[2] == (
        f"p               E      a|b <c>{' ' * 153}  1      Do it.      datapipes.pipe_failed"
    )
    assert f"run                    {'x' * 159}…  1" in errors.to_text()
