"""Whether a host must be launched, waited for or rolled: one pure function of what is wanted and what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kindling_dagster.streaming.model import HostInfo, HostLaunch

Action = Literal["none", "wait", "launch", "roll"]
OnCodeChange = Literal["restart", "ignore"]
RunState = Literal["absent", "queued", "starting", "started", "failed", "ended"]


@dataclass(frozen=True)
class SupervisorPolicy:
    """How hosts are launched. Times are seconds.

    Args:
        on_code_change: ``restart`` the host when the app's code is newer than its own, or ``ignore`` that.
        launch: Launch hosts at all; False where another keeps ``kindling-dagster host`` running.
        initial_backoff: Before the next launch, after one whose host did not stay up.
        max_backoff: The backoff doubles with each such launch in a row, up to this.
        stable_after: How long a host must have been up to count as one that stayed up.
        start_limit: How long a launched run may take until its host has the lease.
        absent_limit: How long after a launch its run must be there.
    """

    on_code_change: OnCodeChange = "restart"
    launch: bool = True
    initial_backoff: float = 10.0
    max_backoff: float = 300.0
    stable_after: float = 60.0
    start_limit: float = 240.0
    absent_limit: float = 30.0

    def backoff(self, failures: int) -> float:
        """Seconds to wait after a launch, when that many in a row did not stay up."""
        if failures == 0:
            return 0.0
        return float(min(self.initial_backoff * 2.0 ** min(failures - 1, 30), self.max_backoff))


@dataclass(frozen=True)
class LaunchedRun:
    """The run of the last launch, as Dagster tells. ``since`` is when it got into its state, as far as known."""

    state: RunState = "absent"
    run_id: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class CodeSeen:
    """The code version that the definitions have, and since when they have had it."""

    version: str
    since: float


@dataclass(frozen=True)
class Situation:
    """All that the decision depends on.

    Args:
        wanted: How many streams should run.
        host: Who holds, or last held, the lease.
        host_process_gone: Known for certain: its process has died, although its lease has not ended yet.
        last: The last launch; None when there was none.
        run: The run of the last launch.
        code: What the definitions were made from.
        now: Unix seconds.
    """

    wanted: int
    host: HostInfo | None
    host_process_gone: bool
    last: HostLaunch | None
    run: LaunchedRun
    code: CodeSeen
    now: float


@dataclass(frozen=True)
class Decision:
    """What to do, why, and how many launches in a row did not stay up."""

    action: Action
    reason: str
    failures: int = 0


def decide(situation: Situation, policy: SupervisorPolicy) -> Decision:
    """What the supervisor does now. Liveness goes by the lease; a run's state only says whether to wait for it."""
    host, now = situation.host, situation.now
    if host is not None and host.alive(now) and not situation.host_process_gone:
        return _with_host(host, situation, policy)
    if situation.wanted == 0:
        return Decision("none", "No stream should run.")
    if not policy.launch:
        return Decision("wait", "No host lives, and launching one is left to others.")
    return _launch(situation, policy)


def _with_host(host: HostInfo, situation: Situation, policy: SupervisorPolicy) -> Decision:
    code = situation.code
    outdated = host.code_version not in ("", code.version)
    # A host that started after the definitions were loaded runs what is there now: rolling it would change nothing.
    if outdated and policy.on_code_change == "restart" and host.run_id and host.started_at < code.since:
        if host.state == "draining":
            return Decision("wait", "The host drains, to start again on new code.")
        return Decision(
            "roll", f"The app's code changed: {host.code_version or 'unknown'} to {code.version}."
        )
    if outdated and host.started_at < code.since:
        return Decision("none", f"The host runs older code ({host.code_version}), as on_code_change says.")
    return Decision("none", f"The host is {host.state}.")


def _launch(situation: Situation, policy: SupervisorPolicy) -> Decision:
    last, run, now = situation.last, situation.run, situation.now
    if last is None:
        return Decision("launch", "The first host.")
    had_lease = situation.host is not None and situation.host.run_id == run.run_id != ""
    waited = now - max(last.at, run.since)
    match run.state:
        case "absent" if waited < policy.absent_limit:
            return Decision("wait", "A host's run was asked for and is not there yet.", last.failures)
        case "queued":
            return Decision("wait", "A host's run is queued.", last.failures)
        case "starting" if not had_lease and waited < policy.start_limit:
            return Decision("wait", "A host's run is starting.", last.failures)
        case "started" if not had_lease and waited < policy.start_limit:
            return Decision(
                "wait", "A host's run has started and does not hold the lease yet.", last.failures
            )
    failures = last.failures + 1 if _failed(situation, policy, had_lease) else 0
    until = last.at + policy.backoff(failures)
    if now < until:
        return Decision("wait", f"The next host is launched in {until - now:.0f} s.", failures)
    return Decision("launch", _why(situation, had_lease), failures)


def _failed(situation: Situation, policy: SupervisorPolicy, had_lease: bool) -> bool:
    """Whether the last launch's host did not stay up, though nobody asked it to end."""
    host = situation.host
    if situation.run.state == "ended":
        return False
    if had_lease and host is not None:
        return host.heartbeat_at - host.started_at < policy.stable_after
    return True


def _why(situation: Situation, had_lease: bool) -> str:
    if situation.host_process_gone:
        return "The host's process is gone."
    if had_lease and situation.run.state in ("started", "failed"):
        return "The host is gone."
    return {
        "absent": "The last host's run never came.",
        "starting": "The last host's run did not start.",
        "started": "The last host's run never took the lease.",
        "failed": "The last host's run failed.",
    }.get(situation.run.state, "No host lives.")
