"""From what happens in a run to what Dagster shows: one reporter for each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    MaterializeResult,
)

from kindling_dagster.dag.results import PipeResult, PipeStatus
from kindling_dagster.engines.base import LogLine, PipeFinished, PipeStarted, RunEvent, SignalSeen
from kindling_dagster.signals.bridge_outputs import (
    AssetFacts,
    BridgeContext,
    Commit,
    Output,
    PipeNote,
    StepError,
    StepFact,
    StepLog,
)
from kindling_dagster.signals.bridge_table import SignalBridge
from kindling_dagster.signals.carrying import Carried, safe_metadata
from kindling_dagster.signals.failure_report import step_failure
from kindling_dagster.signals.materialization import materialization_metadata, summary
from kindling_dagster.signals.plain import plain, scrub_text
from kindling_dagster.signals.step_record import StepRecord
from kindling_dagster.signals.throttle import Event, Throttle, with_metadata
from kindling_dagster.table_checks.events import step_evaluations

if TYPE_CHECKING:
    from kindling_dagster.signals.collector import ErrorCollector
    from kindling_dagster.signals.payloads import Payload


@dataclass(frozen=True)
class StepAsset:
    """An asset of the step that runs: its key, its entity, and the pipes that write it, in order.

    ``metadata`` is what its materialization tells beside what the pipes did.
    """

    key: AssetKey
    entity_id: str
    pipe_ids: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Gathered:
    """What is known of an asset until its next event; ``committed`` is only true with a materialization."""

    metadata: dict[str, Any] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)
    carried: Carried = field(default_factory=Carried)
    committed: dict[str, Any] = field(default_factory=dict)
    committed_carried: Carried = field(default_factory=Carried)
    loud: bool = False

    def add(self, facts: AssetFacts, payload: Payload) -> None:
        if facts.metadata or facts.totals:
            (self.committed_carried if facts.needs_commit else self.carried).add(payload)
        merge(self.committed if facts.needs_commit else self.metadata, facts.metadata)
        self.totals.update(facts.totals)
        self.loud = self.loud or not (facts.quiet or facts.needs_commit)

    @property
    def says_something(self) -> bool:
        """Whether there is anything for an event without a commit."""
        return bool(self.metadata or self.totals)

    def entries(self, commit: bool) -> dict[str, Any]:
        """The metadata of an event, with a commit or without."""
        totals = {name: _number(value) for name, value in self.totals.items()}
        known = {**self.metadata, **(self.committed if commit else {}), **totals}
        carried = Carried()
        carried.extend(self.carried)
        if commit:
            carried.extend(self.committed_carried)
        return {**safe_metadata(known), **carried.metadata()}


def merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put entries into a mapping: later ones win, mappings are merged key by key, None says nothing."""
    for name, value in more.items():
        known = into.get(name)
        if isinstance(known, dict) and isinstance(value, Mapping):
            merge(known, value)
        elif isinstance(value, Mapping):
            into[name] = {}
            merge(into[name], value)
        elif value is not None:
            into[name] = value


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else round(value, 3)


