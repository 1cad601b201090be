"""Execution options: one precedence, from the most specific to the default. Pure; free of Dagster.

For each pipe, the first that says something wins:

1. the pipe's own Kindling tags (``dagster/timeout``, ``dagster/retries``, ``dagster/backoff``,
   ``dagster/full_refresh``) and ``kindling.execution.pipes.<pipe id>.retry`` in the settings,
2. the run's config (the launchpad),
3. the resource's fields,
4. ``kindling.execution.*`` in the settings,
5. the defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from kindling_dagster.dag.scheduling import ErrorStrategy
from kindling_dagster.engines.base import PipeOptions, RunOptions
from kindling_dagster.errors import SelectionError
from kindling_dagster.flags import read_flag
from kindling_dagster.lineage.reprocess import check_reprocess
from kindling_dagster.manifest import Manifest, PipeSpec
from kindling_dagster.windows import windows_of

_SETTINGS = "kindling.execution."
CACHE_LEVELS = ("MEMORY_AND_DISK", "MEMORY_ONLY", "DISK_ONLY", "MEMORY_AND_DISK_DESER", "OFF_HEAP")
"""Spark's storage levels that fit a shared frame, as ``pyspark.StorageLevel`` names them."""


@dataclass(frozen=True)
class OptionLayer:
    """Options as one place gives them; None where it says nothing.

    Args:
        mode: ``incremental`` (Kindling's watermarks) or ``full_refresh``; None for as declared.
        full_refresh_pipes: Pipes (ids or globs) that read everything, whatever the mode.
        max_workers: How many pipes may run at once when ``parallel``.
        parallel: Run independent pipes at the same time.
        barrier: Finish one generation before the next starts.
        pipe_timeout: Seconds after which a pipe is cancelled; 0 for no limit.
        error_strategy: ``fail_fast``, ``continue`` or ``skip_dependents``.
        retries: How often a failed pipe is tried again.
        backoff: Seconds before the first retry; doubles with each further one.
        auto_cache: Cache entities that several pipes of the run read.
        cache_level: Spark's storage level for that, by name.
        cache_max_bytes: Larger entities are not cached; 0 for no limit.
    """

    mode: str | None = None
    full_refresh_pipes: tuple[str, ...] = ()
    max_workers: int | None = None
    parallel: bool | None = None
    barrier: bool | None = None
    pipe_timeout: float | None = None
    error_strategy: str | None = None
    retries: int | None = None
    backoff: float | None = None
    auto_cache: bool | None = None
    cache_level: str | None = None
    cache_max_bytes: int | None = None

    def over(self, weaker: OptionLayer) -> OptionLayer:
        """This layer where it says something, ``weaker`` elsewhere."""
        merged = {
            item.name: getattr(weaker, item.name)
            if getattr(self, item.name) in (None, ())
            else getattr(self, item.name)
            for item in fields(self)
        }
        return OptionLayer(**merged)

    @staticmethod
    def from_settings(settings: Mapping[str, Any]) -> OptionLayer:
        """What ``kindling.execution.*`` says.

        Raises:
            SelectionError: A value is not of its option's type.
        """

        def number(name: str, kind: type) -> Any:
            return _number(settings.get(_SETTINGS + name), kind, _SETTINGS + name)

        def flag(name: str) -> bool | None:
            return _flag(settings.get(_SETTINGS + name), _SETTINGS + name)

        return OptionLayer(
            max_workers=number("max_workers", int),
            parallel=flag("parallel"),
            barrier=flag("barrier"),
            pipe_timeout=number("pipe_timeout", float),
            error_strategy=_text(settings.get(_SETTINGS + "error_strategy")),
            retries=number("retry.attempts", int),
            backoff=number("retry.interval_seconds", float),
            auto_cache=flag("auto_cache"),
            cache_level=settings.get(_SETTINGS + "cache_level"),
            cache_max_bytes=number("cache_max_bytes", int),
        )


