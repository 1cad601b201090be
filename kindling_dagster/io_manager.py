"""KindlingIOManager: entities as inputs of other assets, in the kind of frame that these are annotated with."""

# No `from __future__ import annotations` here, as in resources.py.

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dagster import ConfigurableIOManager, InitResourceContext, InputContext, OutputContext
from pydantic import Field, PrivateAttr

from kindling_dagster.engines.masking import secret_book
from kindling_dagster.engines.thread import SparkThread
from kindling_dagster.errors import RunError
from kindling_dagster.frames import SPARK, frame_kinds, kind_of, make_frame
from kindling_dagster.locations import table_location
from kindling_dagster.manifest import EntitySpec
from kindling_dagster.partitions import COLUMN_METADATA, windows_over
from kindling_dagster.project import KindlingProject
from kindling_dagster.quoting import backticked
from kindling_dagster.reading import EntityReader, ReadRequest, heed_current, kind_of_type
from kindling_dagster.resources import KindlingResource
from kindling_dagster.table_checks.outcome import told_in_a_line
from kindling_dagster.translator import ENTITY_METADATA
from kindling_dagster.windows import Window


class KindlingIOManager(ConfigurableIOManager):
    """Gives Kindling's entities to assets that take them as inputs; writes none.

    The annotation decides in what form: ``pandas.DataFrame``, ``pyarrow.Table``,
    ``pyarrow.RecordBatchReader``, ``polars.DataFrame``, ``polars.LazyFrame`` and
    ``duckdb.DuckDBPyRelation`` are read without a JVM; ``pyspark.sql.DataFrame`` starts the resource's Spark
    session, in the run. The input's metadata narrows what is read: ``columns``, ``filters``, ``current`` (of
    an entity with history) and ``version``.

    ``build_kindling_definitions`` defines one under the resource's key with ``_io_manager``, for the app's assets.

    Args:
        project: The app: a ``KindlingProject``, or what its ``to_json`` gave.
        kindling: For storage options and Spark's settings.

    Example::

        @asset(ins={"orders": AssetIn(["silver", "orders"], metadata={"columns": ["id", "amount"]})})
        def report(orders: pd.DataFrame) -> None: ...
    """

    project: str = Field(description="The app, as KindlingProject.to_json gives it.")
    kindling: KindlingResource

    _opened: KindlingProject | None = PrivateAttr(default=None)
    _session: Any = PrivateAttr(default=None)

    def __init__(self, project: KindlingProject | str, **data: Any) -> None:
        # One that was made from configuration gets the JSON that this one gave it.
        stated = project.to_json() if isinstance(project, KindlingProject) else project
        kindling = data.pop("kindling", None) or KindlingResource()
        super().__init__(**{**data, "kindling": kindling, "project": stated})

    def handle_output(self, context: OutputContext, obj: Any) -> None:  # noqa: ARG002
        """Refuse: entities are written by their pipes.

        Raises:
            RunError: Always.
        """
        raise RunError(
            f"The KindlingIOManager writes nothing, and {context.step_key} hands it an output.",
            "Let a pipe write the entity, or give the asset another io_manager_key.",
        )

    def load_input(self, context: InputContext) -> Any:
        """The entity behind the input's asset, as its annotation asks for.

        Raises:
            RunError: The asset is no entity, the annotation no kind of frame, or the entity cannot be read.
        """
        entity = self._entity(context)
        annotation = context.dagster_type.typing_type
        kind = kind_of(annotation)
        if not kind:
            raise RunError(
                f"The input {context.name} asks for {entity.id} as {annotation!r}.",
                f"Annotate it with one of {', '.join(frame_kinds())}.",
            )
        request = ReadRequest.of(context.definition_metadata or {}, f"the input {context.name}")
        try:
            return self._load(entity, kind, request, self._partition(context))
        except Exception as error:
            if self._base(entity).location.kind != "secret":
                raise
            # Without the error behind it, in whose text the secret may stand.
            line = told_in_a_line(error, self._base(entity))
            text = secret_book(self._project().manifest.secrets).mask(line)
            raise RunError(f"{entity.id} cannot be read: {text}") from None

    def _load(
        self,
        entity: EntitySpec,
        kind: str,
        request: ReadRequest,
        partition: tuple[str, tuple[Window, ...]] | None,
    ) -> Any:
        base = self._base(entity)
        if base is not entity:
            request, entity = replace(request, current=True), base
        if kind == SPARK:
            return self._spark_frame(entity, request, partition)
        reader = EntityReader(entity, self._project().working_dir, self.kindling.storage_options)
        if partition is not None:
            column, windows = partition
            kind_there = kind_of_type(reader.schema(replace(request, columns=(column,))).field(column).type)
            request = request.also(*(window.conditions(column, kind_there) for window in windows))
        return make_frame(kind, reader, request)

    def _partition(self, context: InputContext) -> tuple[str, tuple[Window, ...]] | None:
        """The column and windows of the partitions that the input maps to; None when all of it is read."""
        upstream = context.upstream_output
        said = (upstream.definition_metadata or {}) if upstream is not None else {}
        column = said.get(COLUMN_METADATA)
        if column is None or not context.has_asset_partitions:
            return None
        return str(column), windows_over(context.asset_partitions_def, context.asset_partition_keys)

    def _project(self) -> KindlingProject:
        if self._opened is None:
            self._opened = KindlingProject.from_json(self.project)
        return self._opened

    def _entity(self, context: InputContext) -> EntitySpec:
        upstream = context.upstream_output
        said = (upstream.definition_metadata or {}) if upstream is not None else {}
        key = context.asset_key if context.has_asset_key else None
        # A key alone tells as long as no translator changes it.
        id_ = str(said.get(ENTITY_METADATA) or ("" if key is None else ".".join(key.path)))
        found = self._project().manifest.entities_by_id.get(id_)
        if found is None:
            raise RunError(
                f"The input {context.name} is no entity of the Kindling app {self._project().name}.",
                "Give it another input_manager_key.",
            )
        return found

    def _base(self, entity: EntitySpec) -> EntitySpec:
        """The entity of which a companion shows the current rows; any other entity itself."""
        return self._project().manifest.entities_by_id.get(entity.companion_of, entity)

    def _spark_frame(
        self, entity: EntitySpec, request: ReadRequest, partition: tuple[str, tuple[Window, ...]] | None
    ) -> Any:
        location = table_location(entity, self._project().working_dir)
        if entity.location.kind != "table" and (
            location is None or entity.provider not in ("delta", "parquet")
        ):
            raise RunError(
                f"{entity.id} is of the provider {entity.provider}, which only the app's own pipes read.",
                "Take an entity that a pipe writes to Delta or Parquet.",
            )
        request = heed_current(entity, request)

        def read() -> Any:
            session = self._spark_session()
            if entity.location.kind == "table":
                frame = session.table(entity.location.value)
            else:
                reader = session.read.format(entity.provider)
                if request.version is not None:
                    reader = reader.option("versionAsOf", request.version)
                frame = reader.load(location)
            asked = request
            if partition is not None:
                column, windows = partition
                kind = frame.schema[column].dataType.typeName()
                asked = asked.also(*(window.conditions(column, kind) for window in windows))
            where = asked.where("spark")
            frame = frame.where(where) if where else frame
            return frame.select(*map(backticked, request.columns)) if request.columns else frame

        return _off_main_thread(read)

    def _spark_session(self) -> Any:
        # Here, because it imports PySpark, which definitions do without.
        from kindling_dagster.spark import session_is_up

        if not session_is_up():
            self._session = self.kindling.create_session()
            return self._session
        return self.kindling.create_session()

    def teardown_after_execution(self, context: InitResourceContext) -> None:  # noqa: ARG002
        """Stop the Spark session when the run ends, if an input started it."""
        session, self._session = self._session, None
        if session is not None:
            _off_main_thread(session.stop)


def _off_main_thread(call: Callable[[], Any]) -> Any:
    thread = SparkThread("kindling reading")
    try:
        return thread.submit(call).result()
    finally:
        thread.stop()
