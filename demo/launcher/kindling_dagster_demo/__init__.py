"""The `demo` command and the feed behind the demo's landing folder."""

from __future__ import annotations


def main() -> None:
    """Start the demo; see `kindling_dagster_demo.launcher`."""
    from kindling_dagster_demo.launcher import run

    run()
