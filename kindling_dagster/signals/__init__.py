"""Typed signals. All but the bridge is free of Dagster."""
