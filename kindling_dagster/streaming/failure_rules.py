"""The table that says which errors of a stream heal by a new start, and what to do about each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kindling_dagster.streaming.model import ErrorKind


@dataclass(frozen=True)
class FailureRule:
    """What is known about a kind of error. All that is given must fit; of each list, one entry must.

    Args:
        kind: ``transient`` (a new start can help), ``permanent`` (it cannot), ``unknown``.
        suggestion: What to do, one or two sentences.
        types: Class names, Python's or Java's, without packages.
        conditions: Spark's error classes; one that ends in ``*`` stands for all that begin so.
        sqlstates: SQLSTATEs, or their first characters.
        pattern: Regular expression looked for in the text, ignoring case.
        holds: What else must be true of the text.

    Raises:
        ValueError: A rule that would fit everything.
    """

    kind: ErrorKind
    suggestion: str = ""
    types: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    sqlstates: tuple[str, ...] = ()
    pattern: str = ""
    holds: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        if not (self.types or self.conditions or self.sqlstates or self.pattern):
            raise ValueError("A rule for failures needs a type, a condition, an SQLSTATE or a pattern.")

    def fits(
        self, types: Sequence[str], conditions: Sequence[str], sqlstates: Sequence[str], text: str
    ) -> bool:
        """Whether an error with these class names, error classes, SQLSTATEs and text is meant."""
        if self.types and not set(self.types) & set(types):
            return False
        if self.conditions and not any(
            _names(rule, found) for rule in self.conditions for found in conditions
        ):
            return False
        if self.sqlstates and not any(
            found.startswith(rule) for rule in self.sqlstates for found in sqlstates
        ):
            return False
        if self.pattern and re.search(self.pattern, text, re.IGNORECASE | re.DOTALL) is None:
            return False
        return self.holds is None or self.holds(text)


def _names(rule: str, condition: str) -> bool:
    if rule.endswith("*"):
        return condition.startswith(rule[:-1])
    return condition == rule or condition.startswith(f"{rule}.")


_SCHEMAS: Final = re.compile(
    r"streaming source schema:(?P<read>.*?)data file schema:(?P<found>.*?)(?:Please try restarting|$)",
    re.DOTALL,
)
_COLUMN: Final = re.compile(r"^[ |]*-- (?P<name>.*?): (?P<type>.*?)(?: \(.*\))?$")


def only_adds_columns(text: str) -> bool:
    """Whether Delta's message on a changed source schema shows new columns and no other change.

    Delta advises a new start in any case. Measured with Delta 3.3: it helps after new columns, never after
    a column that was dropped or has another type, because earlier versions no longer fit the new schema.
    """
    schemas = _SCHEMAS.search(text)
    if schemas is None:
        return False
    found = _columns(schemas["found"])
    # In order: each column that was read must come next among what is left.
    return all(column in found for column in _columns(schemas["read"]))


def _columns(schema: str) -> Iterator[str]:
    """Depth, name and type of each column of a printed schema."""
    for line in schema.splitlines():
        column = _COLUMN.match(line)
        if column is not None:
            depth = line.index("--") // 5
            yield f"{depth} {column['name']} {column['type']}"


_CONCURRENT: Final = (
    "Another writer changed the table at the same time: if it comes back, partition the table so that "
    "the writers do not meet, or let one stream write it."
)
_TWO_QUERIES: Final = (
    "Another query uses the same checkpoint: see that only one host runs this stream, and that each stream "
    "has a checkpoint of its own."
)
_CHECKPOINT: Final = (
    "The checkpoint does not fit the query: undo the change of the pipe, or give the stream a new checkpoint "
    "and decide what it shall read again."
)
_CHECKPOINT_LOST: Final = (
    "Files of the checkpoint are missing or damaged: put them back, or give the stream a new checkpoint and "
    "decide what it shall read again."
)
_SOURCE_CHANGED: Final = (
    "The schema of the source changed in a way a running stream cannot follow: adapt the pipe, and give the "
    "stream a new checkpoint if the message asks for one."
)
_HISTORY: Final = (
    "The stream needs versions of its source that are no longer there: give it a new checkpoint, decide what "
    "it shall read again, and keep the source's history for longer than a stream may be down."
)
_MISSING: Final = (
    "Something the stream reads is not there (yet): check the path, and that it can be reached from where the "
    "stream runs."
)
_CONNECTION: Final = "The storage, a database or the network did not answer: see whether it is up."
_MEMORY: Final = (
    "Memory ran out: raise `spark.driver.memory` or `spark.executor.memory`, or read less per batch "
    "(`maxFilesPerTrigger`)."
)
_GONE: Final = "Spark's session ended: look for an out-of-memory message before this one."
_ANALYSIS: Final = (
    "Spark cannot make sense of the query: compare the pipe's code with the columns and types the message "
    "names, or run `kindling-dagster check --analyze`."
)
_VALUE: Final = (
    "A value of the batch cannot be worked on: mend the row, or let the pipe cope with such values "
    "(`try_cast`). The same batch is read again at each start."
)
_DECLARATION: Final = "Correct what the pipe or its entities declare."

WRITE_CONFLICTS: Final[tuple[FailureRule, ...]] = (
    FailureRule(
        "transient",
        _CONCURRENT,
        conditions=("DELTA_CONCURRENT_*", "DELTA_METADATA_CHANGED", "DELTA_PROTOCOL_CHANGED"),
    ),
    FailureRule(
        "transient",
        _CONCURRENT,
        types=(
            "ConcurrentAppendException",
            "ConcurrentDeleteReadException",
            "ConcurrentDeleteDeleteException",
            "ConcurrentWriteException",
            "DeltaConcurrentModificationException",
            "MetadataChangedException",
            "ProtocolChangedException",
        ),
    ),
)
"""Another writer was first with the same files of a Delta table: the same write again may succeed."""

# The first that fits decides, so special cases stand before general ones.
RULES: Final[tuple[FailureRule, ...]] = (
    FailureRule("permanent", types=("CheckpointError",)),
    FailureRule(
        "permanent",
        _DECLARATION,
        types=("DeclarationError", "ProjectError", "SelectionError", "PlanError", "SparkSetupError"),
    ),
    # Concurrent writers.
    FailureRule(
        "transient",
        _TWO_QUERIES,
        types=("ConcurrentTransactionException",),
    ),
    FailureRule(
        "transient",
        _TWO_QUERIES,
        conditions=("DELTA_CONCURRENT_TRANSACTION", "CONCURRENT_STREAM_LOG_UPDATE", "CONCURRENT_QUERY"),
    ),
    FailureRule(
        "transient",
        _TWO_QUERIES,
        pattern=r"another query with same id is already active|query .{0,200} has already been started",
    ),
    *WRITE_CONFLICTS,
    # The source's schema. Delta asks for a restart where that can help.
    FailureRule(
        "permanent",
        _SOURCE_CHANGED,
        conditions=(
            "DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE*",
            "DELTA_STREAMING_CANNOT_CONTINUE_PROCESSING_POST_SCHEMA_EVOLUTION",
            "DELTA_STREAMING_CHECK_COLUMN_MAPPING_NO_SNAPSHOT",
            "DELTA_STREAMING_SCHEMA_L*",
        ),
    ),
    FailureRule(
        "transient",
        "Columns were added to the source: a new start reads them too. If the output cannot take them, set "
        "`schema.drift: evolve` on its entity, or select columns in the pipe.",
        conditions=("DELTA_SCHEMA_CHANGED*",),
        holds=only_adds_columns,
    ),
    FailureRule("permanent", _SOURCE_CHANGED, conditions=("DELTA_SCHEMA_CHANGED*",)),
    FailureRule(
        "transient",
        "The schema of the source changed: a new start reads it anew.",
        conditions=(
            "DELTA_SCHEMA_CHANGE_SINCE_ANALYSIS",
            "DELTA_STREAMING_METADATA_EVOLUTION",
            "DELTA_STREAMING_SCHEMA_MISMATCH_ON_RESTART",
        ),
    ),
    # What the source no longer has, or has changed.
    FailureRule(
        "permanent",
        "Rows of the source were updated or deleted, which a stream cannot follow: read its change feed, or set "
        "`skipChangeCommits` if such changes do not matter here.",
        conditions=("DELTA_SOURCE_TABLE_IGNORE_CHANGES", "DELTA_SOURCE_IGNORE_DELETE"),
    ),
    FailureRule(
        "permanent",
        _HISTORY,
        conditions=(
            "DELTA_MISSING_FILES_UNEXPECTED_VERSION",
            "DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING_SOURCE",
            "DELTA_MISSING_CHANGE_DATA",
            "KAFKA_DATA_LOSS*",
        ),
    ),
    FailureRule(
        "permanent",
        "The source is another table than the one the checkpoint was made with: it was deleted and made anew, or "
        "the pipe reads another one. Undo that, or give the stream a new checkpoint.",
        conditions=("DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE",),
    ),
    # The checkpoint.
    FailureRule(
        "permanent",
        _CHECKPOINT,
        conditions=(
            "DELTA_INVALID_SOURCE_OFFSET_FORMAT",
            "STREAMING_STATEFUL_OPERATOR_NOT_MATCH_IN_STATE_METADATA",
            "STATE_STORE_KEY_SCHEMA_NOT_COMPATIBLE",
            "STATE_STORE_VALUE_SCHEMA_NOT_COMPATIBLE",
            "STATE_STORE_INVALID_VALUE_SCHEMA_EVOLUTION",
            "STATE_STORE_COLUMN_FAMILY_SCHEMA_INCOMPATIBLE",
            "STATE_STORE_INVALID_CONFIG_AFTER_RESTART",
            "STATE_STORE_INVALID_VARIABLE_TYPE_CHANGE",
            "STATE_STORE_CHECKPOINT_LOCATION_NOT_EMPTY",
            "CANNOT_LOAD_STATE_STORE.KEY_ROW_FORMAT_VALIDATION_FAILURE",
            "CANNOT_LOAD_STATE_STORE.VALUE_ROW_FORMAT_VALIDATION_FAILURE",
            "STATE_STORE_KEY_ROW_FORMAT_VALIDATION_FAILURE",
            "STATE_STORE_VALUE_ROW_FORMAT_VALIDATION_FAILURE",
        ),
    ),
    FailureRule(
        "permanent",
        _CHECKPOINT,
        types=("StateSchemaNotCompatible", "InvalidUnsafeRowException"),
    ),
    FailureRule(
        "permanent",
        _CHECKPOINT,
        pattern=r"sources? in the checkpoint offsets and now there"
        r"|Provided (key |value )?schema (doesn't|does not) match (to the schema for )?(the )?existing"
        r"|Invalid source offset",
    ),
    FailureRule("permanent", _CHECKPOINT_LOST, conditions=("BATCH_METADATA_NOT_FOUND",)),
    FailureRule(
        "permanent",
        _CHECKPOINT_LOST,
        conditions=("CANNOT_LOAD_STATE_STORE.CANNOT_READ_*", "CHECKPOINT_FILE_CHECKSUM_VERIFICATION_FAILED"),
    ),
    FailureRule(
        "permanent",
        _CHECKPOINT_LOST,
        pattern=r"Incomplete log file|Log file was malformed|failed to read the log file"
        r"|batch \d+ doesn't exist|Unable to find batch|malformed log file|Error reading (delta|snapshot) file"
        r"|Offsets? .{0,80} (log|checkpoint) .{0,40} (missing|not found)",
    ),
    # What is not there, or does not answer.
    FailureRule(
        "transient",
        _MISSING,
        conditions=(
            "PATH_NOT_FOUND",
            "TABLE_OR_VIEW_NOT_FOUND",
            "DELTA_TABLE_NOT_FOUND",
            "DELTA_MISSING_DELTA_TABLE",
            "DELTA_PATH_DOES_NOT_EXIST",
            "DELTA_FILE_NOT_FOUND*",
            "DELTA_SCHEMA_NOT_SET",
            "FAILED_READ_FILE.FILE_NOT_EXIST",
        ),
    ),
    FailureRule(
        "transient",
        _MISSING,
        types=(
            "FileNotFoundError",
            "FileNotFoundException",
            "NoSuchFileException",
            "SparkFileNotFoundException",
            "NotADirectoryError",
            "ParentNotDirectoryException",
        ),
    ),
    FailureRule(
        "transient",
        _MISSING,
        pattern=r"Path does not exist|No such file or directory|is not a Delta table|It is possible the underlying files have been updated",
    ),
    FailureRule(
        "transient",
        _MEMORY,
        types=("OutOfMemoryError", "MemoryError", "SparkOutOfMemoryError"),
    ),
    FailureRule(
        "transient",
        _MEMORY,
        pattern=r"Java heap space|GC overhead limit|Container killed by .{0,40} for exceeding memory"
        r"|UNABLE_TO_ACQUIRE_MEMORY",
    ),
    FailureRule(
        "transient",
        "The disk is full where Spark, the checkpoint or the table writes: free space.",
        pattern=r"No space left on device|Disk quota exceeded",
    ),
    FailureRule(
        "transient",
        _GONE,
        types=("Py4JNetworkError",),
    ),
    FailureRule(
        "transient",
        _GONE,
        pattern=r"Cannot call methods on a stopped SparkContext|SparkContext was shut ?down"
        r"|Answer from Java side is empty|Job \d+ cancelled because SparkContext",
    ),
    FailureRule(
        "transient",
        "An executor was lost: see why in its log; Spark has others, or gets new ones.",
        pattern=r"ExecutorLostFailure|executor .{0,40} exited|Lost executor|FetchFailed|MetadataFetchFailed",
    ),
    FailureRule(
        "transient",
        _CONNECTION,
        types=(
            "ConnectException",
            "ConnectionError",
            "ConnectionRefusedError",
            "ConnectionResetError",
            "BrokenPipeError",
            "TimeoutError",
            "TimeoutException",
            "SocketException",
            "SocketTimeoutException",
            "NoRouteToHostException",
            "UnknownHostException",
            "SSLException",
            "HttpHostConnectException",
            "OperationalError",
            "SQLTransientException",
            "SQLTransientConnectionException",
            "CommunicationsException",
        ),
    ),
    FailureRule(
        "transient",
        _CONNECTION,
        pattern=r"Connection (refused|reset|timed out)|Read timed out|Temporary failure in name resolution"
        r"|503 (Service Unavailable|Slow Down)|SlowDown|ServerBusy|TooManyRequests|\b429\b.{0,40}requests",
    ),
    FailureRule("transient", _CONNECTION, sqlstates=("08", "40", "57")),
    FailureRule(
        "unknown",
        "The storage refused access: check the credentials and the permissions of whoever runs this.",
        pattern=r"Access ?Denied|AccessControlException|AuthorizationPermissionMismatch|403 Forbidden"
        r"|Permission denied",
    ),
    # What no new start changes.
    FailureRule(
        "permanent",
        "What the stream writes does not fit the table's schema: set `schema.drift: evolve` on the entity to let "
        "the table follow, or select and cast to the table's columns.",
        conditions=("DELTA_FAILED_TO_MERGE_FIELDS", "DELTA_MERGE_INCOMPATIBLE_*", "DELTA_METADATA_MISMATCH"),
    ),
    FailureRule(
        "permanent",
        "What the stream writes does not fit the table's schema: set `schema.drift: evolve` on the entity to let "
        "the table follow, or select and cast to the table's columns.",
        pattern=r"A schema mismatch detected when writing|SchemaDrift|schema\.drift",
    ),
    FailureRule(
        "permanent",
        "Several rows of one batch match one row of the table: make the merge keys unique in what the pipe "
        "returns. The same batch is read again at each start, so it fails until then.",
        conditions=("DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE",),
    ),
    FailureRule(
        "permanent",
        "A Python package is missing where the stream runs: add it to the app's requirements.",
        types=("ModuleNotFoundError", "ImportError"),
    ),
    FailureRule("permanent", _DECLARATION, types=("SyntaxError", "IndentationError")),
    FailureRule(
        "permanent",
        _DECLARATION,
        pattern=r"schema-less merge sink|does not support streaming (reads|writes|merges)"
        r"|cannot be a streaming sink|Streaming sink for entity|Missing streaming checkpoint root"
        r"|has no input entities|invalid write\.mode|got an unexpected keyword argument",
    ),
    FailureRule("permanent", _ANALYSIS, types=("ParseException",)),
    FailureRule("permanent", _ANALYSIS, types=("AnalysisException", "ExtendedAnalysisException")),
    FailureRule(
        "permanent",
        _ANALYSIS,
        conditions=(
            "UNRESOLVED_*",
            "AMBIGUOUS_*",
            "DATATYPE_MISMATCH",
            "PARSE_SYNTAX_ERROR",
            "NUM_COLUMNS_MISMATCH",
        ),
    ),
    FailureRule("permanent", _ANALYSIS, sqlstates=("42", "0A")),
    # A row, or the app's own code: a person may have mended it by the next start.
    FailureRule(
        "unknown",
        _VALUE,
        conditions=(
            "CAST_INVALID_INPUT",
            "CAST_OVERFLOW",
            "DIVIDE_BY_ZERO",
            "ARITHMETIC_OVERFLOW",
            "CANNOT_PARSE_*",
        ),
    ),
    FailureRule("unknown", _VALUE, sqlstates=("22",)),
    FailureRule(
        "unknown",
        "A row breaks a constraint of the table: mend the row or the constraint. The same batch is read again at "
        "each start.",
        sqlstates=("23",),
    ),
    FailureRule(
        "unknown",
        "The app's Python code failed: the last lines of the message say where.",
        pattern=r"Traceback \(most recent call last\)",
    ),
    FailureRule("unknown", "The app's Python code failed: see the message.", types=("PythonException",)),
)
