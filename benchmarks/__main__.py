"""``python -m benchmarks [NAME…] [--check] [--json FILE] [--runs N]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import harness

LATEST = Path(__file__).parent / "results" / "latest.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named; gives the exit code."""
    known = harness.names()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Run benchmarks and print one table."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which ones, all by default: {', '.join(known)}"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    parser.add_argument("--json", type=Path, default=LATEST, metavar="FILE", help="where the results go")
    parser.add_argument(
        "--runs", type=_positive, metavar="N", help="rounds per case, instead of what it says"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    results = harness.run(options.names or known, runs=options.runs, json_path=options.json)
    if any(result.error for result in results):
        return 1
    return 1 if options.check and any(result.failed for result in results) else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