def resolve_options(
    manifest: Manifest,
    pipe_ids: Iterable[str],
    *,
    run: OptionLayer | None = None,
    resource: OptionLayer | None = None,
    watermarks: bool = False,
    entity_tags: Mapping[str, Mapping[str, str]] | None = None,
    reprocess: Mapping[str, str] | None = None,
    of_pipes: Iterable[str] | None = None,
) -> RunOptions:
    """All options of one execution, resolved for each of its pipes.

    Args:
        manifest: The app's manifest; its settings and pipe tags take part.
        pipe_ids: The pipes that will run.
        run: What the run's config says.
        resource: What the resource says.
        watermarks: Turn Kindling's watermarks on where its platform leaves them off.
        entity_tags: Per-run tag overrides by entity id. Pipes that write an entity with a window among
            them read all of it, whatever the mode, and nothing is cached.
        reprocess: By pipe, the version whose rows are recomputed instead of all; these pipes read
            everything, whatever the mode, and nothing is cached.
        of_pipes: The pipes that the options may name, where only some of them run; those that run when None.

    Raises:
        LineageError: A pipe of ``reprocess`` cannot recompute single rows.
        SelectionError: An option has an unknown or impossible value; names it and where it stands.
    """
    run = run or OptionLayer()
    layer = run.over(resource or OptionLayer()).over(OptionLayer.from_settings(manifest.settings))
    ErrorStrategy.of(layer.error_strategy or ErrorStrategy.SKIP_DEPENDENTS.value)
    if layer.mode not in (None, "incremental", "full_refresh"):
        raise SelectionError(f"There is no mode {layer.mode!r}.", "Use incremental or full_refresh.")
    if layer.max_workers is not None and layer.max_workers < 1:
        raise SelectionError(f"max_workers is {layer.max_workers}.", "It must be at least 1.")
    selected = [manifest.pipes_by_id[pipe_id] for pipe_id in pipe_ids]
    known = list(of_pipes) if of_pipes is not None else [pipe.id for pipe in selected]
    _check_reprocess(manifest, reprocess or {}, known)
    again = {pipe.id: reprocess[pipe.id] for pipe in selected if reprocess and pipe.id in reprocess}
    windows = windows_of(entity_tags or {})
    whole = {*again, *(pipe.id for pipe in selected if pipe.output_entity_id in windows)}
    for pattern in layer.full_refresh_pipes:
        if not any(fnmatchcase(pipe_id, pattern) for pipe_id in known):
            raise SelectionError(
                f"full_refresh_pipes names {pattern!r}, which matches no pipe of this run.",
                f"The run's pipes are {', '.join(known)}.",
            )
    return RunOptions(
        max_workers=layer.max_workers or 4,
        parallel=bool(layer.parallel),
        barrier=bool(layer.barrier),
        error_strategy=layer.error_strategy or ErrorStrategy.SKIP_DEPENDENTS.value,
        watermarks=watermarks or layer.mode == "incremental",
        # A shared frame would stand in for the one that was narrowed.
        auto_cache=bool(layer.auto_cache) and not again and not windows,
        cache_level=_cache_level(layer.cache_level),
        cache_max_bytes=layer.cache_max_bytes or None,
        entity_tags=dict(entity_tags or {}),
        pipes={
            pipe.id: replace(options, full_refresh=True) if pipe.id in whole else options
            for pipe in selected
            for options in (_pipe_options(pipe, layer, manifest),)
        },
        reprocess=again,
    )


def _check_reprocess(manifest: Manifest, versions: Mapping[str, str], known: Sequence[str]) -> None:
    unknown = sorted(set(versions) - set(known))
    if unknown:
        raise SelectionError(
            f"reprocess names {', '.join(unknown)}, which are no pipes of this run.",
            f"The run's pipes are {', '.join(known)}.",
        )
    check_reprocess(manifest, versions)


def _pipe_options(pipe: PipeSpec, layer: OptionLayer, manifest: Manifest) -> PipeOptions:
    # Kindling's settings have lower-case names.
    retry = f"{_SETTINGS}pipes.{pipe.id.lower()}.retry."
    where = f"pipe {pipe.id}"

    def first(tag: str, setting: str, kind: type, fallback: Any) -> Any:
        for value in (pipe.tags.get(f"dagster/{tag}"), manifest.settings.get(retry + setting)):
            number = _number(value, kind, f"dagster/{tag} of {where}")
            if number is not None:
                return number
        return fallback

    timeout = first("timeout", "", float, layer.pipe_timeout)
    retries = first("retries", "attempts", int, layer.retries or 0)
    named = any(fnmatchcase(pipe.id, pattern) for pattern in layer.full_refresh_pipes)
    tagged = _flag(pipe.tags.get("dagster/full_refresh"), f"dagster/full_refresh of {where}")
    return PipeOptions(
        full_refresh=named or bool(tagged) or (layer.mode == "full_refresh"),
        timeout=timeout if timeout and timeout > 0 else None,
        attempts=max(0, retries) + 1,
        backoff=first(
            "backoff", "interval_seconds", float, layer.backoff if layer.backoff is not None else 1.0
        ),
    )


def _cache_level(level: str | None) -> str:
    if level is None:
        return RunOptions.cache_level
    if level.upper() not in CACHE_LEVELS:
        raise SelectionError(f"There is no cache_level {level!r}.", f"Use one of {', '.join(CACHE_LEVELS)}.")
    return level.upper()


def _number(value: object, kind: type, name: str) -> Any:
    if value is None or value == "":
        return None
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise SelectionError(
            f"Execution option {name} is {value!r}.", f"It must be a number ({kind.__name__})."
        ) from error


def _flag(value: object, name: str) -> bool | None:
    return read_flag(value, f"Execution option {name}", SelectionError)


def _text(value: object) -> str | None:
    return None if value is None else str(value).strip().lower()
