"""Which errors can heal: what Spark really said, as ``record_spark_errors.py`` has it, and the table's own rules."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dagster.errors import DeclarationError
from kindling_dagster.streaming.failure_rules import RULES, FailureRule, only_adds_columns
from kindling_dagster.streaming.failures import CheckpointError, FailureClassifier, facts_of, jvm_is_gone

RECORDED = json.loads((Path(__file__).parent / "spark_errors.json").read_text(encoding="utf-8"))
CLASSIFIER = FailureClassifier()

# What was done to a stream → whether a new start can help, and a word of the suggestion.
EXPECTED = {
    "columns added": ("transient", "Columns were added"),
    "output cannot take new column": ("permanent", "schema.drift"),
    "column type changed": ("permanent", "schema of the source"),
    "column type changed, second start": ("permanent", "schema of the source"),
    "column dropped, second start": ("transient", "Columns were added"),
    "foreachBatch raises": ("unknown", "Python code failed"),
    "foreachBatch names no column": ("permanent", "columns and types"),
    "foreachBatch reads a missing table": ("transient", "not there"),
    "merge with double keys": ("permanent", "merge keys unique"),
    "UDF raises": ("unknown", "Python code failed"),
    "value cannot be cast": ("unknown", "try_cast"),
    "query names no column": ("permanent", "columns and types"),
    "source table without a version": ("transient", "not there"),
    "source folder missing": ("transient", "not there"),
    "source row updated": ("permanent", "skipChangeCommits"),
    "source rows deleted": ("permanent", "skipChangeCommits"),
    "source made anew": ("permanent", "another table"),
    "data file missing": ("transient", "not there"),
    "source folder removed while running": ("transient", "not there"),
    "output has other types": ("permanent", "fit the table's schema"),
    "second source added": ("permanent", "checkpoint does not fit"),
    "offset file damaged": ("permanent", "missing or damaged"),
    "grouping changed": ("permanent", "checkpoint does not fit"),
    "memory ran out": ("transient", "Memory ran out"),
}
CASES = [(version, name) for version, cases in RECORDED.items() for name in cases]


def as_exception(chain: list[dict[str, str]], version: str) -> BaseException:
    """An exception like PySpark's: the same class names, texts, conditions and causes."""
    cause: BaseException | None = None
    for link in reversed(chain):
        error: Any = type(link["type"], (Exception,), {})(link["text"])
        setattr(error, "cause" if version == "3.5" else "_cause", cause)
        error.getErrorClass = lambda link=link: link["condition"] or None
        error.getSqlState = lambda link=link: link["sqlstate"] or None
        cause = error
    assert cause is not None
    return cause


def test_everything_recorded_is_expected() -> None:
    assert set(RECORDED) >= {"3.5", "4.1"}
    for cases in RECORDED.values():
        assert set(cases) <= set(EXPECTED)
        assert len(cases) >= len(EXPECTED) - 2


@pytest.mark.parametrize(("version", "name"), CASES)
def test_sparks_exceptions(version: str, name: str) -> None:
    error = CLASSIFIER.stream_error(as_exception(RECORDED[version][name]["exceptions"], version), 5.0)
    kind, suggestion = EXPECTED[name]
    assert (error.kind, error.at) == (kind, 5.0)
    assert suggestion in error.suggestion
    assert "=== Streaming Query ===" not in error.message
    assert "\tat " not in error.message


@pytest.mark.parametrize(
    ("version", "name"), [case for case in CASES if "event" in RECORDED[case[0]][case[1]]]
)
def test_sparks_events(version: str, name: str) -> None:
    """The event of a query's end has the error as text only; the verdict is the same."""
    event = RECORDED[version][name]["event"]
    error = CLASSIFIER.stream_error(event["exception"], 5.0, error_class=event["error_class"])
    kind, suggestion = EXPECTED[name]
    assert error.kind == kind
    assert suggestion in error.suggestion
    assert error.type not in ("Error", "Py4JException", "SparkException", "StreamingQueryException")


@pytest.mark.parametrize(
    ("name", "kinds_of_error", "message"),
    [
        ("foreachBatch raises", {"ValueError"}, "poison row 17"),
        ("UDF raises", {"RuntimeError"}, "udf broke"),
        # Spark 4.1 throws Hadoop's own.
        ("data file missing", {"SparkFileNotFoundException", "FileNotFoundException"}, "File file:/lake/"),
        ("grouping changed", {"InvalidUnsafeRowException", "StateStoreKeySchemaNotCompatible"}, "state"),
    ],
)
@pytest.mark.parametrize("version", RECORDED)
def test_an_error_is_called_by_what_is_inside(
    version: str, name: str, kinds_of_error: set[str], message: str
) -> None:
    event = RECORDED[version][name]["event"]
    error = CLASSIFIER.stream_error(event["exception"], 5.0, error_class=event["error_class"])
    assert error.type in kinds_of_error
    assert message in error.message
    assert not error.message.startswith("Traceback")


