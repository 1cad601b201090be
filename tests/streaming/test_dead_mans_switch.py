"""The switch that ends Spark's JVM with its host's lease; on JVMs without a session, which start sooner."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.java_gateway import launch_gateway

from kindling_dagster.jvm import DeadMansSwitch, jvm_is_alive
from kindling_dagster.spark import find_java

pytestmark = pytest.mark.spark


@pytest.fixture
def spark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """As much of a session as the switch needs."""
    monkeypatch.setenv("JAVA_HOME", str(find_java().home))
    gateway = launch_gateway()
    yield SimpleNamespace(_jvm=gateway.jvm, sparkContext=SimpleNamespace(_gateway=gateway))
    gateway.proc.kill()
    gateway.proc.wait(60)


def test_pushed_in_time_the_jvm_lives_and_then_it_ends(spark: Any) -> None:
    switch = DeadMansSwitch(spark, 75)
    switch.push(2)
    switch.push(60)
    with pytest.raises(Exception, match="timed out"):
        spark.sparkContext._gateway.proc.wait(3)
    assert jvm_is_alive(spark)
    switch.push(0.1)
    assert spark.sparkContext._gateway.proc.wait(60) == 75
    assert not jvm_is_alive(spark)


def test_disarmed_it_does_nothing(spark: Any) -> None:
    switch = DeadMansSwitch(spark, 75)
    switch.push(2)
    switch.disarm()
    with pytest.raises(Exception, match="timed out"):
        spark.sparkContext._gateway.proc.wait(3)
    assert jvm_is_alive(spark)
