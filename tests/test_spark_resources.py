"""Where a KindlingResource takes Spark's settings from; nothing here starts Spark."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from dagster import job, op
from dagster_pyspark import LazyPySparkResource, PySparkResource

from kindling_dagster import KindlingResource, SparkSettings
from kindling_dagster.errors import DeclarationError


@op(required_resource_keys={"kindling"})
def asks(context):  # type: ignore[no-untyped-def]  # Dagster takes no postponed annotation here
    return context.resources.kindling.spark_conf()


@pytest.mark.parametrize("kind", [SparkSettings, LazyPySparkResource])
def test_settings_of_either_kind_reach_a_run(kind: Any) -> None:
    resource = KindlingResource(spark=kind(spark_config={"spark.driver.memory": "3g"}))

    @job(resource_defs={"kindling": resource.get_resource_definition()})
    def asking() -> None:
        asks()

    conf = asking.execute_in_process().output_for_node("asks")
    assert conf["spark.driver.memory"] == "3g"
    assert "delta-spark" in conf["spark.jars.packages"]


def test_without_settings_there_are_the_defaults() -> None:
    assert KindlingResource().spark_conf() == KindlingResource(spark=SparkSettings()).spark_conf()


def test_settings_can_be_a_mapping() -> None:
    stated = {"spark_config": {"spark.driver.memory": "3g"}}
    assert KindlingResource(spark=stated).spark_conf()["spark.driver.memory"] == "3g"


def test_a_resource_that_starts_spark_itself_is_refused() -> None:
    with pytest.raises(DeclarationError, match="no PySparkResource for spark") as refused:
        KindlingResource(spark=PySparkResource(spark_config={}))
    assert "SparkSettings" in str(refused.value)


def test_settings_alone_import_no_pyspark() -> None:
    code = (
        "import sys\nfrom kindling_dagster import KindlingResource, SparkSettings\n"
        "KindlingResource(spark=SparkSettings(spark_config={'spark.driver.memory': '3g'}))\n"
        "print('pyspark' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
