"""Runs the pipes of one request through Kindling, in one session, and tells of everything as it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from kindling_dagster.columns.collecting import ColumnLineageCollector
from kindling_dagster.dag.cache import EntityCache
from kindling_dagster.dag.cancellation import SparkCanceller, WriteGate
from kindling_dagster.dag.orchestrator import ExecutionOrchestrator
from kindling_dagster.dag.plan import ExecutionPlan, ExecutionPlanGenerator
from kindling_dagster.dag.results import PipeOutcome
from kindling_dagster.engines.base import PipeOptions, RunEvent, RunRequest
from kindling_dagster.engines.commits import CommitReader
from kindling_dagster.engines.listening import SignalListener
from kindling_dagster.engines.masking import masked
from kindling_dagster.errors import DeclarationError
from kindling_dagster.lineage.reprocess import Reprocessing
from kindling_dagster.manifest import Manifest
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.signals.dispatch import SIGNAL_SECONDS, SignalDispatcher
from kindling_dagster.signals.settings import SignalSettings
from kindling_dagster.table_checks.in_step import StepChecks
from kindling_dagster.windows import WindowedReads

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NO_NEW_DATA = "no new data"


class PipeRunner:
    """What one execution needs of Kindling: enter it, get its orchestrator, let that execute a plan.

    Args:
        request: What to run.
        manifest: What the app declares.
        spark: The session.
        runtime: The app, started in it.
        emit: Takes events; called from several threads.
        storage_options: For reading tables' logs on object storage, see ``CommitReader``.
    """

    def __init__(
        self,
        request: RunRequest,
        manifest: Manifest,
        spark: SparkSession,
        runtime: KindlingRuntime,
        emit: Callable[[RunEvent], None],
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self._request = request
        self._manifest = manifest
        self._runtime = runtime
        self._emit = emit = masked(emit, manifest.secrets)
        secret_places = [item.id for item in manifest.entities if item.location.kind == "secret"]
        self._commits = CommitReader(runtime, spark, storage_options, secret_places)
        self._gate = WriteGate()
        self._canceller = SparkCanceller(spark, request.run_id, self._gate)
        self._listener = SignalListener(emit)
        self._dispatcher = SignalDispatcher(SignalSettings.from_config(manifest.settings))
        self._cache = EntityCache(
            manifest,
            runtime.signals,
            auto_cache=request.options.auto_cache,
            level=request.options.cache_level,
            max_bytes=request.options.cache_max_bytes,
            size_of=self._commits.size,
            run_id=request.run_id,
            dispatcher=self._dispatcher,
        )
        self._lineage = runtime.lineage
        self._columns = ColumnLineageCollector(manifest)
        self._checks = StepChecks(
            request.checks,
            plan_request(manifest, request.pipe_ids) if request.checks else None,
            manifest,
            runtime,
            spark,
            storage_options,
        )
        self._exit = ExitStack()

    def __enter__(self) -> PipeRunner:
        options = self._request.options
        self._runtime.set_watermarks(options.watermarks)
        self._lineage.begin(self._request.run_id, self._dispatcher)
        self._gate.connect(self._runtime.signals)
        self._exit.callback(self._gate.close)
        self._listener.connect(self._runtime.signals, self._request.signals)
        self._exit.callback(self._listener.close)
        self._columns.connect(self._runtime.signals)
        self._exit.callback(self._columns.close)
        # Ends first: what is still on its way must be heard.
        self._exit.callback(self._dispatcher.shutdown, SIGNAL_SECONDS)
        again = Reprocessing(
            self._manifest, options.reprocess, self._runtime.signals, self._runtime.read_entity
        )
        self._exit.enter_context(again.narrowing())
        windows = WindowedReads(self._manifest, options.entity_tags, self._runtime.signals)
        self._exit.enter_context(windows.narrowing())
        if options.entity_tags:
            # Applied once around everything: Kindling's overrides belong to the registry, not to a thread.
            tags = {entity_id: dict(values) for entity_id, values in options.entity_tags.items()}
            self._exit.enter_context(self._runtime.entities.tag_overrides(tags))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.close()

    def orchestrator(self) -> ExecutionOrchestrator:
        """What plans and runs this request's pipes."""
        return ExecutionOrchestrator(
            self._manifest,
            self.run_pipe,
            signals=self._runtime.signals,
            options=self._request.options,
            canceller=self._canceller,
            on_event=self._emit,
            durations=self._request.durations,
            cache=self._cache,
            run_id=self._request.run_id,
            dispatcher=self._dispatcher,
        )

    def run_pipe(self, pipe_id: str) -> PipeOutcome:
        """Run one pipe, on its own thread; raises what the pipe raises."""
        self._refuse_broken(pipe_id)
        output = self._manifest.pipes_by_id[pipe_id].output_entity_id
        options = self._request.options.pipes.get(pipe_id, PipeOptions())
        before = self._commits.version(output)
        texts = self._commits.user_metadata(output, before)
        with (
            self._listener.watch() as seen,
            self._lineage.writing(pipe_id),
            self._columns.watching(pipe_id),
        ):
            self._runtime.execution.run_datapipes([pipe_id], no_watermark=options.full_refresh)
        columns = self._columns.take(pipe_id)
        if seen.skipped:
            outcome = PipeOutcome(skipped=True, reason=NO_NEW_DATA)
            return self._checks.judge(pipe_id, outcome)
        self._lineage.tell(pipe_id, texts)
        lineage = self._lineage.of(pipe_id)
        metadata = self._commits.metadata(output, before, lineage)
        outcome = PipeOutcome(
            metadata={
                **metadata,
                **columns,
                "package": lineage.package,
                "package_version": lineage.version,
            }
        )
        return self._checks.judge(pipe_id, outcome)

    def _refuse_broken(self, pipe_id: str) -> None:
        """Fail a pipe that is declared wrongly before any of its code runs."""
        for problem in self._manifest.problems:
            if problem.severity == "error" and problem.subject == pipe_id:
                raise DeclarationError(problem.message, problem.suggestion)


def plan_request(manifest: Manifest, pipe_ids: Iterable[str]) -> ExecutionPlan:
    """The plan of these pipes.

    A pipe that is declared wrongly does not keep the others from running: it is planned, and fails by
    itself before any of its code runs.

    Raises:
        PlanError: The pipes cannot run as asked, for example without one that writes a memory entity.
        CycleError: They depend on each other in a circle.
    """
    return ExecutionPlanGenerator(replace(manifest, problems=())).generate_plan(pipe_ids)
