"""When a host is launched, waited for or rolled: a table."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from kindling_dagster.streaming.model import HostInfo, HostLaunch
from kindling_dagster.streaming.supervision import (
    CodeSeen,
    LaunchedRun,
    Situation,
    SupervisorPolicy,
    decide,
)

NOW = 10_000.0
CODE = CodeSeen("new", NOW - 1_000)
LAST = HostLaunch(NOW - 500, attempt=3, key="k")


def host(**changes: Any) -> HostInfo:
    """One that lives, runs the newest code, and has been up for 200 s."""
    values: dict[str, Any] = {
        "run_id": "r",
        "code_version": "new",
        "state": "running",
        "started_at": NOW - 200,
        "heartbeat_at": NOW - 2,
        "expires_at": NOW + 20,
    }
    return HostInfo("h", 7, **{**values, **changes})


DEAD = host(expires_at=NOW - 1, heartbeat_at=NOW - 30)
DEAD_YOUNG = host(expires_at=NOW - 1, heartbeat_at=NOW - 180)


def situation(**changes: Any) -> Situation:
    values: dict[str, Any] = {
        "wanted": 2,
        "host": None,
        "host_process_gone": False,
        "last": None,
        "run": LaunchedRun(),
        "code": CODE,
        "now": NOW,
    }
    return Situation(**{**values, **changes})


def launched(state: str, since: float = 500.0, **last: Any) -> dict[str, Any]:
    run_id = "" if state == "absent" else "r"
    return {"last": replace(LAST, **last), "run": LaunchedRun(state, run_id, NOW - since)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "action"),
    [
        pytest.param(situation(), "launch", id="nobody was ever launched"),
        pytest.param(situation(wanted=0), "none", id="nothing is wanted"),
        pytest.param(situation(host=host()), "none", id="a host lives"),
        pytest.param(situation(host=host(), wanted=0), "none", id="a host lives for nothing"),
        pytest.param(
            situation(host=host(), host_process_gone=True, **launched("started")), "launch", id="killed"
        ),
        pytest.param(
            situation(host=DEAD, **launched("started")), "launch", id="lease over, run still started"
        ),
        pytest.param(situation(host=DEAD, **launched("failed")), "launch", id="lease over, run failed"),
        pytest.param(situation(host=DEAD, wanted=0), "none", id="lease over, nothing wanted"),
        pytest.param(situation(host=host(state="ended"), **launched("ended")), "launch", id="terminated"),
        pytest.param(situation(**launched("queued")), "wait", id="queued, however long"),
        pytest.param(situation(**launched("starting", 20)), "wait", id="starting"),
        pytest.param(situation(**launched("starting", 300)), "launch", id="starting for too long"),
        pytest.param(situation(**launched("started", 100)), "wait", id="started, no lease yet"),
        pytest.param(situation(**launched("started", 300)), "launch", id="started, never a lease"),
        pytest.param(situation(**launched("absent", at=NOW - 10)), "wait", id="asked for just now"),
        pytest.param(situation(**launched("absent", at=NOW - 60)), "launch", id="its run never came"),
        pytest.param(situation(**launched("failed", at=NOW - 5)), "wait", id="failed just now: backoff"),
        pytest.param(situation(**launched("failed", at=NOW - 11)), "launch", id="backoff is over"),
        pytest.param(
            situation(**launched("failed", at=NOW - 60, failures=3)), "wait", id="backoff has grown"
        ),
        pytest.param(
            situation(host=DEAD_YOUNG, **launched("failed", at=NOW - 15, failures=1)), "wait", id="died young"
        ),
        pytest.param(
            situation(host=DEAD, **launched("failed", at=NOW - 205, failures=9)), "launch", id="died old"
        ),
        pytest.param(
            situation(host=host(code_version="old", started_at=NOW - 2_000)), "roll", id="older code"
        ),
        pytest.param(
            situation(host=host(code_version="old")), "none", id="other code, started since: not older"
        ),
        pytest.param(situation(host=host(code_version="")), "none", id="code unknown"),
        pytest.param(
            situation(host=host(code_version="old", run_id="", started_at=NOW - 2_000)),
            "none",
            id="not a run of ours",
        ),
        pytest.param(
            situation(host=host(code_version="old", started_at=NOW - 2_000, state="draining")),
            "wait",
            id="drains",
        ),
    ],
)
def test_what_the_supervisor_does(found: Situation, action: str) -> None:
    assert decide(found, SupervisorPolicy()).action == action


@pytest.mark.parametrize(
    ("policy", "found", "action"),
    [
        (SupervisorPolicy(launch=False), situation(), "wait"),
        (
            SupervisorPolicy(on_code_change="ignore"),
            situation(host=host(code_version="old", started_at=NOW - 2_000)),
            "none",
        ),
    ],
)
def test_what_a_policy_changes(policy: SupervisorPolicy, found: Situation, action: str) -> None:
    assert decide(found, policy).action == action


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (1, 10), (2, 20), (5, 160), (6, 300), (60, 300), (5_000, 300)]
)
def test_the_backoff_doubles_up_to_a_limit(failures: int, seconds: float) -> None:
    assert SupervisorPolicy().backoff(failures) == seconds


def test_a_host_that_stayed_up_clears_the_failures_before_it() -> None:
    decision = decide(situation(host=DEAD, **launched("failed", failures=9)), SupervisorPolicy())
    assert (decision.action, decision.failures) == ("launch", 0)


def test_a_host_that_never_comes_up_is_launched_ever_more_rarely() -> None:
    """Time goes on in ticks of 10 s; each launch's run fails 5 s later."""
    last, launches, policy = LAST, [], SupervisorPolicy()
    for tick in range(360):
        now = NOW + tick * 10
        run = LaunchedRun("failed" if now - last.at >= 5 else "started", "r", last.at)
        decision = decide(replace(situation(last=last, run=run), now=now), policy)
        if decision.action == "launch":
            last = HostLaunch(now, attempt=last.attempt + 1, failures=decision.failures)
            launches.append(now)
    pauses = [after - before for before, after in pairwise(launches)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 20
    assert set(pauses[5:]) == {300.0}
