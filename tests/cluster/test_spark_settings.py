"""Which Spark settings a session gets: ours, those of spark-defaults.conf, those of the resource."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kindling_dagster import spark
from kindling_dagster.spark import session_conf, spark_defaults, start_session

FILE = """\
# What the administrator of the cluster says.
spark.master            spark://head:7077
spark.executor.memory = 4g
spark.driver.extraJavaOptions -Da=b -Dc=d
spark.hadoop.fs.s3a.endpoint: https://store:9000
  spark.jars.packages   org.apache.hadoop:hadoop-aws:3.3.4,\\
                        org.example:more:1.0
not.sparks              x

spark.empty
"""
Written = Callable[[str], None]


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    return lambda text: (tmp_path / "spark-defaults.conf").write_text(text) and None


def test_the_file_is_read_as_spark_reads_it(defaults: Written) -> None:
    assert spark_defaults() == {}
    defaults(FILE)
    assert spark_defaults() == {
        "spark.master": "spark://head:7077",
        "spark.executor.memory": "4g",
        "spark.driver.extraJavaOptions": "-Da=b -Dc=d",
        "spark.hadoop.fs.s3a.endpoint": "https://store:9000",
        "spark.jars.packages": "org.apache.hadoop:hadoop-aws:3.3.4,org.example:more:1.0",
        "spark.empty": "",
    }


def test_without_the_variable_it_is_sparks_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_CONF_DIR", raising=False)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text("spark.master yarn\n")
    assert session_conf()["spark.master"] == "yarn"


@pytest.mark.parametrize(
    ("file", "resource", "master", "local"),
    [
        ("", {}, "local[*]", True),
        ("spark.master yarn", {}, "yarn", False),
        ("spark.master yarn", {"spark.master": "local[2]"}, "local[2]", True),
        ("spark.master local[4]", {"spark.master": "k8s://https://api:443"}, "k8s://https://api:443", False),
    ],
)
def test_the_master_is_the_resources_then_the_files(
    defaults: Written, file: str, resource: dict[str, str], master: str, local: bool
) -> None:
    defaults(file)
    conf = session_conf(resource)
    assert conf["spark.master"] == master
    # What only one machine wants is not put on a cluster.
    ours = {
        "spark.driver.host",
        "spark.driver.bindAddress",
        "spark.sql.shuffle.partitions",
        "spark.ui.enabled",
    }
    assert (ours <= set(conf), bool(ours & set(conf))) == (local, local)


def test_deltas_jars_are_added_to_those_of_the_file(defaults: Written) -> None:
    defaults("spark.jars.packages org.apache.hadoop:hadoop-aws:3.3.4")
    packages = session_conf()["spark.jars.packages"].split(",")
    assert packages == ["org.apache.hadoop:hadoop-aws:3.3.4", spark.delta_package()]
    defaults("spark.jars /opt/jars/delta-spark_2.12-3.3.3.jar")
    assert "spark.jars.packages" not in session_conf()


@pytest.mark.parametrize(
    ("settings", "before", "wanted"),
    [
        ({"spark.master": "local[2]"}, None, sys.executable),
        ({"spark.master": "local[2]"}, "/usr/bin/python3", "/usr/bin/python3"),
        ({"spark.master": "spark://head:7077"}, None, None),
        ({"spark.master": "spark://head:7077"}, "/usr/bin/python3", "/usr/bin/python3"),
        ({"spark.master": "yarn", "spark.pyspark.python": "./env/bin/python"}, None, "./env/bin/python"),
        ({"spark.master": "yarn", "spark.pyspark.python": "./env/bin/python"}, "/x", "./env/bin/python"),
    ],
)
def test_the_python_of_the_executors(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], before: str | None, wanted: str | None
) -> None:
    class StartedError(Exception):
        pass

    seen: list[str | None] = []

    def create() -> None:
        seen.append(os.environ.get("PYSPARK_PYTHON"))
        raise StartedError

    monkeypatch.setattr(spark, "find_java", lambda: spark.Java(Path("/java"), 17, "the test"))
    monkeypatch.setenv("JAVA_HOME", "/java")
    monkeypatch.setenv("PYSPARK_PYTHON", before or "")
    if before is None:
        monkeypatch.delenv("PYSPARK_PYTHON")
    with pytest.raises(spark.SparkSetupError):
        start_session(create, settings)  # type: ignore[arg-type]
    assert seen == [wanted]
