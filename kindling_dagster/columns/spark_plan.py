"""A frame's analysed plan and its columns' ids, out of the JVM.

PySpark has no public way to either (``DataFrame.explain`` prints text that cannot be read back), so ``_jdf`` is
used here, and nowhere else for this. The plan comes as the JSON that Catalyst itself writes, in one call,
whatever its size; the Scala methods called are the same in Spark 3.5 and 4. It is analysed already: no job is
run, nothing is optimised. Needs a classic session, not Spark Connect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kindling_dagster.columns.tracing import Attribute, Node, read_tree

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class AnalysedFrame:
    """A frame with its analysed plan.

    Args:
        frame: The frame.
    """

    def __init__(self, frame: DataFrame) -> None:
        self._frame = frame
        self._plan: Any = frame._jdf.queryExecution().analyzed()

    def output(self) -> list[Attribute]:
        """The frame's columns with their ids."""
        return parse_output(str(self._plan.output().mkString(", ")), self._frame.columns)

    def tree(self) -> Node:
        """The whole plan."""
        return read_tree(json.loads(self._plan.toJSON()))

    def leaf_hashes(self) -> list[int]:
        """By leaf of the plan, a number that is the same for all reads of the same thing. A call for each."""
        leaves = self._plan.collectLeaves()
        return [int(leaves.apply(index).semanticHash()) for index in range(leaves.size())]


def parse_output(text: str, names: Sequence[str]) -> list[Attribute]:
    """The attributes that Spark writes as ``id#3L, name#4``; the names, which may hold anything, are known.

    Raises:
        ValueError: The text is not of these names.
    """
    found: list[Attribute] = []
    position = 0
    for name in names:
        match = re.compile(re.escape(name) + r"#(\d+)[^,]*(?:, |$)").match(text, position)
        if match is None:
            raise ValueError(f"there is no id of the column {name}")
        found.append(Attribute(name, int(match.group(1))))
        position = match.end()
    return found
