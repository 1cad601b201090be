"""Spark's settings as one states them in Dagster, without PySpark."""

from __future__ import annotations

import sys
from typing import Any

from dagster import ConfigurableResource
from pydantic import Field

from kindling_dagster.errors import DeclarationError


class SparkSettings(ConfigurableResource[Any]):
    """Settings of the Spark session that a ``KindlingResource`` starts.

    Says the same as dagster-pyspark's ``LazyPySparkResource``, which can stand in its place; but that imports
    PySpark and NumPy wherever definitions are loaded, and this does not.

    Example::

        KindlingResource(spark=SparkSettings(spark_config={"spark.driver.memory": "4g"}))
    """

    spark_config: dict[str, Any] = Field(
        default={}, description="Spark's settings: names as in its documentation."
    )


def refuse_other_settings(given: object) -> None:
    """Refuse what a ``KindlingResource`` cannot take Spark's settings from.

    A ``PySparkResource`` for example would start Spark itself, on the main thread.

    Raises:
        DeclarationError: It is neither a ``SparkSettings`` nor a ``LazyPySparkResource``.
    """
    # Who has a LazyPySparkResource has imported its module.
    theirs = getattr(sys.modules.get("dagster_pyspark"), "LazyPySparkResource", SparkSettings)
    if isinstance(given, ConfigurableResource) and not isinstance(given, SparkSettings | theirs):
        raise DeclarationError(
            f"A KindlingResource takes no {type(given).__name__} for spark.",
            "Give it a LazyPySparkResource or a SparkSettings: it starts the session itself.",
        )
