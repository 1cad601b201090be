"""Analyses pipes: calls each one's function on empty frames, in graph order, and compares what comes back."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kindling_dagster.analysis.explain import explain, place
from kindling_dagster.analysis.findings import AnalysisResult, Finding, FindingKind, PipeAnalysis, Verdict
from kindling_dagster.analysis.guard import WriteGuard, WriteRefusedError
from kindling_dagster.analysis.schemas import Known, SchemaBook, Unknown, with_source_columns
from kindling_dagster.analysis.sinks import Mismatch, mismatches, schema_after, type_name
from kindling_dagster.dag.cancellation import SparkCanceller
from kindling_dagster.dag.executor import GenerationExecutor
from kindling_dagster.dag.failures import concise
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.dag.results import PipeOutcome, PipeResult, PipeStatus
from kindling_dagster.dag.scheduling import ErrorStrategy
from kindling_dagster.dag.strategy import BatchExecutionStrategy
from kindling_dagster.engines.base import LogLine, PipeFinished, PipeStarted, RunEvent
from kindling_dagster.engines.masking import masked
from kindling_dagster.project import KindlingProject
from kindling_dagster.runtime import KindlingRuntime

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

AnalysisEvent = PipeStarted | PipeAnalysis | LogLine

_ANALYSIS, _SCHEMA = "analysis", "schema"
_GRACE = 5.0
"""Seconds a pipe that reached its limit has to end before it is interrupted, and again before it is given up on."""


class _NotAnalysed(Exception):  # noqa: N818  # nobody's error
    """Nothing can be said about the pipe; the text says why."""


@dataclass
class _Progress:
    """One pipe on its way."""

    pipe_id: str
    output_entity_id: str
    inputs: dict[str, Known]
    findings: list[Finding]
    columns: Mapping[str, str]
    schema: StructType | None = None
    """The output's entity's schema once this pipe would have written; None when that is not known."""


class Analyzer:
    """One dry run over an app that is started in this process.

    Args:
        project: The app.
        runtime: The app, started.
        spark: The session.
        emit: Told of each pipe as it starts and ends; called on the thread that calls ``run``.
        timeout: Seconds a pipe may take; None for no limit.
        watermarks: Whether the runs read only new data, by Kindling's watermarks.
    """

    def __init__(
        self,
        project: KindlingProject,
        runtime: KindlingRuntime,
        spark: SparkSession,
        emit: Callable[[AnalysisEvent], None],
        timeout: float | None,
        watermarks: bool = False,
    ) -> None:
        self._watermarks = watermarks
        self._project = project
        self._manifest = project.manifest
        self._runtime = runtime
        self._spark = spark
        self._emit = emit
        self._book = SchemaBook(self._manifest, runtime, spark)
        self._guard = WriteGuard(runtime.providers)
        self._receivers = _receivers()
        self._threads: list[threading.Thread] = []
        self._analyses: dict[str, PipeAnalysis] = {}
        self._broken = {
            problem.subject: problem.message
            for problem in self._manifest.problems
            if problem.severity == "error"
        }
        self._executor = GenerationExecutor(
            error_strategy=ErrorStrategy.CONTINUE.value,
            pipe_timeout=timeout,
            canceller=SparkCanceller(spark, f"analysis-{uuid.uuid4().hex[:8]}"),
            on_event=masked(self._hear, self._manifest.secrets),
            grace=_GRACE,
        )

    def run(self, pipe_ids: Iterable[str] | None = None) -> AnalysisResult:
        """Analyse these pipes, or all of the app.

        Raises:
            PlanError: A pipe is not declared.
            CycleError: They depend on each other in a circle.
            RunError: A dry run is going on in this process already.
        """
        plan = BatchExecutionStrategy().plan(PipeGraphBuilder(self._manifest).build_graph(pipe_ids))
        with self._guard.opened(self._still_running):
            self._executor.execute_plan(plan, self._analyse)
        return AnalysisResult(tuple(self._analyses.values()))

    def cancel(self, reason: str) -> None:
        """End the dry run; any thread, returns at once."""
        self._executor.cancel(reason)

    def _still_running(self) -> list[threading.Thread]:
        return [thread for thread in self._threads if thread.is_alive()]

    # On the thread of ``run``

    def _hear(self, event: RunEvent) -> None:
        if isinstance(event, PipeFinished):
            self._finish(event.result)
        elif isinstance(event, PipeStarted | LogLine):
            self._emit(event)

    def _finish(self, result: PipeResult) -> None:
        entity_id = self._manifest.pipes_by_id[result.pipe_id].output_entity_id
        told = result.metadata.get(_ANALYSIS)
        analysis = (
            PipeAnalysis.from_data(told) if told is not None else self._ended_otherwise(result, entity_id)
        )
        analysis = replace(analysis, seconds=round(result.duration_seconds or 0.0, 3))
        schema = result.metadata.get(_SCHEMA)
        if schema is not None:
            self._book.note_written(entity_id, schema)
        elif analysis.verdict is not Verdict.OK:
            why = "failed in this dry run" if analysis.findings else "was not analysed"
            self._book.note_failed(entity_id, f"{result.pipe_id}, which writes it, {why}")
        self._analyses[result.pipe_id] = analysis
        self._emit(analysis)

    def _ended_otherwise(self, result: PipeResult, entity_id: str) -> PipeAnalysis:
        """For a pipe whose dry run did not come to its end."""
        error = result.error
        if result.status in (PipeStatus.TIMED_OUT, PipeStatus.STUCK) and error is not None:
            kind, message = (
                FindingKind.TIMED_OUT,
                f"On empty frames, {result.reason.removeprefix('stuck after: ')}.",
            )
        elif error is not None:
            kind, message = FindingKind.PIPE_ERROR, f"{error.type}: {error.message}"
        else:
            return PipeAnalysis(
                result.pipe_id, entity_id, Verdict.NOT_ANALYSED, reason=result.reason or result.status.value
            )
        file, line = place(error.where)
        finding = Finding(result.pipe_id, kind, message, file=file, line=line, suggestion=error.suggestion)
        return PipeAnalysis(result.pipe_id, entity_id, Verdict.BROKEN, (self._placed(finding),))

    # On the pipe's own thread

    def _analyse(self, pipe_id: str) -> PipeOutcome:
        self._threads.append(threading.current_thread())
        progress = _Progress(pipe_id, self._manifest.pipes_by_id[pipe_id].output_entity_id, {}, [], {})
        reason = ""
        try:
            self._go_through(progress)
        except _NotAnalysed as error:
            reason = str(error)
        except WriteRefusedError as error:
            reason = f"its own code writes: it calls {error.what}"
        findings = tuple(sorted(map(self._placed, progress.findings), key=lambda finding: finding.severity))
        broken = any(finding.severity == "error" for finding in findings)
        analysis = PipeAnalysis(
            pipe_id,
            progress.output_entity_id,
            Verdict.NOT_ANALYSED if reason else Verdict.BROKEN if broken else Verdict.OK,
            findings,
            reason,
            {entity_id: known.origin for entity_id, known in progress.inputs.items()},
            progress.columns,
        )
        return PipeOutcome(metadata={_ANALYSIS: analysis.to_data(), _SCHEMA: progress.schema})

    def _go_through(self, progress: _Progress) -> None:
        if progress.pipe_id in self._broken:
            raise _NotAnalysed(f"its declaration is wrong: {self._broken[progress.pipe_id]}")
        pipe = self._runtime.pipes.get_pipe_definition(progress.pipe_id)
        if not self._find_inputs(progress, pipe):
            return
        frames = {
            entity_id: self._frame(pipe, entity_id, known) for entity_id, known in progress.inputs.items()
        }
        output = self._attempt(
            progress,
            lambda: pipe.execute(**{id_.replace(".", "_"): frame for id_, frame in frames.items()}),
        )
        if progress.findings or not pipe.input_entity_ids:
            return  # Kindling writes nothing for a pipe without inputs
        if not hasattr(output, "schema"):
            given = "None" if output is None else f"a {type(output).__name__}"
            progress.findings.append(
                Finding(
                    progress.pipe_id,
                    FindingKind.NO_FRAME,
                    f"The pipe gives {given}, not a DataFrame: there is nothing to write.",
                    suggestion="Return the frame that goes into the output entity.",
                )
            )
            return
        self._compare(progress, pipe, output)

    def _find_inputs(self, progress: _Progress, pipe: Any) -> bool:
        """Fill in the inputs; False when one of them has a finding of its own."""
        unknown = []
        for entity_id in pipe.input_entity_ids or ():
            try:
                known = self._book.read(entity_id)
            except Exception as error:  # the SQL of a SQL entity is the app's own code
                progress.findings.append(self._explained_sql(progress.pipe_id, entity_id, error))
                return False
            if isinstance(known, Unknown):
                unknown.append(known.reason)
            else:
                progress.inputs[entity_id] = known
        if unknown:
            raise _NotAnalysed("because " + "; ".join(unknown))
        return True

    def _explained_sql(self, pipe_id: str, entity_id: str, error: Exception) -> Finding:
        entity = self._manifest.entities_by_id[entity_id]
        plain = [id_ for id_ in entity.sql_inputs if self._manifest.entities_by_id[id_].sql is None]
        columns = {
            id_: known.schema.names for id_ in plain if isinstance(known := self._book.read(id_), Known)
        }
        finding = explain(pipe_id, error, columns)
        path = self._project.source_path(entity.source) if entity.source else None
        line = entity.source.line if entity.source and path else 0
        message = f"Its input {entity_id} cannot be read: {finding.message}"
        return replace(finding, entity_id=entity_id, message=message, file=str(path or ""), line=line)

    def _frame(self, pipe: Any, entity_id: str, known: Known) -> DataFrame:
        """An empty frame as the pipe would be handed it: also receivers of ``read.after_read`` have seen it."""
        from kindling.data_pipes import resolve_driving_entity_ids

        schema = known.schema
        stored_in_delta = self._manifest.entities_by_id[entity_id].provider == "delta"
        driving = self._watermarks and pipe.use_watermark and entity_id in resolve_driving_entity_ids(pipe)
        if driving and stored_in_delta:
            schema = with_source_columns(schema)
        # With limit(0) Spark sees that there is nothing to read, and collects without a job.
        frame = self._spark.createDataFrame([], schema).limit(0)
        changed, _ = self._receivers.emit_chained(
            "read.after_read",
            "df",
            _is_frame,
            df=frame,
            entity_id=entity_id,
            pipe_id=pipe.pipeid,
            used_watermark=driving,
        )
        return changed

    def _compare(self, progress: _Progress, pipe: Any, output: Any) -> None:
        progress.columns = {column.name: type_name(column.dataType) for column in output.schema.fields}
        ready = self._attempt(progress, lambda: self._as_persisted(pipe, output))
        if progress.findings:
            return
        try:
            sink = self._book.sink(progress.output_entity_id)
        except Exception as error:
            text = f"{type(error).__name__}: {concise(str(error))}"
            raise _NotAnalysed(
                f"its output {progress.output_entity_id} cannot be looked at: {text}"
            ) from error
        schema = ready.schema
        progress.findings += [self._finding(progress, mismatch) for mismatch in mismatches(sink, schema)]
        progress.schema = self._book.with_minted(sink.entity_id, schema_after(sink, schema))

    def _as_persisted(self, pipe: Any, output: DataFrame) -> DataFrame:
        """The frame that Kindling would hand to the provider, after receivers and surrogate keys."""
        from kindling.data_entities import scd_config_from_tags
        from kindling.data_pipes import resolve_driving_entity_ids
        from kindling.surrogate_keys import apply_surrogate_keys

        entity = self._runtime.entities.get_entity_definition(pipe.output_entity_id)
        changed, _ = self._receivers.emit_chained(
            "persist.before_persist",
            "df",
            _is_frame,
            df=output,
            pipe_id=pipe.pipeid,
            source_entity_id=resolve_driving_entity_ids(pipe)[0],
            output_entity_id=pipe.output_entity_id,
            persist_id=str(uuid.uuid4()),
        )
        delete_when = scd_config_from_tags(entity).delete_when
        if delete_when:
            changed.filter(delete_when)
        return apply_surrogate_keys(changed, entity)

    def _attempt(self, progress: _Progress, call: Callable[[], Any]) -> Any:
        """Call the app's code; what it raises becomes a finding."""
        try:
            return call()
        except Exception as error:
            refused = _refusal_in(error)
            if refused is not None:
                raise refused from error
            columns = {entity_id: known.schema.names for entity_id, known in progress.inputs.items()}
            finding = explain(progress.pipe_id, error, columns)
            if finding.kind is FindingKind.PIPE_ERROR and self._guard.asked_for_rows():
                at = f" ({finding.where})" if finding.where else ""
                raise _NotAnalysed(
                    f"its own code looks at rows, and a dry run has none: {finding.message}{at}"
                ) from error
            progress.findings.append(finding)
            return None

    def _finding(self, progress: _Progress, mismatch: Mismatch) -> Finding:
        return Finding(
            progress.pipe_id,
            mismatch.kind,
            mismatch.message,
            mismatch.severity,
            progress.output_entity_id,
            mismatch.column,
            suggestion=mismatch.suggestion,
        )

    def _placed(self, finding: Finding) -> Finding:
        """The finding with the place of the pipe's declaration where it has no other."""
        source = self._manifest.pipes_by_id[finding.pipe_id].source
        path = self._project.source_path(source) if source is not None and not finding.file else None
        return replace(finding, file=str(path), line=source.line) if source is not None and path else finding


def _receivers() -> Any:
    """What emits the signals by which receivers change frames: Kindling's own, or the app's in its place."""
    from kindling.data_pipes import EntityReadPersistStrategy
    from kindling.injection import get_kindling_service

    return get_kindling_service(EntityReadPersistStrategy)


def _refusal_in(error: BaseException | None) -> WriteRefusedError | None:
    """The refused write behind an error, also where the pipe's code made another error of it."""
    while error is not None and not isinstance(error, WriteRefusedError):
        error = error.__cause__ or error.__context__
    return error


def _is_frame(value: Any) -> bool:
    return value is not None and hasattr(value, "schema")
