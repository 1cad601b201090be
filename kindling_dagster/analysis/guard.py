"""Keeps pipes from writing while they are analysed: every way PySpark, Delta and Kindling offer raises instead."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise, takewhile
from typing import Any

import sqlglot

from kindling_dagster.errors import RunError

_PROVIDER_METHODS = (
    "write_to_entity",
    "append_to_entity",
    "merge_to_entity",
    "replace_entity",
    "append_as_stream",
    "merge_as_stream",
    "ensure_destination",
    "ensure_entity_table",
)
_DELTA_METHODS = (
    "merge",
    "delete",
    "update",
    "vacuum",
    "optimize",
    "generate",
    "convertToDelta",
    "create",
    "createIfNotExists",
    "replace",
    "createOrReplace",
    "restoreToVersion",
    "restoreToTimestamp",
    "upgradeTableProtocol",
    "addFeatureSupport",
    "dropFeatureSupport",
    "clone",
    "cloneAtVersion",
    "cloneAtTimestamp",
)
_READING = frozenset(
    {
        *("SELECT", "WITH", "FROM", "VALUES", "TABLE", "MAP", "REDUCE"),
        *("SHOW", "DESCRIBE", "DESC", "EXPLAIN", "LIST"),
        *("SET", "RESET", "USE", "DECLARE", "CACHE", "UNCACHE", "REFRESH", "CLEAR"),
    }
)
_VIEWS = (
    "createOrReplaceTempView",
    "createTempView",
    "createOrReplaceGlobalTempView",
    "createGlobalTempView",
)


_ACTIONS = ("collect", "count", "head", "take", "tail", "isEmpty", "toPandas", "toLocalIterator", "foreach")


class WriteRefusedError(RunError):
    """A pipe's own code was about to write during a dry run."""

    def __init__(self, what: str) -> None:
        super().__init__(f"A dry run writes nothing, and the pipe's own code calls {what}.")
        self.what = what


def sql_writes(sql: str) -> bool:
    """Whether a Spark SQL statement changes more than the session: data, tables, views of the catalog.

    What cannot be told apart counts as writing.
    """
    try:
        words = [token.text.upper() for token in sqlglot.tokenize(sql, dialect="spark")]
    except sqlglot.errors.SqlglotError:
        words = sql.upper().split()
    first = next((word for word in words if word not in ("(", ";")), "")
    if first in ("CREATE", "DROP"):
        before_what = takewhile(lambda word: word not in ("TABLE", "VIEW", "FUNCTION", "VARIABLE"), words)
        return not {"TEMP", "TEMPORARY"} & set(before_what)
    if first not in _READING:
        return bool(first)
    # Spark allows `WITH … INSERT INTO` and `FROM … INSERT OVERWRITE`.
    return any(word == "INSERT" and following in ("INTO", "OVERWRITE") for word, following in pairwise(words))


