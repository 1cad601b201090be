"""The command line's ``lineage`` group: which versions wrote an app's rows. Starts no JVM."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click
import yaml  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from kindling_dagster.cli_app import app_options, plain
from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.reprocess import check_reprocess
from kindling_dagster.lineage.sql import (
    find_records_by_version,
    stale_version_report,
    version_adoption_report,
)
from kindling_dagster.project import KindlingProject

if TYPE_CHECKING:
    from kindling_dagster.lineage.auditor import EntityAudit, LineageAuditor

_entities = click.option(
    "--entity", "entities", multiple=True, help="Entity id; can be repeated. All with lineage when left out."
)
_sql = click.option("--sql", "as_sql", is_flag=True, help="Print the query for Spark instead.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def lineage() -> None:
    """Which version of which pipe wrote the rows of an app's tables."""


@lineage.command()
@app_options
@_entities
@_sql
@_json
def report(project: KindlingProject, entities: tuple[str, ...], as_sql: bool, as_json: bool) -> None:
    """Rows by version of each table."""
    auditor = _auditor(project)
    chosen = entities or auditor.entity_ids
    if as_sql:
        _print_queries(
            version_adoption_report(auditor.location(entity), layer=auditor.layer(entity))
            for entity in chosen
        )
        return
    _print([_audit(auditor, entity) for entity in entities or _written(auditor)], as_json, stale=False)


@lineage.command()
@app_options
@_entities
@click.option(
    "--older-than", default=0.0, show_default=True, metavar="DAYS", help="Younger rows are not stale."
)
@click.option(
    "--current", help="The version that is not stale; what each pipe last wrote with when left out."
)
@_sql
@_json
def stale(
    project: KindlingProject,
    entities: tuple[str, ...],
    older_than: float,
    current: str | None,
    as_sql: bool,
    as_json: bool,
) -> None:
    """Rows that other versions than the current one wrote; exit code 1 where there are any."""
    auditor = _auditor(project)
    chosen = entities or auditor.entity_ids
    if as_sql:
        if current is None:
            raise LineageError("A query needs to know the current version.", "Name it by --current.")
        moment = datetime.now(timezone.utc) - timedelta(days=older_than)
        _print_queries(
            stale_version_report(auditor.location(entity), current, moment, layer=auditor.layer(entity))
            for entity in chosen
        )
        return
    found = [_audit(auditor, entity, older_than, current) for entity in entities or _written(auditor)]
    _print(found, as_json, stale=True)
    if any(audit.lineage.stale_rows for audit in found):
        raise SystemExit(1)


@lineage.command()
@app_options
@click.option("--entity", required=True, help="Entity id.")
@click.option("--version", "package_version", help="The package's version whose rows are wanted.")
@click.option("--pipe", help="Only rows that this pipe wrote.")
@click.option("--table-version", type=int, help="Tell instead who wrote this version of the table.")
def find(
    project: KindlingProject,
    entity: str,
    package_version: str | None,
    pipe: str | None,
    table_version: int | None,
) -> None:
    """The query for the rows of one version, or who wrote one version of a table."""
    auditor = _auditor(project)
    if table_version is not None:
        writer = auditor.writer_of(entity, table_version)
        if writer is None:
            raise LineageError(
                f"Nothing says who wrote version {table_version} of {entity}.",
                "It was written by something else, before lineage, or its log entry is gone.",
            )
        click.echo(f"{writer.pipe} of {writer.package} {writer.version}, run {writer.run_id or 'unknown'}")
        return
    if package_version is None:
        raise LineageError("There is nothing to find.", "Give --version, or --table-version.")
    click.echo(
        find_records_by_version(auditor.location(entity), package_version, pipe, layer=auditor.layer(entity))
    )


