"""The table: from a signal's name to the rule that translates it, and how users change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from kindling_dagster.errors import DeclarationError
from kindling_dagster.signals import bridge_rules as batch
from kindling_dagster.signals import bridge_stream_rules as streams
from kindling_dagster.signals.bridge_outputs import Rule
from kindling_dagster.signals.throttle import BURST, INTERVAL

DEFAULT_RULES: Final[Mapping[str, Rule | None]] = MappingProxyType(
    {
        # Whole namespaces, then what differs; an exact name comes before a pattern, a longer pattern before a
        # shorter one.
        "datapipes.*": batch.pipe_note,
        "datapipes.pipe_failed": batch.failure,
        "datapipes.run_failed": batch.failure,
        "datapipes.lineage_applied": batch.lineage,
        "datapipes.version_changed": batch.lineage,
        "datapipes.lineage_audit": batch.lineage_audit,
        "orchestrator.plan_generated": batch.plan_generated,
        "orchestrator.execution_started": batch.log(
            text="{pipe_count} pipes in {generation_count} generations, {mode}, parallel: {parallel}"
        ),
        "orchestrator.execution_completed": batch.execution_ended,
        "orchestrator.execution_cancelled": batch.execution_ended,
        "orchestrator.execution_failed": batch.execution_failed,
        "orchestrator.generation_started": batch.generation_started,
        "orchestrator.generation_completed": batch.generation_completed,
        "orchestrator.pipe_*": batch.pipe_note,
        "orchestrator.pipe_retrying": batch.retrying,
        "orchestrator.pipe_failed": batch.failure,
        "orchestrator.pipe_timed_out": batch.failure,
        "orchestrator.pipe_stuck": batch.failure,
        "orchestrator.cache_*": batch.cache,
        "stage.*": batch.log(),
        "stage.execute_failed": batch.failure,
        "persist.before_persist": batch.pipe_note,
        "persist.after_persist": batch.committed,
        "persist.persist_failed": batch.failure,
        "persist.watermark_saved": batch.watermark,
        "entity.*": batch.entity_access,
        "entity.*_failed": batch.failure,
        "entity.registered": batch.entity_registered,
        "entity.scd2_companion_registered": batch.entity_registered,
        "read.*": batch.resolved,
        "watermark.*": batch.watermark,
        "watermark.save_failed": batch.failure,
        "file_ingestion.*": batch.log(),
        "file_ingestion.*_failed": batch.failure,
        "app.*": batch.log(),
        "job.*": batch.log(),
        "config.*": batch.log(),
        "app.deploy_failed": batch.log("error"),
        "job.*_failed": batch.log("error"),
        "config.reload_failed": batch.log("error"),
        "signals.subscriber_failed": batch.log("error"),
        "streaming.*": streams.stream,
        "streaming.query_started": streams.query_started,
        "streaming.query_healthy": streams.health,
        "streaming.query_unhealthy": streams.health,
        "streaming.query_stalled": streams.health,
        "streaming.query_exception": streams.health,
        "streaming.recovery_exhausted": streams.given_up,
        "streaming.spark_query_progress": streams.progress,
        "streaming.orchestrator_*": batch.log(),
        "streaming.orchestrator_failed": batch.failure,
        "streaming.dimension_changed": streams.dimension_changed,
        # What nobody knows: an app's own signals.
        "*_failed": batch.failure,
        "*": batch.log(),
    }
)


@dataclass(frozen=True)
class SignalBridge:
    """What becomes of each signal in Dagster: the package's rules, and yours before them.

    A rule takes the signal's payload and a ``BridgeContext``; it gives Dagster events (``AssetObservation``,
    ``AssetCheckEvaluation``, ``AssetMaterialization``) and the outputs of ``bridge_outputs`` (``StepLog``,
    ``AssetFacts`` …). It must not call Spark. None in a rule's place drops the signal, counted::

        def loaded(payload, context):
            key = context.asset_of(payload.extra["entity_id"])
            yield AssetObservation(key, metadata={"files": payload.extra["files"]})

        bridge = SignalBridge({"orders.files_loaded": loaded, "streaming.*": None})
        yield from kindling.run(context, bridge=bridge).stream()

    Args:
        rules: By signal name, or pattern with ``*``; an exact name comes before a pattern, a longer pattern
            before a shorter one. An app's own signals are heard when an emitter declares them in EMITS, when
            they were created before the run, or when they are named here exactly.
        interval: Seconds between two events of one signal on one asset, once there were more than ``burst``;
            those between are added up into the next.
        burst: So many of each signal and asset go through at once. High-rate signals have one.

    Raises:
        DeclarationError: A rule is neither a function nor None.
    """

    rules: Mapping[str, Rule | None] = field(default_factory=dict)
    interval: float = INTERVAL
    burst: int = BURST

    def __post_init__(self) -> None:
        for pattern, rule in self.rules.items():
            given: Any = rule
            if given is not None and not callable(given):
                raise DeclarationError(
                    f"The bridge's rule for {pattern} is a {type(given).__name__}, not a function.",
                    "Give it a function of (payload, context), or None to drop the signal.",
                )

    def rule_for(self, signal: str) -> Rule | None:
        """The rule of a signal; None when it is dropped."""
        if signal not in self._found:
            self._found[signal] = self._find(signal)
        return self._found[signal]

    @property
    def signals(self) -> tuple[str, ...]:
        """The names, without patterns, that the user's rules are for."""
        return tuple(name for name in self.rules if "*" not in name)

    @cached_property
    def _found(self) -> dict[str, Rule | None]:
        return {}

    def _find(self, signal: str) -> Rule | None:
        for rules in (self.rules, DEFAULT_RULES):
            if signal in rules:
                return rules[signal]
            fitting = [pattern for pattern in rules if fnmatchcase(signal, pattern)]
            if fitting:
                return rules[max(fitting, key=len)]
        return None
