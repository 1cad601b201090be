"""The code and settings of docs/clusters.md are what they should be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kindling_dagster import KindlingResource
from kindling_dagster.spark import session_conf, spark_defaults

TEXT = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_python_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_CONF_DIR", raising=False)
    monkeypatch.setenv("POD_IP", "10.0.0.7")
    names: dict[str, Any] = {}
    made: list[KindlingResource] = []
    for block in blocks("python"):
        exec(block, names)
        made.append(names["kindling"])
    standalone, pod, s3, _ = made
    assert session_conf(standalone.spark.spark_config)["spark.master"] == "spark://spark-master:7077"
    assert pod.spark.spark_config["spark.driver.host"] == "10.0.0.7"
    assert set(s3.storage_options) == {"region", "access_key_id", "secret_access_key"}
    assert names["azure"].storage_options["account_name"] == "lake"


@pytest.mark.parametrize("block", blocks("properties"), ids=lambda block: block.split()[1])
def test_each_file_of_the_page_is_read_line_by_line(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    (tmp_path / "spark-defaults.conf").write_text(block)
    settings = dict(line.split(maxsplit=1) for line in block.splitlines())
    assert spark_defaults() == settings
    assert settings.items() - session_conf().items() <= {
        ("spark.jars.packages", settings.get("spark.jars.packages"))
    }


def test_the_settings_of_the_page() -> None:
    (block,) = blocks("yaml")
    assert set(yaml.safe_load(block)["kindling"]["storage"]) == {"table_root", "checkpoint_root"}


def test_the_connectors_are_of_the_hadoop_that_pyspark_has() -> None:
    import pyspark

    jars = Path(pyspark.__file__).parent / "jars"
    [hadoop] = [jar.stem.removeprefix("hadoop-client-api-") for jar in jars.glob("hadoop-client-api-*.jar")]
    line = ".".join(pyspark.__version__.split(".")[:2])
    assert f"{hadoop} with pyspark {line}" in " ".join(TEXT.split())
