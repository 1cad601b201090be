"""Introspection: every signal there is, who emits it, its payload, its subscribers, its Dagster event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final

from kindling.signaling import SignalEmitter, SignalProvider

from kindling_dagster.signals.errors import SignalError
from kindling_dagster.signals.payloads import (
    PAYLOAD_BY_SIGNAL,
    Payload,
    field_types,
    payload_class,
    wire_fields,
)
from kindling_dagster.signals.receivers import Subscriber, signals_of, subscribers_of
from kindling_dagster.signals.scan import EmitterClass, scan_package
from kindling_dagster.signals.summaries import SUMMARIES

KINDLING: Final = "kindling"
OURS: Final = "kindling_dagster"


class DagsterEvent(str, Enum):
    """What a signal becomes in Dagster."""

    MATERIALIZATION = "materialization"
    """MaterializeResult in the step, AssetMaterialization outside one."""
    MATERIALIZATION_METADATA = "materialization metadata"
    FAILURE = "failure"
    """The step's failure, with the structured error as metadata."""
    STEP_LOG = "step log"
    """A line in the step's log, with metadata."""
    ASSET_METADATA = "asset metadata"
    """Metadata of the asset the entity is, in its next event."""
    OBSERVATION = "observation"
    """AssetObservation on the asset that the stream or the entity is."""
    CHECK = "check evaluation"
    """AssetCheckEvaluation."""


@dataclass(frozen=True)
class FieldSpec:
    """One field of a signal's payload. ``type`` is as written in Python; ``required`` ones are always sent."""

    name: str
    type: str
    required: bool


@dataclass(frozen=True)
class SignalSpec:
    """One signal.

    Args:
        name: Its name.
        summary: When it is sent, one sentence.
        payload: The class of its payload.
        fields: What it carries.
        emitters: The classes that declare or emit it, as ``module.Class``.
        dagster_events: What it becomes in Dagster.
        high_rate: It may come many times a second; whoever passes it on aggregates.
    """

    name: str
    summary: str
    payload: type[Payload]
    fields: tuple[FieldSpec, ...]
    emitters: tuple[str, ...]
    dagster_events: tuple[DagsterEvent, ...]
    high_rate: bool = False

    @property
    def namespace(self) -> str:
        """The part before the last dot."""
        return self.name.rpartition(".")[0]

    @property
    def dagster_event(self) -> str:
        """What it becomes in Dagster, as text."""
        return ", ".join(event.value for event in self.dagster_events)

    @property
    def subject(self) -> str:
        """The field that names the entity, pipe or stream the signal is about; empty when there is none."""
        names = {each.name for each in self.fields}
        return next((name for name in _SUBJECTS if name in names), "")


_SUBJECTS: Final = (
    "output_entity_id", "entity_id", "source_entity_id", "dest_entity_id", "pipe_id", "reader_id", "query_id",
    "failed_pipe",
)  # fmt: skip

_LOG = (DagsterEvent.STEP_LOG,)
_OBSERVATION = (DagsterEvent.OBSERVATION,)
_HEALTH = (DagsterEvent.OBSERVATION, DagsterEvent.CHECK)
_ASSET = (DagsterEvent.ASSET_METADATA,)
_FAILURE = (DagsterEvent.FAILURE,)
_ASSET_FAILURE = (DagsterEvent.FAILURE, DagsterEvent.ASSET_METADATA)

# A namespace's events, then the exceptions by name.
_EVENTS_BY_NAMESPACE: Final[Mapping[str, tuple[DagsterEvent, ...]]] = {
    "datapipes": _LOG,
    "orchestrator": _LOG,
    "stage": _LOG,
    "persist": _LOG,
    "read": _ASSET,
    "entity": _ASSET,
    "watermark": _ASSET,
    "streaming": _OBSERVATION,
    "file_ingestion": _LOG,
    "app": _LOG,
    "job": _LOG,
    "config": _LOG,
    "signals": _LOG,
}
_EVENTS_BY_NAME: Final[Mapping[str, tuple[DagsterEvent, ...]]] = {
    "persist.after_persist": (DagsterEvent.MATERIALIZATION,),
    "persist.persist_failed": _ASSET_FAILURE,
    "persist.watermark_saved": _ASSET,
    "datapipes.pipe_failed": _ASSET_FAILURE,
    "datapipes.run_failed": _FAILURE,
    "datapipes.lineage_applied": (DagsterEvent.MATERIALIZATION_METADATA,),
    "datapipes.version_changed": (DagsterEvent.MATERIALIZATION_METADATA,),
    "datapipes.lineage_audit": _HEALTH,
    "orchestrator.execution_failed": _FAILURE,
    "orchestrator.pipe_failed": _ASSET_FAILURE,
    "orchestrator.pipe_timed_out": _ASSET_FAILURE,
    "orchestrator.pipe_stuck": _ASSET_FAILURE,
    "orchestrator.cache_recommended": _ASSET,
    "orchestrator.cache_hit": _ASSET,
    "orchestrator.cache_miss": _ASSET,
    "orchestrator.cache_released": _ASSET,
    "stage.execute_failed": _FAILURE,
    "entity.ensure_failed": _ASSET_FAILURE,
    "entity.merge_failed": _ASSET_FAILURE,
    "entity.append_failed": _ASSET_FAILURE,
    "entity.write_failed": _ASSET_FAILURE,
    "entity.replace_failed": _ASSET_FAILURE,
    "watermark.save_failed": _ASSET_FAILURE,
    "file_ingestion.process_failed": _FAILURE,
    "file_ingestion.file_failed": _FAILURE,
    "streaming.query_healthy": _HEALTH,
    "streaming.query_unhealthy": _HEALTH,
    "streaming.query_stalled": _HEALTH,
    "streaming.query_exception": _HEALTH,
    "streaming.recovery_exhausted": _HEALTH,
    "streaming.dimension_changed": _HEALTH,
    "streaming.orchestrator_started": _LOG,
    "streaming.orchestrator_completed": _LOG,
    "streaming.orchestrator_stopped": _LOG,
    "streaming.orchestrator_failed": _FAILURE,
}
_HIGH_RATE: Final = frozenset({"streaming.spark_query_progress", "streaming.spark_query_idle"})


