"""What to do about an error: one table from error types and message patterns to a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """What is known about a kind of error.

    Args:
        suggestion: What to do, one or two sentences.
        types: Class names (Python's or Java's, without packages) it goes by; empty for any.
        pattern: Regular expression looked for in the message, ignoring case; empty for any.
        permanent: Whether trying again with nothing changed is pointless.
    """

    suggestion: str
    types: tuple[str, ...] = ()
    pattern: str = ""
    permanent: bool = False

    def fits(self, types: Sequence[str], message: str) -> bool:
        """Whether an error with these class names (its own and its bases') and message is meant."""
        if self.types and not set(self.types) & set(types):
            return False
        return not self.pattern or re.search(self.pattern, message, re.IGNORECASE | re.DOTALL) is not None


_CONCURRENT = (
    "Another writer changed the table at the same time: try again (set attempts), let the writers run "
    "one after another, or partition so that they do not meet."
)
_ACCESS = "The storage refused access: check the credentials and the permissions of whoever runs this."
_GONE = (
    "Spark's JVM is gone or the session was stopped: look for an out-of-memory message before this one, "
    "and do not call spark.stop() in a pipe."
)

# The first entry that fits wins, so special cases stand before general ones.
ADVICE: tuple[Advice, ...] = (
    Advice(
        "A column is named that the input does not have: compare the pipe's code with the columns the "
        "message lists, or run `kindling-dagster check --analyze`.",
        pattern=r"UNRESOLVED_COLUMN|UNRESOLVED_FIELD|cannot resolve .* given input columns"
        r"|DELTA_MERGE_UNRESOLVED_EXPRESSION|FIELD_NOT_FOUND",
        permanent=True,
    ),
    Advice(
        "The SQL text does not parse: see the position in the message.",
        types=("ParseException",),
        permanent=True,
    ),
    Advice(
        "Two inputs have a column of that name: qualify it, or drop or rename one before the join.",
        pattern=r"AMBIGUOUS_REFERENCE|is ambiguous, could be",
        permanent=True,
    ),
    Advice(
        "What the pipe writes does not fit the table's schema: set `schema.drift: evolve` on the entity to "
        "let the table follow, or select and cast to the table's columns.",
        pattern=r"mergeSchema|DELTA_METADATA_MISMATCH|schema mismatch|schema\.drift"
        r"|DELTA_FAILED_TO_MERGE_FIELDS|SchemaDrift",
        permanent=True,
    ),
    Advice(
        "Types do not fit each other: cast one side.",
        pattern=r"DATATYPE_MISMATCH|CANNOT_UP_CAST|INCOMPATIBLE_COLUMN_TYPE|INCOMPATIBLE_DATA_FOR_TABLE",
        permanent=True,
    ),
    Advice(
        _CONCURRENT,
        types=(
            "ConcurrentAppendException",
            "ConcurrentDeleteReadException",
            "ConcurrentDeleteDeleteException",
            "ConcurrentTransactionException",
            "ConcurrentWriteException",
            "DeltaConcurrentModificationException",
            "MetadataChangedException",
            "ProtocolChangedException",
        ),
    ),
    Advice(
        _CONCURRENT,
        pattern=r"DELTA_CONCURRENT_|Concurrent(Append|DeleteRead|DeleteDelete|Transaction|Write)Exception",
    ),
    Advice(
        "Several source rows match one target row: make the merge keys unique in what the pipe returns "
        "(deduplicate, or add a key column to `merge_columns`).",
        pattern=r"DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE|multiple source rows matched",
    ),
    Advice(
        "Nothing is there to read: run the pipe that writes it first, or check the entity's `provider.path`.",
        pattern=r"PATH_NOT_FOUND|Path does not exist|DELTA_MISSING_DELTA_TABLE|DELTA_TABLE_NOT_FOUND"
        r"|DELTA_PATH_DOES_NOT_EXIST|is not a Delta table|TABLE_OR_VIEW_NOT_FOUND|table or view not found",
    ),
    Advice(
        "No file is there: check the path, and that it can be reached from where the pipe runs.",
        types=("FileNotFoundError", "FileNotFoundException", "NoSuchFileException"),
    ),
    Advice(
        "Files of a table vanished while they were read: it was vacuumed or overwritten by something that "
        "is not Delta. Run again; lengthen the table's retention if it comes back.",
        pattern=r"DELTA_FILE_NOT_FOUND|SparkFileNotFoundException|It is possible the underlying files "
        r"have been updated|FAILED_READ_FILE\.FILE_NOT_EXIST",
    ),
    Advice(
        _ACCESS,
        types=("AccessControlException", "AccessDeniedException", "PermissionError"),
    ),
    Advice(
        _ACCESS,
        pattern=r"Access ?Denied|AuthorizationPermissionMismatch|\b403 Forbidden\b|Permission denied",
    ),
    Advice(
        "Memory ran out: raise `spark.driver.memory` or `spark.executor.memory`, lower `max_workers`, use "
        "more shuffle partitions, and avoid collect() and toPandas() on big frames.",
        pattern=r"OutOfMemoryError|Java heap space|GC overhead limit|maxResultSize|UNABLE_TO_ACQUIRE_MEMORY"
        r"|Container killed by .* for exceeding memory",
    ),
    Advice(
        "Memory ran out in Python: process less at once, and avoid collect() and toPandas() on big frames.",
        types=("MemoryError",),
    ),
    Advice(
        "The disk is full where Spark or the table writes: free space, or move `spark.local.dir`.",
        pattern=r"No space left on device",
    ),
    Advice(
        "A frame that is too big was broadcast: drop the broadcast hint, or set "
        "`spark.sql.autoBroadcastJoinThreshold` to -1.",
        pattern=r"Cannot broadcast the table|exceeds the maximum broadcast|spark\.sql\.broadcastTimeout",
    ),
    Advice(
        "A join has no condition: add one, or say crossJoin if every pair is wanted.",
        pattern=r"detected implicit cartesian product",
        permanent=True,
    ),
    Advice(
        "The code executors run fails: the lines of the Python traceback in the message say where.",
        types=("PythonException",),
    ),
    Advice(
        "A Python package is missing where the pipe runs: add it to the app's requirements.",
        types=("ModuleNotFoundError", "ImportError"),
        permanent=True,
    ),
    Advice(
        _GONE,
        types=("Py4JNetworkError", "ConnectionRefusedError"),
    ),
    Advice(
        _GONE,
        pattern=r"Cannot call methods on a stopped SparkContext|SparkContext was shut down"
        r"|Answer from Java side is empty",
    ),
    Advice(
        "A key is asked for that is not there. If it is an input: inputs come by keyword, with `.` in the "
        "entity id turned into `_`.",
        types=("KeyError",),
    ),
    Advice(
        "The pipe function's parameters do not match its inputs: one per input, named like the entity id "
        "with `.` turned into `_`.",
        types=("TypeError",),
        pattern=r"unexpected keyword argument|missing \d+ required (positional|keyword)",
        permanent=True,
    ),
    Advice(
        "Something is None that should not be: does the pipe return its frame?",
        types=("AttributeError",),
        pattern=r"'NoneType' object",
    ),
)


def advise(types: Sequence[str], message: str) -> Advice | None:
    """What is known about an error with these class names and this message; None if nothing is."""
    return next((advice for advice in ADVICE if advice.fits(types, message)), None)
