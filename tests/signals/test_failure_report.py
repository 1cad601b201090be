from __future__ import annotations

from typing import Any

import pytest

from kindling_dagster.dag.results import PipeError, PipeResult, PipeStatus
from kindling_dagster.signals.collector import ErrorCollector
from kindling_dagster.signals.failure_report import COLUMNS, step_failure
from kindling_dagster.signals.payloads import Payload, decode


def bad(pipe_id: str, **error: str) -> PipeResult:
    told = PipeError(pipe_id, **{"type": "ValueError", "message": "no", **error})
    return PipeResult(pipe_id, PipeStatus.FAILED, error=told)


def collected(*payloads: Payload) -> ErrorCollector:
    errors = ErrorCollector()
    for payload in payloads:
        errors.record(payload)
    return errors


def table(failure: Any) -> list[dict[str, Any]]:
    return [dict(record.data) for record in failure.metadata["pipes"].records]


@pytest.mark.parametrize("count", [1, 200, 450])
def test_a_long_table_is_cut_and_says_so(count: int) -> None:
    failure = step_failure([bad(f"p{n}") for n in range(count)], 500)
    assert failure.description is not None
    lines = failure.description.splitlines()
    assert lines[0] == f"{count} of 500 pipes did not succeed."
    assert len(table(failure)) == len([line for line in lines if ": failed" in line]) == min(count, 200)
    assert (lines[-1] == "  … 250 more") is (count == 450)
    assert len(failure.metadata["kindling/failures"].value) == count  # type: ignore[arg-type]


def test_what_fell_with_others_comes_after_what_failed_itself() -> None:
    fallen = PipeResult("a", PipeStatus.UPSTREAM_FAILED, cause="b", reason="b did not succeed")
    assert [row["pipe"] for row in table(step_failure([fallen, bad("b")], 2))] == ["a", "b"][::-1]


@pytest.mark.parametrize(
    ("signal", "kwargs", "rows"),
    [
        # The pipe's own error, and summaries of the whole, are no rows of their own.
        ("datapipes.pipe_failed", {"pipe_id": "p", "error": "otherwise told"}, ["p"]),
        ("entity.merge_failed", {"entity_id": "e", "error": "no column x in e"}, ["p"]),
        ("orchestrator.execution_failed", {"error": "1 of 2 pipes failed"}, ["p"]),
        ("datapipes.run_failed", {"error": "1 of 2 pipes failed"}, ["p"]),
        # What no pipe's error tells is.
        ("watermark.save_failed", {"reader_id": "q", "error": "disk full"}, ["p", "q"]),
        ("shop.load_failed", {"error": "no file", "error_type": "OSError"}, ["p", "run"]),
    ],
)
def test_which_signals_are_rows(signal: str, kwargs: dict[str, Any], rows: list[str]) -> None:
    failure = step_failure([bad("p", message="no column x")], 2, collected(decode(signal, kwargs)))
    assert [row["pipe"] for row in table(failure)] == rows
    assert failure.metadata["errors by signal"].value == {signal: 1}


@pytest.mark.parametrize("name", ["type", "message", "suggestion", "where", "traceback"])
def test_no_text_of_an_error_shows_a_secret(name: str) -> None:
    secret = "password=hunter2hunter2; x"
    told = decode(
        "shop.load_failed", {"error": "e", "error_type": secret, "where": secret, "suggestion": secret}
    )
    failure = step_failure([bad("p", **{name: secret})], 1, collected(told))
    assert set(table(failure)[0]) == set(COLUMNS)
    assert "hunter2" not in f"{failure.description} {failure.metadata}"
    assert "password=***" in f"{failure.description} {failure.metadata}"


def test_long_errors_are_cut_in_the_table_and_whole_as_data() -> None:
    failure = step_failure([bad("p", message="m" * 900, traceback="t" * 9_000)], 1)
    assert table(failure)[0]["message"] == "m" * 500
    (data,) = failure.metadata["kindling/failures"].value  # type: ignore[misc,union-attr]
    assert data["error"]["message"] == "m" * 900  # type: ignore[index,call-overload]
    assert str(failure.metadata["tracebacks"].value).count("t") < 6_100
