"""The run config of a Kindling step: what the launchpad offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import Config
from pydantic import Field

from kindling_dagster.options import OptionLayer


class KindlingRunConfig(Config):
    """How one run of Kindling pipes goes. What is left out comes from the resource, then the settings."""

    mode: str | None = Field(
        default=None,
        description="incremental: only new data, by Kindling's watermarks. full_refresh: read everything. "
        "Left out: as the app declares.",
    )
    full_refresh_pipes: list[str] = Field(
        default=[], description="Pipes (ids or globs) that read everything, whatever the mode."
    )
    parallel: bool | None = Field(default=None, description="Run independent pipes at the same time.")
    max_workers: int | None = Field(default=None, description="How many pipes may run at once (4).")
    barrier: bool | None = Field(
        default=None, description="Finish one generation of pipes before the next starts."
    )
    pipe_timeout: float | None = Field(
        default=None, description="Seconds after which a pipe is cancelled; 0 for no limit."
    )
    error_strategy: str | None = Field(
        default=None, description="skip_dependents (default), continue or fail_fast."
    )
    retries: int | None = Field(default=None, description="How often a failed pipe is tried again.")
    backoff: float | None = Field(
        default=None, description="Seconds before the first retry; doubles with each further one."
    )
    auto_cache: bool | None = Field(
        default=None, description="Cache entities that several pipes of the run read."
    )
    cache_level: str | None = Field(
        default=None, description="Spark's storage level for cached entities (MEMORY_AND_DISK)."
    )
    cache_max_bytes: int | None = Field(
        default=None, description="Larger entities are not cached; 0 for no limit."
    )
    entity_tags: dict[str, dict[str, str]] = Field(
        default={}, description="Tag overrides for this run by entity id, for example a read window."
    )
    reprocess: dict[str, str] = Field(
        default={},
        description="By pipe, a version whose rows are recomputed, and no others: "
        '{"silver.clean": "0.3.1"}. Needs lineage on the rows.',
    )

    def layer(self) -> OptionLayer:
        """The options as one layer of the precedence."""
        return option_layer(self.model_dump())


def option_layer(config: Mapping[str, Any]) -> OptionLayer:
    """An option layer from a step's config as Dagster hands it over (a plain mapping)."""
    names = OptionLayer.__dataclass_fields__
    values = {name: value for name, value in config.items() if name in names}
    values["full_refresh_pipes"] = tuple(values.get("full_refresh_pipes") or ())
    return OptionLayer(**values)
