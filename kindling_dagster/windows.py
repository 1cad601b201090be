"""Windows: what a run of some partitions reads of each pipe's inputs. Free of Dagster.

A window travels as one tag of the entity that is written, in a run's ``entity_tags``, so that every
engine has it and a pipe can look at it too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from kindling_dagster.errors import RunError
from kindling_dagster.manifest import Manifest
from kindling_dagster.narrowing import narrowed_reads
from kindling_dagster.reading import Condition

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

WINDOW_TAG = "dagster/window"
"""The tag that holds a window, as JSON."""


@dataclass(frozen=True)
class Window:
    """Some partitions.

    Args:
        columns: By input entity, the column that tells a row's partition; what is not named is read whole.
        keys: The partitions' keys: the column's values. Empty for windows of time.
        start: Of a window of time, ISO with offset: its first moment.
        end: Of a window of time, ISO with offset: the first moment after it.
        timezone: In which the partitions' days begin.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    start: str = ""
    end: str = ""
    timezone: str = "UTC"

    def to_json(self) -> str:
        """As the tag's value."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Window:
        """From the tag's value.

        Raises:
            RunError: It is none.
        """
        try:
            said = json.loads(text)
            return Window(**{**said, "keys": tuple(said.get("keys", ()))})
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"The tag {WINDOW_TAG} is {text!r}.",
                'Give {"columns": {"bronze.orders": "day"}, "keys": ["..."]} or, instead of keys, start and end.',
            ) from error

    def conditions(self, column: str, kind: str) -> tuple[Condition, ...]:
        """What rows of the window meet.

        Args:
            column: Tells a row's partition.
            kind: Its type: ``date``, ``timestamp`` (an instant), ``timestamp_ntz`` (a clock's reading),
                ``string`` (ISO dates), or, for keys, any.

        Raises:
            RunError: A column of this type cannot tell it.
        """
        if not self.start:
            return (Condition(column, "in", tuple(_key(key, kind, column) for key in self.keys)),)
        zone = ZoneInfo(self.timezone)
        first, last = (datetime.fromisoformat(text).astimezone(zone) for text in (self.start, self.end))
        value = _MOMENTS.get(kind)
        if value is None:
            raise RunError(
                f"The column {column} is of type {kind}, which tells no window of time.",
                "Partition by a column of dates, timestamps, or texts that are ISO dates.",
            )
        if kind in ("date", "string") and not all(map(_begins_a_day, (first, last))):
            raise RunError(
                f"The window {self.start} to {self.end} is no whole days in {self.timezone}, and {column} holds days.",
                "Partition by day, or by a column of timestamps.",
            )
        return (Condition(column, ">=", value(first)), Condition(column, "<", value(last)))


def _begins_a_day(moment: datetime) -> bool:
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    # As instants: where clocks are put forward at midnight, a day begins at one o'clock.
    return midnight.astimezone(timezone.utc) == moment.astimezone(timezone.utc)


_MOMENTS: Mapping[str, Callable[[datetime], str | date | datetime]] = {
    "date": datetime.date,
    "string": lambda moment: moment.date().isoformat(),
    "timestamp": lambda moment: moment.astimezone(timezone.utc),
    "timestamp_ntz": lambda moment: moment.replace(tzinfo=None),
}


def _key(key: str, kind: str, column: str) -> Any:
    try:
        if kind in ("byte", "short", "integer", "long"):
            return int(key)
        return date.fromisoformat(key) if kind == "date" else key
    except ValueError as error:
        raise RunError(
            f"The partition {key!r} is no value of the column {column}, of type {kind}.",
            "Name partitions by the column's values.",
        ) from error


def windows_of(entity_tags: Mapping[str, Mapping[str, str]]) -> dict[str, Window]:
    """The windows in a run's ``entity_tags``, by the entity that is written."""
    return {
        id_: Window.from_json(tags[WINDOW_TAG]) for id_, tags in entity_tags.items() if WINDOW_TAG in tags
    }


class WindowedReads:
    """Has pipes read only what belongs to the window of what they write.

    Args:
        manifest: What the app declares.
        entity_tags: The run's.
        signals: Kindling's SignalProvider.
    """

    def __init__(
        self, manifest: Manifest, entity_tags: Mapping[str, Mapping[str, str]], signals: Any
    ) -> None:
        self._manifest = manifest
        self._windows = windows_of(entity_tags)
        self._signals = signals

    @contextmanager
    def narrowing(self) -> Iterator[None]:
        """Within it, pipes read so."""
        if not self._windows:
            yield
            return
        with narrowed_reads(self._signals, self._after_read):
            yield

    def _after_read(self, sender: Any, **payload: Any) -> DataFrame | None:  # noqa: ARG002
        pipe = self._manifest.pipes_by_id.get(str(payload.get("pipe_id")))
        window = None if pipe is None else self._windows.get(pipe.output_entity_id)
        entity_id = str(payload.get("entity_id"))
        if window is None or entity_id not in window.columns:
            return None
        frame: DataFrame = payload["df"]
        column = window.columns[entity_id]
        types = {each.name: each.dataType.typeName() for each in frame.schema.fields}
        if column not in types:
            raise RunError(
                f"{entity_id} has no column {column}, by which {payload.get('pipe_id')} is to read a partition.",
                f"Its columns are {', '.join(types)}.",
            )
        for condition in window.conditions(column, types[column]):
            frame = frame.where(condition.to_sql().sql(dialect="spark"))
        return frame
