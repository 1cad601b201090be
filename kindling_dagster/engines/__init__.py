"""Engines: where Spark lives while a plan runs."""
