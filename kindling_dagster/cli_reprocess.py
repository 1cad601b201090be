"""The command line's ``streams reprocess``: rows already written with old values of a dimension."""

from __future__ import annotations

import click

from kindling_dagster.cli_app import app_options
from kindling_dagster.project import KindlingProject


@click.command()
@app_options
@click.option("--stream", "-s", required=True, help="Pipe id, or the id of the entity it writes.")
@click.option("--dimension", "-d", required=True, help="The entity that changed.")
@click.option(
    "--key",
    "-k",
    "keys",
    multiple=True,
    help="Key of a changed row (CSV for several columns); can be repeated.",
)
@click.option("--since-version", type=int, help="All that changed since this version of its Delta table.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="DIMENSION=DRIVING",
    help="What the pipe joins by, where that is not the dimension's key by equal names; can be repeated.",
)
@click.option(
    "--latest-by", default="", help="Column that tells the last of several driving rows that became one."
)
@click.option("--max-keys", type=int, help="Refuse more changed keys (10,000).")
@click.option("--max-rows", type=int, help="Refuse more affected rows (1,000,000).")
@click.option(
    "--dry-run/--write", default=True, show_default=True, help="Only say how many rows, or write them."
)
def reprocess(
    project: KindlingProject,
    stream: str,
    dimension: str,
    keys: tuple[str, ...],
    since_version: int | None,
    columns: tuple[str, ...],
    latest_by: str,
    max_keys: int | None,
    max_rows: int | None,
    dry_run: bool,
) -> None:
    """Write rows of a stream's output anew that carry old values of a dimension. Starts Spark."""
    from kindling_dagster.spark import build_session
    from kindling_dagster.streaming.reprocess_rows import reprocess_rows
    from kindling_dagster.streaming.reprocessing import MAX_KEYS, MAX_ROWS, ReprocessRequest

    pairs = [text.partition("=") for text in columns]
    if not all(separator for _, separator, _ in pairs):
        raise click.UsageError("Write --column as DIMENSION=DRIVING.")
    request = ReprocessRequest(
        stream,
        dimension,
        keys,
        since_version,
        {name.strip(): driving.strip() for name, _, driving in pairs},
        latest_by,
        MAX_KEYS if max_keys is None else max_keys,
        MAX_ROWS if max_rows is None else max_rows,
    )
    click.echo(str(reprocess_rows(project, request, build_session, dry_run=dry_run)))
    if dry_run:
        click.echo("A dry run: give --write to write them.")
