"""What a materialization says of columns: what each is made of, and where that is not known, why."""

from __future__ import annotations

from typing import Any

from dagster import AssetKey

from kindling_dagster.dag.results import PipeResult, PipeStatus
from kindling_dagster.signals.materialization import materialization_metadata

OWN = AssetKey(["gold", "totals"])
SCHEMA = [
    {"name": "shop", "type": "string", "metadata": {"comment": "Where it was sold"}},
    {"name": "total", "type": "long"},
    {"name": "wide", "type": "long"},
    {"name": "sales", "type": "long"},
    {"name": "kept", "type": "long"},
]


def test_columns_are_described_by_what_they_are_made_of() -> None:
    lineage: dict[str, Any] = {
        "columns": {
            "shop": [["silver.sales", "shop"]],
            "total": [["silver.sales", "amount"], ["ref.rates", "rate"]],
            "wide": [["silver.sales", f"c{number}"] for number in range(8)],
            "kept": [["gold.totals", "kept"]],
        },
        "gaps": {"sales": "it is made of no column of an input"},
    }
    result = PipeResult(
        pipe_id="totals",
        status=PipeStatus.SUCCEEDED,
        generation=0,
        metadata={"schema": SCHEMA, "column_lineage": lineage},
    )
    told = materialization_metadata([result], lambda entity_id: AssetKey(entity_id.split(".")), OWN)
    described = {column.name: column.description for column in told["dagster/column_schema"].columns}
    assert described == {
        "shop": "Where it was sold; from silver/sales: shop",
        "total": "from silver/sales: amount, ref/rates: rate",
        "wide": "from silver/sales: c0, silver/sales: c1, silver/sales: c2, silver/sales: c3, "
        "silver/sales: c4, silver/sales: c5 and 2 more",
        "sales": None,
        "kept": None,
    }
    assert set(told["dagster/column_lineage"].value.deps_by_column) == {"shop", "total", "wide"}
    assert told["kindling/column_lineage_gaps"].value == {
        "sales": "it is made of no column of an input",
        "kept": "it is made of the table's own columns alone",
    }
