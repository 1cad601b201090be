"""Backfills a table, one file in a commit, and prints a line after each. Started by the tests, and killed by them."""

from __future__ import annotations

import sys
from datetime import datetime

from kindling_dagster.lineage.backfill import BackfillStep, backfill_lineage
from kindling_dagster.spark import build_session


def tell(step: BackfillStep) -> None:
    print("filled", step.files, flush=True)


if __name__ == "__main__":
    table, version, moment = sys.argv[1:]
    session = build_session({"spark.master": "local[1]"})
    backfill_lineage(
        session,
        table,
        "silver",
        version,
        chunk_bytes=1,
        timestamp=datetime.fromisoformat(moment),
        on_step=tell,
    )