class WriteGuard:
    """While it is open, nothing in this process writes through Spark, Delta or Kindling.

    What a pipe does with plain Python (a file, an HTTP request) is out of its reach. Temp views that
    pipes make are taken back at the end. One guard at a time per process.

    Args:
        providers: Kindling's EntityProviderRegistry.
    """

    _one_at_a_time = threading.Lock()

    def __init__(self, providers: Any) -> None:
        self._providers = providers
        self._open = False
        self._barred: frozenset[threading.Thread] = frozenset()
        self._views: dict[str, Callable[[], None]] = {}
        self._asked_for_rows: set[threading.Thread] = set()

    @contextmanager
    def opened(self, still_running: Callable[[], Iterable[threading.Thread]]) -> Iterator[WriteGuard]:
        """Refuse writes until the block is left.

        Args:
            still_running: Asked at the end: threads of pipes that did not end. They stay barred, and
                the guard then stays in place for them alone, for as long as this process lives.
        """
        if not self._one_at_a_time.acquire(blocking=False):
            raise RunError("A dry run is going on in this process already.", "Wait for it to end.")
        undo = ExitStack()
        try:
            self._open = True
            self._install(undo)
            yield self
        finally:
            self._open = False
            for restore in self._views.values():
                restore()
            self._barred = frozenset(still_running())
            if not self._barred:
                undo.close()
            self._one_at_a_time.release()

    def asked_for_rows(self) -> bool:
        """Whether this thread's code has looked at a frame's rows, of which there are none."""
        return threading.current_thread() in self._asked_for_rows

    def _refuses(self) -> bool:
        return self._open or threading.current_thread() in self._barred

    def _install(self, undo: ExitStack) -> None:
        from delta.tables import DeltaTable
        from pyspark import RDD
        from pyspark.sql import Catalog, DataFrameWriter, DataFrameWriterV2, SparkSession
        from pyspark.sql.streaming import DataStreamWriter

        for writer in (DataFrameWriter, DataFrameWriterV2, DataStreamWriter):
            self._refuse(undo, writer, "__init__", "a writer of a DataFrame")
        for name in _DELTA_METHODS:
            self._refuse(undo, DeltaTable, name, f"DeltaTable.{name}")
        for name in ("createTable", "createExternalTable", "recoverPartitions"):
            self._refuse(undo, Catalog, name, f"spark.catalog.{name}")
        for name in [name for name in vars(RDD) if name.startswith("saveAs")]:
            self._refuse(undo, RDD, name, f"RDD.{name}")
        for kind in self._providers.list_registered_providers():
            provider = self._providers.get_provider_class(kind)
            for name in _PROVIDER_METHODS:
                self._refuse(undo, provider, name, f"{name} of Kindling's {kind} provider")
        self._wrap(undo, SparkSession, "sql", self._checked_sql)
        for frame in _frame_classes():
            for name in _VIEWS:
                self._wrap(undo, frame, name, self._noted_view)
            for name in _ACTIONS:
                self._wrap(undo, frame, name, self._noted_action)

    def _refuse(self, undo: ExitStack, owner: type, name: str, what: str) -> None:
        def refusing(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def refused(*args: Any, **kwargs: Any) -> Any:
                if self._refuses():
                    raise WriteRefusedError(what)
                return original(*args, **kwargs)

            return refused

        self._wrap(undo, owner, name, refusing)

    def _wrap(
        self,
        undo: ExitStack,
        owner: type,
        name: str,
        wrapping: Callable[[Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        """Put a wrapper in the place of a method, where there is one, and note how to take it back."""
        method = getattr(owner, name, None)
        if method is None:
            return
        own = vars(owner).get(name)
        if isinstance(own, classmethod):
            setattr(owner, name, classmethod(wrapping(own.__func__)))
        else:
            setattr(owner, name, wrapping(method))
        if own is not None:
            undo.callback(setattr, owner, name, own)
        else:
            undo.callback(delattr, owner, name)

    def _checked_sql(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def checked(session: Any, *args: Any, **kwargs: Any) -> Any:
            query = args[0] if args else kwargs.get("sqlQuery", "")
            if self._refuses() and sql_writes(query):
                raise WriteRefusedError(f"spark.sql with {' '.join(query.split()[:2]).upper()}")
            return original(session, *args, **kwargs)

        return checked

    def _noted_view(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def noted(frame: Any, name: str) -> Any:
            if self._open and "Global" not in original.__name__:
                self._note_view(frame.sparkSession, name)
            return original(frame, name)

        return noted

    def _noted_action(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def noted(*args: Any, **kwargs: Any) -> Any:
            self._asked_for_rows.add(threading.current_thread())
            return original(*args, **kwargs)

        return noted

    def _note_view(self, session: Any, name: str) -> None:
        if name in self._views:
            return
        # Whatever is resolved under the bare name is put back; a table of that name was not replaced.
        before = session.table(name) if session.catalog.tableExists(name) else None

        def restore() -> None:
            session.catalog.dropTempView(name)
            if before is not None and not session.catalog.tableExists(name):
                before.createOrReplaceTempView(name)

        self._views[name] = restore


def _frame_classes() -> tuple[type, ...]:
    """DataFrame; and in Spark 4 the class of a classic session, which has methods of its own."""
    from pyspark.sql import DataFrame

    try:
        from pyspark.sql.classic.dataframe import DataFrame as ClassicFrame
    except ImportError:
        return (DataFrame,)
    return (DataFrame, ClassicFrame)
