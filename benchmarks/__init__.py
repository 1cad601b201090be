"""Benchmarks against Kindling, Dagster and plain scripts; run with ``python -m benchmarks``."""
