"""Which of an app's entities become assets: Kindling ids with globs, tags, and Dagster's selection strings."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from dagster import AssetKey, AssetSelection, AssetSpec, multi_asset

from kindling_dagster.errors import SelectionError
from kindling_dagster.manifest import EntitySpec, PipeSpec

Selection = str | Sequence[str]

# What only Dagster's selection language has; a Kindling id or glob holds none of it.
_DAGSTER_SYNTAX = re.compile(
    r"""[+()"=]|(^|\s)(and|or|not)\s|^(key|group|kind|owner|code_location|status|sinks|roots)\s*[:(]"""
)


def select_entities(
    candidates: Mapping[str, tuple[EntitySpec, Sequence[PipeSpec]]],
    specs: Mapping[str, AssetSpec],
    select: Selection | None = None,
    exclude: Selection | None = None,
) -> set[str]:
    """Ids of the candidates that ``select`` names and ``exclude`` does not.

    Each term of a selection is one of

    - a Kindling entity or pipe id, with globs (``gold.*``, also written ``gold/*``),
    - ``tag:name=value`` or ``tag:name`` over Kindling's tags of the entity and its pipes, with globs,
    - a selection string of Dagster's (``key:"gold/*"``, ``group:gold``, ``+silver/orders``).

    Terms of a list add up.

    Args:
        candidates: Entities with the pipes that write them, by entity id.
        specs: Their asset specs, by entity id.
        select: What to take; everything when None.
        exclude: What to leave out; nothing when None.

    Raises:
        SelectionError: A term matches nothing or cannot be parsed; names close matches.
    """
    chosen = set(candidates) if select is None else _matches(candidates, specs, select, "select")
    if exclude is not None:
        chosen -= _matches(candidates, specs, exclude, "exclude")
    return chosen


def _matches(
    candidates: Mapping[str, tuple[EntitySpec, Sequence[PipeSpec]]],
    specs: Mapping[str, AssetSpec],
    selection: Selection,
    argument: str,
) -> set[str]:
    found: set[str] = set()
    for term in [selection] if isinstance(selection, str) else selection:
        matched = _match_term(candidates, specs, term.strip())
        if not matched:
            raise SelectionError(
                f"{argument}={term!r} matches no asset of this app.", _close_matches(term, candidates)
            )
        found |= matched
    return found


def _match_term(
    candidates: Mapping[str, tuple[EntitySpec, Sequence[PipeSpec]]],
    specs: Mapping[str, AssetSpec],
    term: str,
) -> set[str]:
    if term.startswith("tag:") and not re.search(r"\s(and|or)\s|[+()]", term):
        return _match_tag(candidates, term.removeprefix("tag:"))
    if _DAGSTER_SYNTAX.search(term):
        return _match_dagster(specs, term)
    pattern = term.replace("/", ".")
    return {
        entity_id
        for entity_id, (_, pipes) in candidates.items()
        if fnmatchcase(entity_id, pattern) or any(fnmatchcase(pipe.id, pattern) for pipe in pipes)
    }


def _match_tag(candidates: Mapping[str, tuple[EntitySpec, Sequence[PipeSpec]]], expression: str) -> set[str]:
    name, _, value = expression.partition("=")
    name, value = name.strip().strip('"'), value.strip().strip('"') or "*"

    def has(tags: Mapping[str, str]) -> bool:
        return name in tags and fnmatchcase(str(tags[name]), value)

    return {
        entity_id
        for entity_id, (entity, pipes) in candidates.items()
        if has(entity.tags) or any(has(pipe.tags) for pipe in pipes)
    }


def _match_dagster(specs: Mapping[str, AssetSpec], term: str) -> set[str]:
    by_key: Mapping[AssetKey, str] = {spec.key: entity_id for entity_id, spec in specs.items()}

    # Selections resolve over asset definitions; this one is never run.
    @multi_asset(specs=list(specs.values()), name="kindling_selection")
    def unused():  # type: ignore[no-untyped-def]  # Dagster would take a return type for an output's
        """Never run."""

    try:
        keys: Iterable[AssetKey] = AssetSelection.from_string(term).resolve([unused])
    except Exception as error:
        raise SelectionError(
            f"The selection {term!r} cannot be parsed: {str(error).splitlines()[0]}",
            "Use Kindling ids with globs (gold.*), tag:name=value, or Dagster's selection syntax.",
        ) from error
    return {by_key[key] for key in keys if key in by_key}


def _close_matches(term: str, candidates: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(term.replace("/", "."), list(candidates), n=3, cutoff=0.4)
    if near:
        return f"Close to it: {', '.join(near)}."
    return f"The app writes {', '.join(sorted(candidates)[:8])}{' …' if len(candidates) > 8 else ''}."
