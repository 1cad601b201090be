"""File ingestion in Dagster: the step that takes landed files, its job, and the sensor that asks for a run."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    AssetSelection,
    DagsterRunStatus,
    DefaultSensorStatus,
    Definitions,
    Failure,
    MaterializeResult,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    define_asset_job,
    in_process_executor,
    multi_asset,
    sensor,
)

from kindling_dagster.assets import KindlingAssetGraph, app_name
from kindling_dagster.delta_log import local_path, read_state
from kindling_dagster.engines.commits import PATIENCE
from kindling_dagster.engines.masking import secret_book
from kindling_dagster.errors import DeclarationError, KindlingDagsterError
from kindling_dagster.ingestion.batches import Batch, Batches
from kindling_dagster.ingestion.landing import Entries, IngestionPaths, LandedFile
from kindling_dagster.locations import table_location
from kindling_dagster.project import KindlingProject
from kindling_dagster.signals.plain import scrub_text
from kindling_dagster.table_checks.outcome import told_in_a_line
from kindling_dagster.translator import DagsterKindlingTranslator

_AGAIN_SECONDS = 300.0  # before a run is asked for again for files of which one has failed
_NAMED = 10
_UNDER_WAY = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def build_kindling_ingestion(
    project: KindlingProject,
    *,
    translator: DagsterKindlingTranslator | None = None,
    resource_key: str = "kindling",
    interval: int = 30,
    default_status: DefaultSensorStatus = DefaultSensorStatus.RUNNING,
) -> Definitions:
    """An app's file ingestion: the entities that files go to as assets, the job and the sensor.

    ``build_kindling_definitions`` gives it too, for an app whose settings name a landing path.

    Args:
        project: The app; its settings ``kindling.dagster.ingestion.landing`` and ``.archive`` name the paths.
        translator: Decides keys, groups, kinds and so on.
        resource_key: Key of the KindlingResource.
        interval: Seconds between two looks of the sensor.
        default_status: Whether the sensor is on from the start.

    Raises:
        KindlingDagsterError: The app cannot be loaded, names no landing path, or has no entry that can be used.
    """
    assets = KindlingAssetGraph(project, translator or DagsterKindlingTranslator())
    return ingestion_of(assets, resource_key, interval, default_status)


def ingestion_of(
    assets: KindlingAssetGraph,
    resource_key: str,
    interval: int = 30,
    default_status: DefaultSensorStatus = DefaultSensorStatus.RUNNING,
) -> Definitions:
    """What ``build_kindling_ingestion`` does, over a graph that is there."""
    paths = IngestionPaths.of(assets.manifest, assets.project.working_dir)
    if paths is None or not assets.ingested:
        raise DeclarationError(
            f"No files land for the app {assets.manifest.app.name}.",
            "Set kindling.dagster.ingestion.landing and .archive, and declare FileIngestionEntries of which the "
            "destinations are written by no pipe.",
        )
    step = _step(assets, paths, resource_key)
    job = define_asset_job(
        f"{app_name(assets.project)}_ingest",
        AssetSelection.assets(*step.keys),
        executor_def=in_process_executor,
    )
    look = _sensor(assets, paths, job, interval, default_status)
    return Definitions(assets=[step], jobs=[job], sensors=[look])


def _step(assets: KindlingAssetGraph, paths: IngestionPaths, resource_key: str) -> AssetsDefinition:
    @multi_asset(
        name=f"ingest_{app_name(assets.project)}",
        specs=list(assets.ingested_specs.values()),
        required_resource_keys={resource_key},
        description=f"Writes the files that lie in {paths.landing} to their entities, each exactly once.",
    )
    def ingest(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
        try:
            yield from _Ingestion(assets, paths, context, getattr(context.resources, resource_key)).run()
        except KindlingDagsterError as error:
            raise Failure(str(error), allow_retries=False) from error

    return ingest


@dataclass(frozen=True)
class _Ingestion:
    """One run."""

    assets: KindlingAssetGraph
    paths: IngestionPaths
    context: AssetExecutionContext
    kindling: Any

    def run(self) -> Iterator[MaterializeResult[Any]]:
        # Here, because it imports Kindling and PySpark, which definitions do without.
        from kindling_dagster.ingestion.writing import write_batches

        batches = Batches(self.paths.landing, self.paths.archive)
        entries = Entries(self.assets.manifest)
        with batches.locked():
            fit, rest = entries.sorted(self.paths.files(), self.assets.ingested)
            if rest:
                self.context.log.warning(_told(rest, self.paths))
            todo = [batch for batch in (batches.pending(),) if batch is not None]
            if todo:
                self.context.log.info(f"{todo[0].name} was begun by a run that did not end; it is taken up.")
                # Else one of its files could be taken twice: what landed is looked at anew once it is done.
                write_batches(self.assets.project, batches, todo, self.kindling.create_session)
                fit, rest = entries.sorted(self.paths.files(), self.assets.ingested)
            new = [file for files in fit.values() for file in files]
            if new:
                todo.append(batches.begin(new))
                write_batches(self.assets.project, batches, todo[-1:], self.kindling.create_session)
            yield from self._results(entries, todo)

    def _results(self, entries: Entries, done: Sequence[Batch]) -> Iterator[MaterializeResult[Any]]:
        taken = (file for batch in done for file in batch.files)
        fit, _ = entries.sorted(taken, self.assets.ingested)
        for id_ in self.assets.ingested:
            files = fit.get(id_, [])
            if files:
                yield MaterializeResult(
                    asset_key=self.assets.key_of(id_),
                    metadata={
                        "kindling/files_ingested": len(files),
                        "kindling/file_names": [file.name for file in files][:100],
                        "kindling/batches": [batch.name for batch in done],
                        **self._table(id_),
                    },
                )

    def _table(self, id_: str) -> dict[str, Any]:
        manifest, options = self.assets.manifest, self.kindling.storage_options
        entity = manifest.entities_by_id[id_]
        try:
            location = table_location(entity, self.assets.project.working_dir)
            local = location is not None and local_path(location) is not None
            if location is None or not (local or options):
                return {}
            state = read_state(location, storage_options=None if local else {**PATIENCE, **options})
        except Exception as error:  # the rows are committed, whatever can be told of their table
            text = scrub_text(secret_book(manifest.secrets).mask(told_in_a_line(error, entity)))
            return {"kindling/unavailable": f"the table's log could not be read: {text}"}
        if state is None or state.rows is None:
            return {}
        return {"dagster/row_count": state.rows, "kindling/delta_version": state.version}


def _told(files: Sequence[LandedFile], paths: IngestionPaths) -> str:
    names = ", ".join(file.name for file in files[:_NAMED]) + (" …" if len(files) > _NAMED else "")
    return (
        f"{len(files)} files in {paths.landing} are left there: {names}. No pattern fits them, or their entity is "
        "not declared, or a pipe writes it."
    )


def _sensor(
    assets: KindlingAssetGraph,
    paths: IngestionPaths,
    job: Any,
    interval: int,
    default_status: DefaultSensorStatus,
) -> SensorDefinition:
    entries = Entries(assets.manifest)

    @sensor(
        name=f"{app_name(assets.project)}_landing",
        job=job,
        minimum_interval_seconds=interval,
        default_status=default_status,
        description=f"Asks for a run when files lie in {paths.landing}.",
    )
    def landing(context: SensorEvaluationContext) -> SensorResult:
        return look(context, entries, paths, job.name, set(assets.ingested))

    return landing


def look(
    context: SensorEvaluationContext,
    entries: Entries,
    paths: IngestionPaths,
    job_name: str,
    ingested: set[str],
    now: float | None = None,
) -> SensorResult:
    """One look: a run is asked for when there are files, or a batch that was begun, and no run is under way."""
    moment = time.time() if now is None else now
    cursor = _cursor(context.cursor)
    fit, rest = entries.sorted(paths.files(moment), ingested)
    told = set(cursor["told"])
    new_rest = [file for file in rest if file.name not in told]
    if new_rest:
        context.log.warning(_told(new_rest, paths))
    files = [file for found in fit.values() for file in found]
    pending = Batches(paths.landing, paths.archive).pending()
    asked, at = str(cursor["asked"]), float(cursor["at"])
    requests: list[RunRequest] = []
    reason = _told(rest, paths) if rest else f"No files in {paths.landing}."
    if files or pending is not None:
        mark = _mark(files, pending)
        active = context.instance.get_runs_count(RunsFilter(job_name=job_name, statuses=_UNDER_WAY))
        if active:
            reason = "A run takes files already."
        elif mark == asked and moment - at < _AGAIN_SECONDS:
            reason = "The run for these files did not end well; another one is asked for after five minutes."
        else:
            requests, asked, at = [RunRequest()], mark, moment
    return SensorResult(
        run_requests=requests,
        skip_reason=None if requests else reason,
        cursor=json.dumps({"asked": asked, "at": at, "told": [file.name for file in rest]}),
    )


def _cursor(text: str | None) -> dict[str, Any]:
    """What the last look left; one that cannot be read counts as none."""
    try:
        said = json.loads(text or "{}")
        return {"asked": str(said["asked"]), "at": float(said["at"]), "told": list(said["told"])}
    except (ValueError, KeyError, TypeError):
        return {"asked": "", "at": 0.0, "told": []}


def _mark(files: Sequence[LandedFile], pending: Batch | None) -> str:
    """Equal for two looks exactly when the same files are waiting."""
    said = [(file.name, file.size, file.changed) for file in files]
    return hashlib.sha256(json.dumps([said, pending.number if pending else 0]).encode()).hexdigest()[:16]
