"""Which SQL writes, and that refused methods are whole again afterwards, but for a pipe that did not end."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from pyspark.sql import DataFrameWriter, SparkSession

from kindling_dagster.analysis.guard import WriteGuard, WriteRefusedError, sql_writes
from kindling_dagster.errors import RunError


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("SELECT 1", False),
        ("  -- insert into\n select 'INSERT INTO t'", False),
        ("(SELECT 1) UNION (SELECT 2)", False),
        ("WITH a AS (SELECT 1) SELECT * FROM a", False),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", True),
        ("FROM t INSERT OVERWRITE TABLE u SELECT *", True),
        ("FROM t SELECT insert", False),
        ("insert into t values (1)", True),
        ("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE", True),
        ("CREATE OR REPLACE TEMPORARY VIEW v AS SELECT 1", False),
        ("CREATE TEMP VIEW v AS SELECT 1", False),
        ("CREATE VIEW v AS SELECT 1", True),
        ("CREATE TABLE temp AS SELECT 1", True),
        ("DROP TEMPORARY FUNCTION f", False),
        ("CREATE TABLE t AS SELECT temp FROM weather", True),
        ("DROP TABLE t", True),
        ("DELETE FROM t", True),
        ("UPDATE t SET a = 1", True),
        ("ALTER TABLE t ADD COLUMN a INT", True),
        ("TRUNCATE TABLE t", True),
        ("OPTIMIZE t", True),
        ("VACUUM t", True),
        ("SHOW TABLES", False),
        ("DESCRIBE DETAIL t", False),
        ("SET spark.sql.shuffle.partitions = 2", False),
        ("", False),
    ],
)
def test_sql_that_writes(sql: str, writes: bool) -> None:
    assert sql_writes(sql) is writes


class Provider:
    @classmethod
    def of(cls) -> str:
        return cls.__name__

    def write_to_entity(self, df: Any) -> str:
        return f"written {df}"


class Inherits(Provider):
    pass


class Providers:
    """Stands for Kindling's EntityProviderRegistry."""

    def list_registered_providers(self) -> list[str]:
        return ["mine"]

    def get_provider_class(self, kind: str) -> type:
        return {"mine": Inherits}[kind]


def methods() -> list[Any]:
    return [
        vars(DataFrameWriter)["__init__"], vars(SparkSession)["sql"], vars(Provider)["write_to_entity"],
        vars(Inherits).get("write_to_entity"),
    ]  # fmt: skip


def test_methods_refuse_and_are_whole_again() -> None:
    before = methods()
    with WriteGuard(Providers()).opened(list):
        with pytest.raises(WriteRefusedError, match="write_to_entity of Kindling's mine provider"):
            Inherits().write_to_entity("x")
        assert Provider().write_to_entity("x") == "written x"
        with pytest.raises(RunError, match="going on"), WriteGuard(Providers()).opened(list):
            pytest.fail("two at a time")
    assert methods() == before
    assert Inherits().write_to_entity("x") == "written x"


def test_a_pipe_that_did_not_end_stays_barred_alone() -> None:
    may_write, seen = threading.Event(), []

    def late() -> None:
        may_write.wait(10)
        try:
            Inherits().write_to_entity("late")
        except WriteRefusedError as error:
            seen.append(error.what)

    before = vars(Inherits).get("write_to_entity")
    thread = threading.Thread(target=late)
    thread.start()
    try:
        with WriteGuard(Providers()).opened(lambda: [thread]):
            pass
        assert Inherits().write_to_entity("x") == "written x"
        may_write.set()
        thread.join(10)
        assert seen == ["write_to_entity of Kindling's mine provider"]
    finally:
        may_write.set()
        thread.join(10)
        if before is None and "write_to_entity" in vars(Inherits):
            del Inherits.write_to_entity
