"""Problems of declarations that do not stop the rest from loading, each with what to do about it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kindling_dagster.apps import AppLayout
from kindling_dagster.manifest import EntitySpec, IngestionSpec, PipeSpec, Problem


def find_problems(
    entities: Sequence[EntitySpec],
    pipes: Sequence[PipeSpec],
    ingestion: Sequence[IngestionSpec],
    functions: Mapping[str, Callable[..., Any]],
    pending: Mapping[str, tuple[str, str]],
    writable: Mapping[str, bool | None],
    layout: AppLayout,
) -> list[Problem]:
    """Everything wrong with the declarations, in a stable order.

    Args:
        entities: All entities.
        pipes: All pipes.
        ingestion: All file ingestion entries.
        functions: Each pipe's function by pipe id.
        pending: Derivations whose source is missing: id to (kind, reason).
        writable: Whether each provider can be written; None for one that Kindling does not know.
        layout: Where the app is.
    """
    known = {entity.id: entity for entity in entities}
    return [
        *_missing_packages(layout),
        *(
            Problem("error", item_id, *_pending_text(item_id, kind, why))
            for item_id, (kind, why) in pending.items()
        ),
        *(problem for pipe in pipes for problem in _undeclared(pipe, known)),
        *(problem for pipe in pipes for problem in _bad_signature(pipe, functions[pipe.id])),
        *(problem for pipe in pipes for problem in _read_only_output(pipe, known, writable)),
        *(problem for entity in entities for problem in _unknown_provider(entity, writable)),
        *(problem for entry in ingestion for problem in _undeclared_destination(entry, known)),
        *_nothing(entities, pipes, layout),
    ]


def _missing_packages(layout: AppLayout) -> Iterator[Problem]:
    for name in layout.missing_packages:
        yield Problem(
            "warning",
            name,
            f"Package {name!r} is named by the app but is not installed and not in its repository: it registers nothing.",
            f"Install it (`pip install {name.replace('_', '-')}`), or take it out of lake-reqs.txt.",
        )


def _pending_text(item_id: str, kind: str, why: str) -> tuple[str, str]:
    return (
        f"The {kind} {item_id!r} is derived from something that is not declared: {why}.",
        "Declare the source, or take the derivation out (in code, or under "
        f"{'dataentities' if kind == 'entity' else 'datapipes'}: in the settings).",
    )


def _undeclared(pipe: PipeSpec, known: Mapping[str, EntitySpec]) -> Iterator[Problem]:
    roles = [*((item_id, "reads") for item_id in pipe.input_entity_ids), (pipe.output_entity_id, "writes")]
    for item_id, verb in dict.fromkeys(roles):
        if item_id not in known:
            yield Problem(
                "error",
                pipe.id,
                f"Pipe {pipe.id!r} {verb} entity {item_id!r}, which is not declared.",
                _did_you_mean(item_id, known)
                or f"Declare it with DataEntities.entity(entityid={item_id!r}, …).",
            )


def _did_you_mean(item_id: str, known: Mapping[str, EntitySpec]) -> str:
    close = difflib.get_close_matches(item_id, known, n=1, cutoff=0.85)
    return f"Did you mean {close[0]!r}?" if close else ""


def _bad_signature(pipe: PipeSpec, function: Callable[..., Any]) -> Iterator[Problem]:
    """Whether ``execute`` can be called with the inputs by keyword, judged without calling it."""
    for target, keywords, leading in _calls(function, pipe.input_entity_ids):
        wrong = signature_mismatch(target, keywords, leading)
        if wrong:
            yield Problem(
                "error",
                pipe.id,
                f"Pipe {pipe.id!r} cannot be called with its inputs: {wrong}.",
                f"Name its parameters as its inputs, with _ for the dots: {', '.join(keywords) or 'none'}.",
            )


def _calls(function: Any, inputs: Sequence[str]) -> Iterator[tuple[Any, tuple[str, ...], int]]:
    """The functions behind ``execute``, each with the keywords and the number of leading arguments it is given."""
    if not hasattr(function, "__kindling_wrapped__"):
        yield function, tuple(item_id.replace(".", "_") for item_id in inputs), 0
        return
    cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
    transform = cells["transform"].cell_contents
    original_keys = set(cells["original_keys"].cell_contents)
    if cells["added_keys"].cell_contents:
        yield transform, tuple(cells["added_keys"].cell_contents), 1
    original = [item_id for item_id in inputs if item_id.replace(".", "_") in original_keys]
    if len(original) != 1 or hasattr(function.__kindling_wrapped__, "__kindling_wrapped__"):
        yield from _calls(function.__kindling_wrapped__, original)


def signature_mismatch(function: Callable[..., Any], keywords: Sequence[str], leading: int = 0) -> str:
    """What is wrong with calling ``function`` so: parameters it lacks or needs besides; empty when it fits."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ""
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    taken = {parameter.name for parameter in positional[:leading]}
    named = [
        p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in taken
    ]
    wants_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    lacking = [] if wants_any else [key for key in keywords if key not in {p.name for p in named}]
    needed = [p.name for p in named if p.default is p.empty and p.name not in keywords]
    parts = [f"it has no parameter {', '.join(map(repr, lacking))}"] if lacking else []
    parts += [f"nothing is given for its parameter {', '.join(map(repr, needed))}"] if needed else []
    return " and ".join(parts)


def _read_only_output(
    pipe: PipeSpec, known: Mapping[str, EntitySpec], writable: Mapping[str, bool | None]
) -> Iterator[Problem]:
    output = known.get(pipe.output_entity_id)
    if output is None:
        return
    if output.kind == "sql":
        what = "a SQL entity"
    elif output.kind == "companion":
        what = "the current rows of an SCD2 entity"
    elif writable.get(output.provider) is False:
        what = f"read through the provider {output.provider!r}"
    elif output.tags.get("provider.read_only", "").lower() == "true":
        what = "tagged provider.read_only"
    else:
        return
    otherwise = (
        f"Write {output.companion_of!r}" if output.companion_of else "Give the pipe an entity of its own"
    )
    yield Problem(
        "error",
        pipe.id,
        f"Pipe {pipe.id!r} writes {output.id!r}, which is {what} and cannot be written.",
        f"{otherwise} instead.",
    )


def _unknown_provider(entity: EntitySpec, writable: Mapping[str, bool | None]) -> Iterator[Problem]:
    if writable.get(entity.provider) is None:
        yield Problem(
            "error",
            entity.id,
            f"Entity {entity.id!r} has provider_type {entity.provider!r}, which Kindling does not know.",
            "Correct the tag, or register the provider where the app is loaded.",
        )


def _undeclared_destination(entry: IngestionSpec, known: Mapping[str, EntitySpec]) -> Iterator[Problem]:
    # {group} stands for a part of the file's name, known only when a file comes.
    if "{" not in entry.dest_entity_id and entry.dest_entity_id not in known:
        yield Problem(
            "error",
            entry.id,
            f"File ingestion entry {entry.id!r} fills entity {entry.dest_entity_id!r}, which is not declared.",
            _did_you_mean(entry.dest_entity_id, known) or "Declare it with DataEntities.entity.",
        )


def _nothing(
    entities: Sequence[EntitySpec], pipes: Sequence[PipeSpec], layout: AppLayout
) -> Iterator[Problem]:
    if not entities and not pipes:
        yield Problem(
            "warning",
            layout.name,
            f"The app {layout.name!r} declares no entity and no pipe.",
            "Name its packages in lake-reqs.txt or with packages=; declarations belong into their entities and pipes.",
        )