@lineage.command()
@app_options
@click.option("--pipe", required=True, help="The pipe whose rows to recompute.")
@click.option("--version", "package_version", required=True, help="The version that wrote them.")
def reprocess(project: KindlingProject, pipe: str, package_version: str) -> None:
    """A dry run: how many rows a recomputation would concern, and the run config that does it."""
    auditor = _auditor(project)
    check_reprocess(project.manifest, {pipe: package_version})
    entity = project.manifest.pipes_by_id[pipe].output_entity_id
    counts = auditor.audit(entity, current={}).lineage.counts
    rows = sum(count.rows for count in counts if (count.pipe, count.version) == (pipe, package_version))
    click.echo(f"{rows:,} rows of {entity} were written by version {package_version} of {pipe}.")
    click.echo(f"Materialize {entity} with this in its step's config to recompute them:")
    click.echo(yaml.safe_dump({"reprocess": {pipe: package_version}}).rstrip())


def _auditor(project: KindlingProject) -> LineageAuditor:
    # Here, because it imports Kindling, which other commands do without.
    from kindling_dagster.lineage.auditor import LineageAuditor

    auditor = LineageAuditor(project.manifest, project.working_dir)
    if not auditor.entity_ids:
        raise LineageError(
            f"The app {project.name} stamps no lineage on its rows.",
            "Set kindling.lineage.enabled: true in its settings.",
        )
    return auditor


def _written(auditor: LineageAuditor) -> list[str]:
    """The entities with lineage that have a table; says which have none yet."""
    there = {entity: auditor.has_table(entity) for entity in auditor.entity_ids}
    missing = [entity for entity, has_table in there.items() if not has_table]
    if missing:
        click.echo(f"Not written yet: {', '.join(missing)}.", err=True)
    return [entity for entity, has_table in there.items() if has_table]


def _audit(
    auditor: LineageAuditor, entity: str, older_than: float = 0.0, current: str | None = None
) -> EntityAudit:
    return auditor.audit(
        entity,
        max_age=timedelta(days=older_than) if older_than else None,
        current=None if current is None else dict.fromkeys(sorted(auditor.pipe_ids(entity)), current),
    )


def _print_queries(queries: Iterator[str]) -> None:
    click.echo(";\n\n".join(queries) + ";")


def _print(audits: Sequence[EntityAudit], as_json: bool, *, stale: bool) -> None:
    if as_json:
        click.echo(json.dumps([_as_json(audit) for audit in audits], indent=2, default=str))
        return
    console = Console(highlight=False, soft_wrap=True)
    for audit in audits:
        found = audit.lineage
        table = Table(
            title=f"{audit.entity_id} at version {found.table_version}: {found.rows:,} rows",
            title_justify="left",
        )
        for name in (
            "pipe",
            "package",
            "version",
            "rows",
            "files",
            *(("stale rows",) if stale else ()),
            "last written",
        ):
            table.add_column(name, justify="right" if name in ("rows", "files", "stale rows") else "left")
        for count in found.counts:
            cells = [
                count.pipe or "no lineage",
                count.package,
                count.version,
                f"{count.rows:,}",
                f"{count.files:,}",
            ]
            last = count.last_written.isoformat(timespec="seconds") if count.last_written else ""
            table.add_row(*map(plain, [*cells, *([f"{count.stale_rows:,}"] if stale else []), last]))
        console.print(table)


def _as_json(audit: EntityAudit) -> dict[str, Any]:
    found = audit.lineage
    return {
        "entity": audit.entity_id,
        "layer": audit.layer,
        "current": dict(audit.current),
        "table_version": found.table_version,
        "rows": found.rows,
        "stale_rows": found.stale_rows,
        "files": found.files,
        "files_read": found.files_read,
        "versions": [
            {
                "pipe": count.pipe,
                "package": count.package,
                "version": count.version,
                "rows": count.rows,
                "files": count.files,
                "stale_rows": count.stale_rows,
                "first_written": count.first_written,
                "last_written": count.last_written,
            }
            for count in found.counts
        ],
    }
