"""A step without Spark: run events made by hand, reported inside a real ``materialize()``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from dagster import AssetKey, AssetSpec, DagsterInstance, MaterializeResult, materialize, multi_asset
from manifests import entity, manifest, pipe

from kindling_dagster.dag.results import PipeError, PipeResult, PipeStatus
from kindling_dagster.engines.base import PipeFinished, RunEvent, SignalSeen
from kindling_dagster.manifest import Manifest
from kindling_dagster.signals.bridge import StepAsset, StepReporter
from kindling_dagster.signals.bridge_outputs import BridgeContext
from kindling_dagster.signals.bridge_table import SignalBridge
from kindling_dagster.signals.payloads import decode
from kindling_dagster.signals.throttle import Throttle

ORDERS = AssetKey(["silver", "orders"])
DAILY = AssetKey(["gold", "daily"])
RAW = AssetKey(["bronze", "orders"])
LIVE = AssetKey(["silver", "live"])

APP: Manifest = manifest(
    pipe("clean", "bronze.orders ref.items.current", "silver.orders"),
    pipe("fix", "bronze.fixes", "silver.orders"),
    pipe("daily", "silver.orders", "gold.daily"),
    pipe("follow", "bronze.orders", "silver.live", tags={"processing_mode": "streaming"}),
    entities=(
        entity("ref.items", scd2=True),
        entity("ref.items.current", companion_of="ref.items", provider="current_view"),
    ),
)
NAMES = BridgeContext(APP)
ASSETS = (
    StepAsset(ORDERS, "silver.orders", ("clean", "fix")),
    StepAsset(DAILY, "gold.daily", ("daily",)),
)


def seen(name: str, /, **kwargs: Any) -> SignalSeen:
    """What an engine hands on when a signal is emitted with these keywords."""
    return SignalSeen(name, decode(name, kwargs).to_data())


def done(pipe_id: str, status: PipeStatus = PipeStatus.SUCCEEDED, **changes: Any) -> PipeFinished:
    """A pipe's end, ten seconds after the start of time."""
    values: dict[str, Any] = {"started_at": 1_000.0, "ended_at": 1_010.0, "attempts": 1}
    return PipeFinished(PipeResult(pipe_id, status, **(values | changes)))


def failed(pipe_id: str, message: str = "no column x", **changes: Any) -> PipeFinished:
    """A pipe's failure."""
    error = PipeError(pipe_id, "AnalysisException", message, "Add it.", "app/pipes.py:3", "the stack")
    return done(pipe_id, PipeStatus.FAILED, error=error, **changes)


@dataclass(frozen=True)
class Line:
    """One stored event: what it is, its asset, its text, its metadata as plain values."""

    kind: str
    asset: str
    text: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A step that ran: whether it succeeded and what is stored of it, in order."""

    success: bool
    lines: Sequence[Line]
    instance: DagsterInstance
    run_id: str

    def of(self, kind: str, asset: AssetKey | None = None) -> list[Line]:
        return [
            line
            for line in self.lines
            if line.kind == kind and (asset is None or line.asset == asset.to_user_string())
        ]

    @property
    def logs(self) -> list[str]:
        return [line.text for line in self.lines if line.kind == "log"]

    @property
    def everything(self) -> str:
        """All that is stored of the run, as text."""
        return "\n".join(map(str, self.instance.all_logs(self.run_id)))


@cache
def shared_instance() -> DagsterInstance:
    """For steps of which only the run's own events are looked at: making one takes longer than the step."""
    return DagsterInstance.ephemeral()


def run_step(
    events: Iterable[RunEvent],
    bridge: SignalBridge | None = None,
    throttle: Throttle | None = None,
    names: BridgeContext = NAMES,
    assets: Sequence[StepAsset] = ASSETS,
    instance: DagsterInstance | None = None,
) -> Step:
    """Report the events inside a step."""

    @multi_asset(
        specs=[AssetSpec(asset.key, skippable=True) for asset in assets], can_subset=True, name="step"
    )
    def step(context):  # type: ignore[no-untyped-def]
        yield from reported(context)

    def reported(context: Any) -> Iterator[MaterializeResult[Any]]:
        reporter = StepReporter(context, assets, names, bridge, throttle)
        for event in events:
            yield from reporter.handle(event)
        reporter.finish()

    instance = instance or shared_instance()
    result = materialize([step], instance=instance, raise_on_error=False)
    return Step(result.success, list(lines_of(instance, result.run_id)), instance, result.run_id)


def lines_of(instance: DagsterInstance, run_id: str) -> Iterator[Line]:
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is None:
            yield Line("log", "", entry.user_message, {})
        elif event.is_step_failure:
            data = event.step_failure_data.user_failure_data
            yield Line("failure", "", data.description or "", _plain(data.metadata))
        elif event.event_type_value in ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION"):
            made = entry.asset_materialization or entry.asset_observation
            kind = event.event_type_value.removeprefix("ASSET_").lower()
            yield Line(kind, made.asset_key.to_user_string(), made.description or "", _plain(made.metadata))
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            made = event.event_specific_data
            text = f"{made.check_name} {'passed' if made.passed else 'failed'}"
            yield Line("check", made.asset_key.to_user_string(), text, _plain(made.metadata))


def _plain(metadata: Any) -> dict[str, Any]:
    return {key: value.value for key, value in metadata.items()}