def is_high_rate(name: str) -> bool:
    """Whether the signal may come many times a second. Quick: asks for nothing else the catalog knows."""
    return name in _HIGH_RATE


@cache
def get_all_signals() -> Mapping[str, SignalSpec]:
    """Every signal Kindling and this package emit, by name, sorted. Imports and starts nothing."""
    emitters = _emitters_by_signal()
    return {name: _spec(name, emitters.get(name, ())) for name in sorted(PAYLOAD_BY_SIGNAL)}


def describe_signal(name: str) -> SignalSpec:
    """The signal's entry in ``get_all_signals``.

    Raises:
        SignalError: There is no such signal.
    """
    known = get_all_signals()
    if name not in known:
        raise SignalError(
            f"There is no signal {name!r}.", "`kindling-dagster signals list` has all there are."
        )
    return known[name]


def _spec(name: str, emitters: tuple[str, ...]) -> SignalSpec:
    payload = payload_class(name)
    required, optional = wire_fields(payload, name)
    types = {**field_types(payload), "timestamp": "float"}
    return SignalSpec(
        name=name,
        summary=SUMMARIES[name],
        payload=payload,
        fields=tuple(FieldSpec(each, types[each], each in required) for each in (*required, *optional)),
        emitters=emitters,
        dagster_events=_EVENTS_BY_NAME.get(name) or _EVENTS_BY_NAMESPACE[name.partition(".")[0]],
        high_rate=name in _HIGH_RATE,
    )


def _emitters_by_signal() -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for package in (KINDLING, OURS):
        scan = scan_package(package)
        for emitter in scan.emitters:
            for signal in emitter.signals:
                found.setdefault(signal, {})[emitter.path] = None
        for site in scan.sites:
            # Some of Kindling's signals are in no EMITS list; the class that emits them is known all the same.
            if site.signal not in found and site.emitter:
                found.setdefault(site.signal, {})[f"{site.module}.{site.emitter}"] = None
    return {signal: tuple(classes) for signal, classes in found.items()}


def list_emitters(packages: Sequence[str] = (KINDLING, OURS)) -> tuple[EmitterClass, ...]:
    """Every class with an EMITS list: those in the packages' sources, and those of loaded classes elsewhere.

    Nothing is imported for it, so no Spark is needed.

    Args:
        packages: Installed packages to look through; add your own.

    Raises:
        SignalError: A package is not installed.
    """
    found = {emitter.path: emitter for package in packages for emitter in scan_package(package).emitters}
    for loaded in _loaded_emitters():
        found.setdefault(loaded.path, loaded)
    return tuple(found[path] for path in sorted(found))


def declared_signals() -> frozenset[str]:
    """The signals that emitter classes loaded in this process declare in EMITS, an app's own among them."""
    return frozenset(signal for loaded in _loaded_emitters() for signal in loaded.signals)


def _loaded_emitters() -> Iterator[EmitterClass]:
    for loaded in _subclasses(SignalEmitter):
        signals = loaded.__dict__.get("EMITS")
        if signals:
            yield EmitterClass(loaded.__qualname__, loaded.__module__, tuple(signals))


def _subclasses(base: type[Any]) -> list[type[Any]]:
    found: dict[type[Any], None] = {}
    waiting = [base]
    while waiting:
        children: list[type[Any]] = waiting.pop().__subclasses__()
        waiting.extend(child for child in children if child not in found)
        found.update(dict.fromkeys(children))
    return list(found)


def payload_schema(name: str) -> dict[str, Any]:
    """The signal's fields as a JSON Schema, as ``Payload.to_data()["fields"]`` holds them.

    Raises:
        SignalError: There is no such signal.
    """
    spec = describe_signal(name)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        "description": spec.summary,
        "type": "object",
        "properties": {each.name: _json_type(each.type) for each in spec.fields},
        "required": [each.name for each in spec.fields if each.required],
        "additionalProperties": True,
    }


_JSON_TYPES: Final[Mapping[str, dict[str, Any]]] = {
    "str": {"type": ["string", "null"]},
    "int": {"type": ["integer", "null"]},
    "float": {"type": ["number", "null"]},
    "bool": {"type": ["boolean", "null"]},
    "datetime | str": {"type": ["string", "null"], "format": "date-time"},
    "Sequence[str]": {"type": ["array", "null"], "items": {"type": "string"}},
    "Mapping[str, Any]": {"type": ["object", "null"]},
}


def _json_type(written: str) -> dict[str, Any]:
    return dict(_JSON_TYPES[written])


def subscribers(provider: SignalProvider, name: str) -> tuple[Subscriber, ...]:
    """Who subscribes to a signal at a provider; empty when nobody ever asked for that signal."""
    signal = provider.get_signal(name)
    return () if signal is None else subscribers_of(signal)


def live_signals(provider: SignalProvider) -> Mapping[str, tuple[Subscriber, ...]]:
    """The signals a provider has created and who subscribes to each, by name, also unknown ones."""
    return {name: subscribers_of(signal) for name, signal in sorted(signals_of(provider).items())}
