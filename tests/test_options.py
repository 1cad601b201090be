"""Execution options: the precedence, as a table."""

from __future__ import annotations

from typing import Any

import pytest
from manifests import entity, manifest, pipe

from kindling_dagster.errors import KindlingDagsterError
from kindling_dagster.options import OptionLayer, resolve_options

SETTINGS = {
    "kindling.execution.max_workers": 2,
    "kindling.execution.parallel": "true",
    "kindling.execution.pipe_timeout": 100,
    "kindling.execution.error_strategy": "FAIL_FAST",
    "kindling.execution.retry.attempts": 1,
    "kindling.execution.retry.interval_seconds": 30,
    "kindling.execution.pipes.a.b.retry.attempts": 5,
}


@pytest.mark.parametrize(
    ("tags", "run", "resource", "settings", "expected"),
    [
        ({}, {}, {}, {}, {"timeout": None, "attempts": 1, "workers": 4, "parallel": False}),
        ({}, {}, {}, SETTINGS, {"timeout": 100.0, "attempts": 6, "workers": 2, "parallel": True}),
        ({}, {}, {"pipe_timeout": 50.0}, SETTINGS, {"timeout": 50.0}),
        ({}, {"pipe_timeout": 20.0}, {"pipe_timeout": 50.0}, SETTINGS, {"timeout": 20.0}),
        ({"dagster/timeout": "5"}, {"pipe_timeout": 20.0}, {}, SETTINGS, {"timeout": 5.0}),
        ({"dagster/timeout": "0"}, {"pipe_timeout": 20.0}, {}, {}, {"timeout": None}),
        ({"dagster/retries": "2"}, {"retries": 9}, {}, SETTINGS, {"attempts": 3}),
        ({}, {"parallel": False}, {"parallel": True}, {}, {"parallel": False}),
        ({}, {"mode": "full_refresh"}, {}, {}, {"full_refresh": True, "watermarks": False}),
        ({}, {"mode": "incremental"}, {}, {}, {"full_refresh": False, "watermarks": True}),
        ({}, {"full_refresh_pipes": ("a.*",)}, {}, {}, {"full_refresh": True}),
        ({"dagster/full_refresh": "yes"}, {}, {}, {}, {"full_refresh": True}),
        ({"dagster/backoff": "0.5"}, {"backoff": 4.0}, {}, {}, {"backoff": 0.5}),
        ({}, {"backoff": 0.0}, {}, {}, {"backoff": 0.0}),
    ],
)
def test_precedence(
    tags: dict[str, str],
    run: dict[str, Any],
    resource: dict[str, Any],
    settings: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    app = manifest(pipe("a.b", "x", "y", tags=tags), settings=settings)
    options = resolve_options(app, ["a.b"], run=OptionLayer(**run), resource=OptionLayer(**resource))
    made = options.pipes["a.b"]
    got = {
        "timeout": made.timeout,
        "attempts": made.attempts,
        "backoff": made.backoff,
        "full_refresh": made.full_refresh,
        "workers": options.max_workers,
        "parallel": options.parallel,
        "watermarks": options.watermarks,
    }
    assert {name: got[name] for name in expected} == expected


def test_a_run_that_continues_another_may_name_pipes_that_have_committed() -> None:
    lake = entity("silver.y", merge_columns=("id",))
    app = manifest(
        pipe("silver.a", "x", "silver.y"),
        pipe("silver.b", "x", "silver.y"),
        entities=(lake,),
        settings={"kindling.lineage.enabled": True},
    )
    options = resolve_options(
        app,
        ["silver.b"],
        run=OptionLayer(full_refresh_pipes=("silver.a",)),
        reprocess={"silver.a": "1.0"},
        of_pipes=["silver.a", "silver.b"],
    )
    assert (options.reprocess, options.pipes["silver.b"].full_refresh) == ({}, False)
    with pytest.raises(KindlingDagsterError, match=r"reprocess names silver\.c"):
        resolve_options(app, ["silver.b"], reprocess={"silver.c": "1.0"}, of_pipes=["silver.a", "silver.b"])


@pytest.mark.parametrize(
    ("tags", "run", "settings", "says"),
    [
        ({}, {"mode": "fast"}, {}, "no mode 'fast'"),
        ({}, {"error_strategy": "ignore"}, {}, "no error strategy 'ignore'"),
        ({}, {"max_workers": 0}, {}, "max_workers is 0"),
        ({}, {"full_refresh_pipes": ("z*",)}, {}, "matches no pipe"),
        ({"dagster/timeout": "soon"}, {}, {}, "dagster/timeout of pipe a.b is 'soon'"),
        ({"dagster/full_refresh": "maybe"}, {}, {}, "dagster/full_refresh of pipe a.b is 'maybe'"),
        ({}, {}, {"kindling.execution.max_workers": "many"}, "max_workers is 'many'"),
    ],
)
def test_bad_options_are_named(
    tags: dict[str, str], run: dict[str, Any], settings: dict[str, Any], says: str
) -> None:
    app = manifest(pipe("a.b", "x", "y", tags=tags), settings=settings)
    with pytest.raises(KindlingDagsterError, match=r"mode|error|option|names|max_workers") as caught:
        resolve_options(app, ["a.b"], run=OptionLayer(**run))
    assert says in str(caught.value)
    assert caught.value.suggestion