TEXTS = [
    ("io.delta.exceptions.ConcurrentAppendException: [DELTA_CONCURRENT_APPEND] Files were added", "transient"),
    ("[DELTA_CONCURRENT_TRANSACTION] multiple streaming queries are using the same checkpoint", "transient"),
    ("java.net.ConnectException: Call From host to store:9000 failed: Connection refused", "transient"),
    ("java.net.UnknownHostException: account.dfs.core.windows.net", "transient"),
    ("com.example.Wrapper: x\nCaused by: java.net.SocketTimeoutException: Read timed out", "transient"),
    ("java.lang.OutOfMemoryError: Java heap space", "transient"),
    ("java.io.IOException: No space left on device", "transient"),
    ("org.apache.spark.SparkException: Job aborted: ExecutorLostFailure (executor 1 exited caused by)", "transient"),
    ("java.lang.IllegalStateException: Cannot call methods on a stopped SparkContext.", "transient"),
    ("[SOME_NEW_CONDITION] something SQLSTATE: 08001", "transient"),
    ("[SOME_NEW_CONDITION] something SQLSTATE: 42846", "permanent"),
    ("[SOME_NEW_CONDITION] something SQLSTATE: 22012", "unknown"),
    ("[DELTA_MISSING_FILES_UNEXPECTED_VERSION] expecting process data from version 3", "permanent"),
    ("[DELTA_STREAMING_INCOMPATIBLE_SCHEMA_CHANGE_USE_SCHEMA_LOG] rename or drop", "permanent"),
    ("[DELTA_STREAMING_METADATA_EVOLUTION] Please restart the stream", "transient"),
    ("[STATE_STORE_KEY_SCHEMA_NOT_COMPATIBLE] Provided key schema does not match", "permanent"),
    ("[CANNOT_LOAD_STATE_STORE.CANNOT_READ_STREAMING_STATE_FILE] Error reading", "permanent"),
    ("org.apache.hadoop.security.AccessControlException: Permission denied: user=x", "unknown"),
    ("java.lang.IllegalStateException: who knows", "unknown"),
    ("", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), TEXTS)
def test_texts(text: str, kind: str) -> None:
    assert CLASSIFIER.stream_error(text, 0.0).kind == kind


ERRORS: list[tuple[BaseException, str]] = [
    (CheckpointError("The checkpoint of flights is gone.", "Put it back."), "permanent"),
    (DeclarationError("bad"), "permanent"),
    (FileNotFoundError("/lake"), "transient"),
    (ConnectionResetError("x"), "transient"),
    (TimeoutError("x"), "transient"),
    (MemoryError(), "transient"),
    (ModuleNotFoundError("no module named pandas"), "permanent"),
    (ValueError("Cannot start flights: schema-less merge sink"), "permanent"),
    (TypeError("Input provider for entity 'a' (type=csv) does not support streaming reads"), "permanent"),
    (ValueError("poison"), "unknown"),
    (KeyboardInterrupt(), "unknown"),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS)
def test_pythons_exceptions(error: BaseException, kind: str) -> None:
    made = CLASSIFIER.stream_error(error, 0.0)
    assert made.kind == kind
    assert made.type == type(error).__name__
    assert made.message


def test_our_own_errors_keep_their_suggestion() -> None:
    error = CLASSIFIER.stream_error(CheckpointError("It is gone.", "Put it back."), 0.0)
    assert (error.message, error.suggestion) == ("It is gone.", "Put it back.")


def test_a_class_named_in_a_plan_or_in_data_does_not_count() -> None:
    text = (
        "org.apache.spark.SparkException: the value 'x FileNotFoundException y' is odd\n"
        "=== Streaming Query ===\nLogical Plan:\n'Project [java.net.ConnectException: as msg]\n"
        "\tat java.lang.OutOfMemoryError.throwIt(x.java:1)"
    )
    assert CLASSIFIER.stream_error(text, 0.0).kind == "unknown"


def test_users_rules_come_first() -> None:
    mine = CLASSIFIER.extended(
        FailureRule("permanent", "Call the owner.", types=("ConnectException",), pattern="ledger"),
        FailureRule("transient", pattern="poison"),
    )
    ledger = mine.stream_error("java.net.ConnectException: the ledger is closed", 0.0)
    assert (ledger.kind, ledger.suggestion) == ("permanent", "Call the owner.")
    assert mine.stream_error("java.net.ConnectException: other", 0.0).kind == "transient"
    assert mine.stream_error(ValueError("poison"), 0.0).kind == "transient"
    with pytest.raises(ValueError, match="needs"):
        FailureRule("transient")


