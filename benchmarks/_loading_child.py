"""One process that loads definitions, as a code server does; prints the CPU seconds it took as JSON.

``python -m benchmarks._loading_child MODE ARGUMENT``: ``plain``, ``full`` or ``checked`` and the number of pipes,
``manifest`` or ``unchecked`` and a manifest's file, or ``app`` and a directory.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Sequence

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSpec,
    AssetKey,
    AssetSpec,
    Definitions,
    MaterializeResult,
    TableColumn,
    TableSchema,
    multi_asset,
    multi_asset_check,
)


def reads(number: int, pipes: int) -> list[str]:
    """The entities that a pipe reads: two of the layer below; ten layers over ten sources."""
    width = pipes // 10
    if number < width:
        return [f"source.s{number % 10}"]
    below = number - width
    layer = below // width * width
    return sorted({written(below), written(layer + (below + 1) % width)})


def written(number: int) -> str:
    """The entity that a pipe writes."""
    return f"sales.table_{number}"


def cpu_seconds() -> float:
    """CPU time of this process since its start, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def plain(pipes: str) -> Definitions:
    """As many assets without Kindling: key, dependencies and group alone, no metadata, tags or description."""
    count = int(pipes)
    specs = [
        AssetSpec(
            AssetKey(written(number).split(".")),
            deps=[AssetKey(entity.split(".")) for entity in reads(number, count)],
            group_name="sales",
        )
        for number in range(count)
    ]

    return definitions(specs)


def full(pipes: str) -> Definitions:
    """As many assets without Kindling that carry what ours do but for the checks: written out by hand, as it were."""
    return definitions(full_specs(int(pipes)))


def checked(pipes: str) -> Definitions:
    """The same with as many checks as ours, in one ``multi_asset_check``."""
    specs = full_specs(int(pipes))
    named = {
        "merge_keys_not_null": "No row lacks a merge key (id).",
        "merge_keys_unique": "No two rows have the same id.",
        "schema_drift": "The table has the declared columns, of the declared types.",
    }

    @multi_asset_check(
        name="checks",
        specs=[
            AssetCheckSpec(name, asset=spec.key, description=text)
            for spec in specs
            for name, text in named.items()
        ],
        can_subset=True,
    )
    def checks(context):  # type: ignore[no-untyped-def]
        for key in context.selected_asset_check_keys:
            yield AssetCheckResult(passed=True, asset_key=key.asset_key, check_name=key.name)

    return definitions(specs, [checks])


def full_specs(count: int) -> list[AssetSpec]:
    """Specs that carry what ours do."""
    return [
        AssetSpec(
            AssetKey(written(number).split(".")),
            deps=[AssetKey(entity.split(".")) for entity in reads(number, count)],
            group_name="sales",
            description=f"Makes table {number}.",
            kinds={"kindling", "delta", "pyspark"},
            tags={"team": "sales", "layer": "sales"},
            code_version=f"{number:016x}",
            skippable=True,
            metadata={
                "kindling/entity": written(number),
                "kindling/pipes": [f"pipe.{number}"],
                "kindling/merge_columns": "id",
                "dagster/column_schema": TableSchema(
                    [TableColumn("id", "long"), TableColumn("name", "string")]
                ),
                "dagster/storage_kind": "delta",
                "dagster/uri": f"lake/sales/table_{number}",
            },
        )
        for number in range(count)
    ]


def definitions(specs: list[AssetSpec], checks: Sequence[AssetChecksDefinition] = ()) -> Definitions:
    """The specs as one step's, with these checks."""

    @multi_asset(specs=specs, can_subset=True)
    def tables(context):  # type: ignore[no-untyped-def]
        for key in context.selected_asset_keys:
            yield MaterializeResult(asset_key=key)

    return Definitions(assets=[tables], asset_checks=checks)


BASES = {"plain": plain, "full": full, "checked": checked}


def loader(mode: str) -> Callable[[str], Definitions]:
    """What makes definitions of an argument; imports what it needs."""
    if mode in BASES:
        return BASES[mode]
    from kindling_dagster.definitions import build_kindling_definitions
    from kindling_dagster.project import KindlingProject

    if mode in ("manifest", "unchecked"):
        checks = mode == "manifest"
        return lambda file: build_kindling_definitions(KindlingProject(manifest=file), checks=checks)
    return lambda app: build_kindling_definitions(KindlingProject(app))


def main(mode: str, argument: str) -> None:
    """Load, and tell how long building took and the whole process until then."""
    load = loader(mode)
    imported = cpu_seconds()
    repository = load(argument).get_repository_def()
    done = cpu_seconds()
    assets = len(repository.asset_graph.materializable_asset_keys)
    print(json.dumps({"assets": assets, "build": done - imported, "process": done}))


if __name__ == "__main__":
    main(*sys.argv[1:])