class StepReporter:
    """Turns a step's run events into log lines, Dagster events, materializations and, in the end, one failure.

    Everything is logged at once and in order, on the thread that calls ``handle``.

    Args:
        context: The step's context; only used on the thread that calls ``handle``.
        assets: The step's assets.
        names: Which assets the app's entities are.
        bridge: What becomes of signals; the package's rules when None.
        throttle: Holds back what comes too fast; made by the bridge's settings when None.
    """

    def __init__(
        self,
        context: AssetExecutionContext,
        assets: Sequence[StepAsset],
        names: BridgeContext,
        bridge: SignalBridge | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        self.results: dict[str, PipeResult] = {}
        self._context = context
        self._names = names
        self._bridge = bridge or SignalBridge()
        self._throttle = throttle or Throttle(self._bridge.interval, self._bridge.burst)
        self._by_pipe = {pipe_id: asset for asset in assets for pipe_id in asset.pipe_ids}
        self._keys = {asset.key for asset in assets}
        self._materialized: set[AssetKey] = set()
        self._gathered: dict[AssetKey, _Gathered] = {}
        self._started: dict[str, None] = {}
        self._notes: dict[str, list[Payload]] = {}
        self._facts: dict[str, Any] = {}
        self._signals: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._errors: ErrorCollector | None = None

    def handle(self, event: RunEvent) -> Iterator[MaterializeResult[Any]]:
        """Report one event; gives the materialization of an asset whose last pipe has just ended well."""
        match event:
            case LogLine(level, message):
                getattr(self._context.log, level)(scrub_text(message))
            case PipeStarted(pipe_id, attempt, _):
                self._started[pipe_id] = None
                again = f" (attempt {attempt})" if attempt > 1 else ""
                self._context.log.info(f"{self._position(1)} {pipe_id} started{again}")
            case PipeFinished(result):
                self.results[result.pipe_id] = result
                self._log_result(result)
                asset = self._by_pipe[result.pipe_id]
                yield from self._materialize(asset)
                for evaluation in step_evaluations(asset.key, result):
                    self._context.log_event(evaluation)
            case SignalSeen(name, data):
                self._translate(name, data)
        for due in self._throttle.due():
            self._send(due)

    def finish(self) -> None:
        """End the step: report what waits, and the step's record.

        Raises:
            Failure: Some pipe did not succeed; names each, with its error and what to do.
        """
        self._report_rest()
        record = self.record()
        bad = [result for result in self.results.values() if not result.status.ok]
        self._log_record("Step ended", record)
        if bad:
            raise step_failure(bad, len(self._by_pipe), self._errors, record)
        if self._errors is not None and self._errors.errors:
            self._context.log.warning(f"Errors on the way, all overcome:\n{self._errors.to_text()}")

    def interrupt(self) -> None:
        """The step was stopped from outside: leave its record in the log, and no other event."""
        if self._started or self.results:
            self._log_record("Step stopped", self.record())

    def record(self) -> StepRecord:
        """What is known of the step so far."""
        return StepRecord(
            results=list(self.results.values()),
            running=[pipe_id for pipe_id in self._started if pipe_id not in self.results],
            facts=self._facts,
            signals=self._signals,
            aggregated=self._throttle.aggregated,
            dropped=self._dropped,
            errors={} if self._errors is None else self._errors.by_signal,
        )

    # -- pipes

    def _position(self, ahead: int = 0) -> str:
        return f"[{len(self.results) + ahead}/{len(self._by_pipe)}]"

    def _log_result(self, result: PipeResult) -> None:
        notes = [note.to_data() for note in self._notes.pop(result.pipe_id, ())]
        done = f"{self._position()} {result.pipe_id}"
        if result.status is PipeStatus.SUCCEEDED:
            line = StepLog(f"{done} committed: {summary(result)}")
        elif result.status is PipeStatus.SKIPPED:
            line = StepLog(f"{done} skipped: {result.reason or 'no new data'}")
        elif result.error is not None:
            advice = f" → {result.error.suggestion}" if result.error.suggestion else ""
            text = f"{result.error.type}: {result.error.message}{advice}"
            line = StepLog(f"{done} {result.status.value}: {text}", "error")
        else:
            line = StepLog(f"{done} {result.status.value}: {result.reason}", "warning")
        # Not by _log: what payloads give is plain already, and there is much of it.
        extra = {"kindling": {"signals": notes}} if notes else {}
        getattr(self._context.log, line.level)(scrub_text(line.message), extra=extra)

    def _materialize(self, asset: StepAsset) -> Iterator[MaterializeResult[Any]]:
        """The asset's materialization, once all of its pipes have ended well and one has committed."""
        results = [self.results[pipe_id] for pipe_id in asset.pipe_ids if pipe_id in self.results]
        if len(results) < len(asset.pipe_ids):
            return
        committed = [result for result in results if result.committed]
        if committed and all(result.status.ok or result.held_back for result in results):
            gathered = self._gathered.pop(asset.key, _Gathered())
            self._materialized.add(asset.key)
            metadata = safe_metadata(materialization_metadata(committed, self._names.asset_of, asset.key))
            yield MaterializeResult(
                asset_key=asset.key,
                metadata={**gathered.entries(commit=True), **metadata, **asset.metadata},
            )

    # -- signals

    def _translate(self, name: str, data: Mapping[str, Any]) -> None:
        self._signals[name] += 1
        rule = self._bridge.rule_for(name)
        if rule is None:
            self._dropped[name] += 1
            return
        # Here, because payloads bring Kindling in, which loading definitions does without.
        from kindling_dagster.signals.catalog import is_high_rate
        from kindling_dagster.signals.payloads import from_data

        try:
            payload = from_data({**data, "signal": name})
            outputs = _checked(rule(payload, self._names) or ())
        except Exception as error:  # costs the signal, not the run; said and counted
            self._dropped[name] += 1
            text = f"The signal {name} is not passed on: {type(error).__name__}: {error}"
            for line in self._throttle.take(name, StepLog(text, "error")):
                self._send(line)
            return
        fast = is_high_rate(name)
        for output in outputs:
            self._put(output, payload, fast)

    def _put(self, output: Output, payload: Payload, fast: bool) -> None:
        match output:
            case AssetFacts():
                self._gathered.setdefault(output.key, _Gathered()).add(output, payload)
            case Commit(key, metadata) if key in self._keys - self._materialized:
                self._gathered.setdefault(key, _Gathered()).add(AssetFacts(key, metadata), payload)
            case Commit(key, metadata):
                self._forward(payload, AssetMaterialization(key, metadata=safe_metadata(metadata)), fast)
            case PipeNote(pipe_id, note):
                self._note(pipe_id, note, payload)
            case StepFact(name, value):
                self._facts[name] = plain(value, name)
            case StepError():
                self._collector().record(payload)
            case _:
                self._forward(payload, output, fast)

    def _note(self, pipe_id: str, note: str, payload: Payload) -> None:
        if pipe_id in self._by_pipe and pipe_id not in self.results:
            self._notes.setdefault(pipe_id, []).append(payload)
        else:
            text = f"{pipe_id}: {payload.signal}{f' ({note})' if note else ''}"
            self._forward(payload, StepLog(text, "debug", payload.to_data()), False)

    def _collector(self) -> ErrorCollector:
        if self._errors is None:
            from kindling_dagster.signals.collector import ErrorCollector

            self._errors = ErrorCollector()
        return self._errors

    def _forward(self, payload: Payload, event: Event, fast: bool) -> None:
        if not isinstance(event, StepLog):
            metadata = {**safe_metadata(event.metadata), **Carried([payload]).metadata()}
            text = None if event.description is None else scrub_text(event.description)
            event = with_metadata(event, metadata, text)
        for out in self._throttle.take(payload.signal, event, fast):
            self._send(out)

    # -- Dagster

    def _send(self, event: Event) -> None:
        if isinstance(event, StepLog):
            self._log(event)
        else:
            self._context.log_event(event)

    def _log(self, line: StepLog) -> None:
        extra = {"kindling": plain(dict(line.data))} if line.data else {}
        getattr(self._context.log, line.level)(scrub_text(line.message), extra=extra)

    def _report_rest(self) -> None:
        """What was held back, and what is known of assets that got no materialization to put it in."""
        for event in self._throttle.rest():
            self._send(event)
        for key, gathered in self._gathered.items():
            wanted = gathered.loud or key not in self._materialized
            if wanted and gathered.says_something:
                self._context.log_event(
                    AssetObservation(
                        key, description=self._use_of(key), metadata=gathered.entries(commit=False)
                    )
                )
        self._gathered.clear()

    def _use_of(self, key: AssetKey) -> str:
        if key not in self._keys or key in self._materialized:
            return "Used by this run"
        pipes = [pipe_id for pipe_id, asset in self._by_pipe.items() if asset.key == key]
        ended = [self.results[pipe_id].status.ok for pipe_id in pipes if pipe_id in self.results]
        return "Nothing new to write" if all(ended) and ended else "Not written to the end"

    def _log_record(self, title: str, record: StepRecord) -> None:
        parts = [f"{title}.", record.to_text(), record.to_json()]
        self._context.log.info("\n".join(part for part in parts if part))


_OUTPUTS: Final = frozenset(get_args(Output))


def _checked(outputs: Iterable[Any]) -> list[Output]:
    """The outputs of a rule.

    Raises:
        TypeError: One of them is nothing that a rule can give.
    """
    found = list(outputs)
    for output in found:
        # By type first: isinstance of a union with Dagster's classes in it takes longer than most rules.
        if type(output) not in _OUTPUTS and not isinstance(output, Output):
            raise TypeError(
                f"its rule gave a {type(output).__name__}, which is no event or output of a bridge"
            )
    return found