def test_a_rule_that_raises_is_left_out() -> None:
    broken = CLASSIFIER.extended(FailureRule("permanent", pattern=".", holds=lambda text: 1 / 0 > 0))
    assert broken.stream_error(TimeoutError("x"), 0.0).kind == "transient"


def test_every_rule_can_be_met() -> None:
    """A rule that an earlier one always hides is dead: its own first sign must lead to it."""
    for rule in RULES:
        if rule.holds is not None or rule.pattern:
            continue
        condition = rule.conditions[0].rstrip("*") if rule.conditions else ""
        text = " ".join(
            [f"java.lang.{name}: x" for name in rule.types[:1]]
            + [f"[{condition}]" for _ in rule.conditions[:1]]
            + [f"SQLSTATE: {(state + '00000')[:5]}" for state in rule.sqlstates[:1]]
        )
        assert CLASSIFIER.rule_for(facts_of(text)) in [each for each in RULES if each.kind == rule.kind], rule


def test_secrets_stay_out() -> None:
    text = "java.sql.SQLException: jdbc:postgresql://me:hunter22@db/x refused; token=abcdef123456"
    error = CLASSIFIER.stream_error(text, 0.0)
    assert "hunter22" not in error.message
    assert "abcdef123456" not in error.message
    masked = CLASSIFIER.stream_error(
        ValueError("at /lake/s3cr3t"), 0.0, mask=lambda each: each.replace("s3cr3t", "*")
    )
    assert masked.message == "at /lake/*"


def test_causes_are_followed() -> None:
    error = RuntimeError("cannot load")
    error.__cause__ = ConnectionRefusedError("no database")
    assert CLASSIFIER.stream_error(error, 0.0).kind == "transient"
    assert jvm_is_gone(error)
    assert not jvm_is_gone(ValueError("x"))


def test_an_error_whose_text_cannot_be_had() -> None:
    class Gone(Exception):
        def __str__(self) -> str:
            raise ConnectionRefusedError("the JVM is gone")

        def getErrorClass(self) -> str:
            raise ConnectionRefusedError("the JVM is gone")

    error = CLASSIFIER.stream_error(Gone(), 0.0)
    assert (error.type, error.message) == ("Gone", "Gone")


@given(st.text(max_size=2_000))
def test_any_text_is_taken(text: str) -> None:
    error = CLASSIFIER.stream_error(text, 0.0)
    assert error.message
    assert error.type


@pytest.mark.parametrize(
    "text", ["A" * 300_000, ": " * 150_000, "Caused by: " * 30_000, "a." * 150_000, "[A" * 150_000]
)
def test_huge_texts_take_no_time(text: str) -> None:
    began = time.thread_time()
    CLASSIFIER.stream_error(text, 0.0)
    assert time.thread_time() - began < 2.0


def schema(*columns: str) -> str:
    return "root\n" + "".join(f" |-- {column} (nullable = true)\n" for column in columns)


@pytest.mark.parametrize(
    ("read", "found", "adds"),
    [
        (["id: long"], ["id: long", "x: integer"], True),
        (["id: long", "v: long"], ["id: long", "x: integer", "v: long"], True),
        (["id: long"], ["id: string"], False),
        (["id: long", "v: long"], ["id: long"], False),
        (["id: long", "v: long"], ["v: long", "id: long"], False),
        (["a: struct", "   |-- b: long"], ["a: struct", "   |-- b: long", "   |-- c: long"], True),
        (["a: struct", "   |-- b: long"], ["a: struct", "b: long"], False),
    ],
)
def test_only_adds_columns(read: list[str], found: list[str], adds: bool) -> None:
    text = f"streaming source schema: {schema(*read)}\n\ndata file schema: {schema(*found)}\n\nPlease try restarting"
    assert only_adds_columns(text) is adds
    assert not only_adds_columns("something else")


def test_of_wrappers_alone_the_innermost_is_told() -> None:
    """What raise_error in a merged stream gives in Spark 3.5: only its innermost part says anything."""
    text = (
        "py4j.Py4JException: An exception was raised by the Python Proxy. Return Message: Traceback:\n"
        '  File "/x/pyspark/sql/utils.py", line 120, in call\n    raise e\n'
        "py4j.protocol.Py4JJavaError: An error occurred while calling o305.execute.\n"
        ": org.apache.spark.SparkException: Job aborted due to stage failure: Lost task 0.0 in stage 12.0 "
        "(TID 12): java.lang.RuntimeException: a price below zero\n\tat org.apache.spark.sql.A.b(A.java:1)\n"
        "Driver stacktrace:\n\tat org.apache.spark.B.c(B.scala:2)\n"
        "Caused by: java.lang.RuntimeException: a price below zero\n\tat org.apache.spark.sql.A.b(A.java:1)\n"
    )
    error = CLASSIFIER.stream_error(text, 0.0)
    assert (error.type, error.message) == ("RuntimeException", "a price below zero")
