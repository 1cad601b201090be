"""Payloads of entities: registration, reading and writing, persists, watermarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kindling_dagster.signals.payloads.base import FailurePayload, Payload


@dataclass(kw_only=True)
class EntityRegisterPayload(Payload):
    """An entity entered the registry; for an SCD2 entity also its current-row companion."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "entity.registered": "entity_id entity_name",
        "entity.scd2_companion_registered": "entity_id companion_entity_id",
    }

    entity_id: str | None = None
    entity_name: str | None = None
    companion_entity_id: str | None = None


@dataclass(kw_only=True)
class EntityResolvePayload(Payload):
    """A pipe's input is resolved to a frame: who reads it, and whether by watermark.

    ``entity``, ``pipe`` and ``df`` are live objects in Kindling; here they are descriptions.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "read.resolve_read": "entity entity_id pipe pipe_id use_watermark",
        "read.after_read": "df entity_id pipe_id used_watermark",
    }

    entity: str | None = None
    entity_id: str | None = None
    pipe: str | None = None
    pipe_id: str | None = None
    use_watermark: bool | None = None
    used_watermark: bool | None = None
    df: str | None = None


@dataclass(kw_only=True)
class EntityAccessPayload(Payload):
    """A provider is about to touch an entity's table, or has. ``duration_seconds`` comes after."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "entity.before_ensure_table": "entity_id entity_name table_path table_name",
        "entity.after_ensure_table": "entity_id entity_name table_path table_name duration_seconds",
        "entity.before_read": "entity_id entity_name",
        "entity.after_read": "entity_id entity_name duration_seconds",
        "entity.before_merge": "entity_id entity_name merge_columns",
        "entity.after_merge": "entity_id entity_name duration_seconds",
        "entity.before_append": "entity_id entity_name",
        "entity.after_append": "entity_id entity_name duration_seconds",
        "entity.before_write": "entity_id entity_name",
        "entity.after_write": "entity_id entity_name duration_seconds",
        "entity.before_replace": "entity_id entity_name",
        "entity.after_replace": "entity_id entity_name duration_seconds",
    }

    entity_id: str | None = None
    entity_name: str | None = None
    table_path: str | None = None
    table_name: str | None = None
    merge_columns: Sequence[str] | None = None
    duration_seconds: float | None = None


@dataclass(kw_only=True)
class EntityFailedPayload(FailurePayload):
    """A provider could not do what it was asked to with an entity's table."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "entity.ensure_failed": (
            "entity_id entity_name table_path table_name error error_type duration_seconds"
        ),
        "entity.merge_failed": "entity_id error error_type duration_seconds",
        "entity.append_failed": "entity_id error error_type duration_seconds",
        "entity.write_failed": "entity_id error error_type duration_seconds",
        "entity.replace_failed": "entity_id error error_type duration_seconds",
    }

    entity_id: str | None = None
    entity_name: str | None = None
    table_path: str | None = None
    table_name: str | None = None
    duration_seconds: float | None = None


@dataclass(kw_only=True)
class PersistPayload(Payload):
    """A pipe's output is about to be written, or is committed. ``df`` is a description.

    ``persist_id`` is the same in all signals of one write.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "persist.before_persist": "df pipe_id source_entity_id output_entity_id persist_id",
        "persist.after_persist": ("df pipe_id source_entity_id output_entity_id duration_seconds persist_id"),
    }

    df: str | None = None
    pipe_id: str | None = None
    source_entity_id: str | None = None
    output_entity_id: str | None = None
    duration_seconds: float | None = None
    persist_id: str | None = None


@dataclass(kw_only=True)
class PersistFailedPayload(FailurePayload):
    """A pipe's output could not be written; its watermark stays where it was."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "persist.persist_failed": (
            "pipe_id source_entity_id output_entity_id error error_type duration_seconds persist_id"
        ),
    }

    pipe_id: str | None = None
    source_entity_id: str | None = None
    output_entity_id: str | None = None
    duration_seconds: float | None = None
    persist_id: str | None = None


@dataclass(kw_only=True)
class WatermarkPayload(Payload):
    """How far a reader has read a source entity. ``cursor`` is the provider's text (for Delta a version).

    ``reader_id`` is the pipe's id; ``version`` the cursor as a number where it is one.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "watermark.before_get": "source_entity_id reader_id",
        "watermark.watermark_found": "source_entity_id reader_id cursor",
        "watermark.watermark_missing": "source_entity_id reader_id",
        "watermark.before_save": "source_entity_id reader_id cursor last_execution_id",
        "watermark.after_save": "source_entity_id reader_id cursor last_execution_id",
        "watermark.before_read_changes": "entity_id pipe_id pipe_name",
        "watermark.after_read_changes": (
            "entity_id pipe_id pipe_name cursor new_cursor has_data is_initial_load"
        ),
        "watermark.no_new_data": "entity_id pipe_id pipe_name cursor",
        "persist.watermark_saved": "pipe_id source_entity_id cursor version persist_id",
    }

    source_entity_id: str | None = None
    entity_id: str | None = None
    reader_id: str | None = None
    pipe_id: str | None = None
    pipe_name: str | None = None
    cursor: str | None = None
    new_cursor: str | None = None
    version: int | None = None
    has_data: bool | None = None
    is_initial_load: bool | None = None
    last_execution_id: str | None = None
    persist_id: str | None = None


@dataclass(kw_only=True)
class WatermarkFailedPayload(FailurePayload):
    """A watermark could not be saved: the next run reads the same slice again."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "watermark.save_failed": "source_entity_id reader_id cursor error error_type",
    }

    source_entity_id: str | None = None
    reader_id: str | None = None
    cursor: str | None = None
