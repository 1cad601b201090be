from __future__ import annotations

import json
import traceback

import pytest

from kindling_dagster.dag.failures import Place, concise, describe, where
from kindling_dagster.dag.suggestions import advise
from kindling_dagster.errors import RunError

APP = Place("flights.pipes", "/app/flights/pipes.py", 12)
LIBRARY = Place("pandas.core", "/v/site-packages/pandas/core.py", 7)
INSTALLED_APP = Place("lake.pipes", "/v/site-packages/lake/pipes.py", 3)
PYSPARK = Place("pyspark.sql.dataframe", "/v/site-packages/pyspark/sql/dataframe.py", 99)
STDLIB = Place("threading", "/lib/threading.py", 1)

JAVA_TEXT = """An error occurred while calling o45.save.
: org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task failed while writing rows to file:/t.
\tat org.apache.spark.sql.errors.QueryExecutionErrors$.taskFailed(QueryExecutionErrors.scala:776)
\tat java.base/java.lang.Thread.run(Thread.java:840)
Caused by: io.delta.exceptions.ConcurrentAppendException: [DELTA_CONCURRENT_APPEND] Files were added to
the root of the table by a concurrent update.
\tat org.apache.spark.sql.delta.ConflictChecker.check(ConflictChecker.scala:1)
\t... 12 more
"""


class Py4JJavaError(Exception):
    """By name what Py4J raises; the real one asks a JVM for its text."""


class AnalysisException(Exception):
    """By name what pyspark raises."""


class PythonException(Exception):
    """By name what pyspark raises for code that failed on an executor."""


class GoneError(Exception):
    def __str__(self):
        raise ConnectionError("no JVM")


def caught(error):
    try:
        raise error
    except type(error) as raised:
        return raised


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([STDLIB, APP, PYSPARK], "/app/flights/pipes.py:12"),
        ([APP, LIBRARY], "/app/flights/pipes.py:12"),
        ([STDLIB, INSTALLED_APP, PYSPARK], "/v/site-packages/lake/pipes.py:3"),
        ([STDLIB, PYSPARK], ""),
        ([Place("__main__", "run.py", 5), PYSPARK], "run.py:5"),
        (
            [APP, Place("kindling.data_pipes", "/k.py", 1), Place("kindling_dagster.x", "/x.py", 2)],
            APP.file + ":12",
        ),
        ([], ""),
    ],
)
def test_where_is_the_innermost_line_of_the_app(places, expected):
    assert where(places) == expected


def test_a_java_error_is_named_after_its_cause():
    failure = describe("gold.x", caught(Py4JJavaError(JAVA_TEXT)))
    assert failure.error.type == "ConcurrentAppendException"
    assert failure.error.message.startswith("[DELTA_CONCURRENT_APPEND] Files were added to\nthe root")
    assert "\tat" not in failure.error.message
    assert "try again" in failure.error.suggestion
    assert not failure.permanent


def test_an_analysis_error_loses_its_plan():
    text = (
        "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column `dely` cannot be resolved. Did you mean `delay`?;\n"
        "'Project ['dely]\n+- Range (0, 3, step=1, splits=Some(2))\n\nJVM stacktrace:\norg.apache…"
    )
    failure = describe("gold.x", caught(AnalysisException(text)))
    assert failure.error.message == text.splitlines()[0]
    assert failure.permanent
    assert failure.error.where.startswith(__file__)


def test_an_error_on_an_executor_points_to_the_line_there():
    text = (
        "\n  An exception was thrown from the Python worker. Please see the stack trace below.\n"
        'Traceback (most recent call last):\n  File "/v/site-packages/pyspark/worker.py", line 9, in main\n'
        '  File "/app/flights/udfs.py", line 42, in hours\nZeroDivisionError: division by zero\n'
    )
    assert describe("gold.x", caught(PythonException(text))).error.where == "/app/flights/udfs.py:42"


def test_our_own_errors_bring_their_suggestion():
    error = describe("a", caught(RunError("It went wrong.", "Do it right."))).error
    assert (error.message, error.suggestion) == ("It went wrong.", "Do it right.")


def test_an_error_without_text_is_named():
    assert describe("a", caught(ValueError())).error.message == "ValueError"


def test_an_error_whose_text_cannot_be_had_is_still_described():
    error = describe("a", caught(GoneError())).error
    assert error.type == "GoneError"
    assert "no JVM" in error.message
    assert __file__ in error.traceback


def test_a_cause_is_in_the_traceback():
    def both():
        try:
            json.loads("{")
        except ValueError as cause:
            raise KeyError("x") from cause

    with pytest.raises(KeyError) as raised:
        both()
    described = describe("a", raised.value).error
    assert described.traceback == "".join(traceback.format_exception(raised.value))
    assert "direct cause" in described.traceback


@pytest.mark.parametrize("text", ["x" * 5000, "\n".join(map(str, range(100)))])
def test_messages_are_short(text):
    assert len(concise(text)) <= 1500
    assert len(concise(text).splitlines()) <= 8


@pytest.mark.parametrize(
    ("types", "message", "part", "permanent"),
    [
        (["AnalysisException"], "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column …", "check --analyze", True),
        (["ParseException"], "[PARSE_SYNTAX_ERROR] Syntax error at or near 'FORM'", "parse", True),
        (["AnalysisException"], "[AMBIGUOUS_REFERENCE] Reference `id` is ambiguous", "qualify", True),
        (["AnalysisException"], "A schema mismatch detected … set option mergeSchema", "schema.drift", True),
        (["AnalysisException"], "[DATATYPE_MISMATCH.BINARY_OP_DIFF_TYPES] Cannot", "cast", True),
        (["ConcurrentAppendException"], "", "one after another", False),
        (
            ["SparkException"],
            "io.delta.exceptions.ConcurrentDeleteReadException: x",
            "one after another",
            False,
        ),
        (["Exception"], "[DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE] Cannot", "unique", False),
        (["AnalysisException"], "[PATH_NOT_FOUND] Path does not exist: file:/x", "run the pipe", False),
        (["FileNotFoundError", "OSError"], "[Errno 2] No such file", "check the path", False),
        (["SparkException"], "[FAILED_READ_FILE.FILE_NOT_EXIST] x", "vacuumed", False),
        (["AccessControlException"], "", "credentials", False),
        (["X"], "Status code: 403 Forbidden", "credentials", False),
        (["X"], "java.lang.OutOfMemoryError: Java heap space", "spark.driver.memory", False),
        (["MemoryError"], "", "toPandas", False),
        (["X"], "java.io.IOException: No space left on device", "spark.local.dir", False),
        (["X"], "Cannot broadcast the table that is larger than 8.0 GiB", "broadcast hint", False),
        (["X"], "Detected implicit cartesian product for INNER join", "condition", True),
        (["PythonException"], "Traceback …", "executors", False),
        (["ModuleNotFoundError", "ImportError"], "No module named 'polars'", "requirements", True),
        (["Py4JNetworkError", "Py4JError"], "Answer from Java side is empty", "gone", False),
        (["X"], "Cannot call methods on a stopped SparkContext.", "gone", False),
        (["KeyError"], "'silver_orders'", "keyword", False),
        (["TypeError"], "p() got an unexpected keyword argument 'raw_x'", "parameters", True),
        (["AttributeError"], "'NoneType' object has no attribute 'write'", "return", False),
    ],
)
def test_known_errors_come_with_advice(types, message, part, permanent):
    advice = advise(types, message)
    assert part in advice.suggestion
    assert advice.permanent == permanent


def test_an_unknown_error_comes_with_none():
    assert advise(["ValueError", "Exception"], "seven is not eight") is None
