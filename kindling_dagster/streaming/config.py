"""Configuration of streams: from pipe tags and ``kindling.streaming.*`` settings to one StreamingQueryConfig each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kindling_dagster.manifest import Manifest
from kindling_dagster.streaming.model import StreamingQueryConfig


def stream_configs(
    manifest: Manifest, pipe_ids: Iterable[str] | None = None, overrides: Mapping[str, Any] | None = None
) -> dict[str, StreamingQueryConfig]:
    """How each stream is started and watched, by pipe id; all pipes tagged as streams unless some are named."""
    raise NotImplementedError
