"""Names inside SQL text: columns and tables, whatever characters they hold."""

from __future__ import annotations


def backticked(name: str) -> str:
    """A name in Spark's SQL.

    Example:
        >>> backticked("a`b")
        '`a``b`'
    """
    return "`" + name.replace("`", "``") + "`"


def double_quoted(name: str) -> str:
    """A name in the SQL of the standard, which delta-rs and PostgreSQL read.

    Example:
        >>> double_quoted('a"b')
        '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'
