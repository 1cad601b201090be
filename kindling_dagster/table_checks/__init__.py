"""Checks of tables: what the app declares of them, held against what they hold."""
