"""Payloads of services around the pipes: file ingestion, deployment, configuration, signals themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from kindling_dagster.signals.payloads.base import FailurePayload, Payload


@dataclass(kw_only=True)
class FileIngestionPayload(Payload):
    """Files of a landing folder become rows: one call (``process``), one file, one table's write.

    ``matched`` is False for a file that fits no entry; ``batch_id`` is the call's, or the micro-batch's.
    """

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "file_ingestion.before_process": "path file_count batch_id",
        "file_ingestion.after_process": (
            "path success_files failed_files tables_written duration_seconds batch_id"
        ),
        "file_ingestion.before_file": "filename batch_id",
        "file_ingestion.after_file": "filename dest_entity_id batch_id matched?",
        "file_ingestion.file_moved": "filename source_path dest_path",
        "file_ingestion.batch_written": "dest_entity_id file_count",
    }

    path: str | None = None
    filename: str | None = None
    dest_entity_id: str | None = None
    matched: bool | None = None
    source_path: str | None = None
    dest_path: str | None = None
    file_count: int | None = None
    success_files: int | None = None
    failed_files: int | None = None
    tables_written: int | None = None
    duration_seconds: float | None = None
    batch_id: str | None = None


@dataclass(kw_only=True)
class FileIngestionFailedPayload(FailurePayload):
    """A file, or the whole call, could not be ingested."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "file_ingestion.process_failed": (
            "path error error_type success_files failed_files duration_seconds batch_id"
        ),
        "file_ingestion.file_failed": "filename error error_type batch_id",
    }

    path: str | None = None
    filename: str | None = None
    success_files: int | None = None
    failed_files: int | None = None
    duration_seconds: float | None = None
    batch_id: str | None = None


@dataclass(kw_only=True)
class DeploymentPayload(Payload):
    """Kindling deploys an app, or creates, runs, cancels or looks at a platform's job."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "app.before_deploy": "app_path app_name platform environment",
        "app.after_deploy": "app_path app_name storage_path platform environment",
        "job.before_create": "job_name platform",
        "job.after_create": "job_name job_id platform",
        "job.before_run": "job_id parameters",
        "job.after_run": "job_id run_id parameters",
        "job.before_cancel": "run_id",
        "job.after_cancel": "run_id success",
        "job.status_checked": "run_id status is_complete",
    }

    app_path: str | None = None
    app_name: str | None = None
    storage_path: str | None = None
    platform: str | None = None
    environment: str | None = None
    job_name: str | None = None
    job_id: str | None = None
    run_id: str | None = None
    parameters: Mapping[str, Any] | None = None
    success: bool | None = None
    status: str | None = None
    is_complete: bool | None = None


@dataclass(kw_only=True)
class DeploymentFailedPayload(FailurePayload):
    """A deployment or something asked of a platform's job failed."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "app.deploy_failed": "app_path app_name platform error error_type",
        "job.create_failed": "job_name platform error error_type",
        "job.run_failed": "job_id parameters error error_type",
        "job.cancel_failed": "run_id error error_type",
    }

    app_path: str | None = None
    app_name: str | None = None
    platform: str | None = None
    job_name: str | None = None
    job_id: str | None = None
    run_id: str | None = None
    parameters: Mapping[str, Any] | None = None


@dataclass(kw_only=True)
class ConfigPayload(Payload):
    """Kindling's settings are about to be read again, or were. ``changes`` holds (old, new) by key.

    The settings as a whole are never held: they may hold anything, also secrets under harmless names.
    """

    DESCRIBED = frozenset({"old_config", "new_config"})

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "config.pre_reload": "old_config",
        "config.post_reload": "changes version new_config",
    }

    old_config: str | None = None
    new_config: str | None = None
    changes: Mapping[str, Any] | None = None
    version: int | None = None


@dataclass(kw_only=True)
class ConfigFailedPayload(FailurePayload):
    """Kindling's settings could not be read again; the old ones stay."""

    DESCRIBED = frozenset({"old_config"})

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "config.reload_failed": "error old_config",
    }

    old_config: str | None = None


@dataclass(kw_only=True)
class SubscriberFailedPayload(FailurePayload):
    """A subscriber of another signal raised. ``subscriber`` is its module and name."""

    SIGNALS: ClassVar[Mapping[str, str]] = {
        "signals.subscriber_failed": "failed_signal subscriber emitter error error_type",
    }

    failed_signal: str | None = None
    subscriber: str | None = None
    emitter: str | None = None


@dataclass(kw_only=True)
class UnknownPayload(Payload):
    """A signal no payload class knows; everything it carries is in ``extra``."""
