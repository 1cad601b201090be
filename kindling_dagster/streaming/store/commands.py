"""Commands: each id has its effect once, however often it arrives, on what is desired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.engine import Connection

from kindling_dagster.streaming.model import Command, Desired
from kindling_dagster.streaming.store import tables
from kindling_dagster.streaming.store.codec import from_text, to_text
from kindling_dagster.streaming.store.errors import StoreError
from kindling_dagster.streaming.store.sql import Scope, insert_new, lock_project, upsert

COMMANDS_KEPT = 20_000
"""Ids of a project that are remembered whatever their age."""
COMMANDS_AT_MOST = 200_000
"""Ids of a project that are remembered at most."""
COMMAND_AGE = 86_400.0
"""Seconds for which ids beyond ``COMMANDS_KEPT`` are remembered too."""

_ACTIONS = ("start", "stop", "restart", "revive")
_command = tables.command
_desired = tables.desired


def obey(wanted: Desired | None, command: Command) -> Desired:
    """What is desired after a command. Pure."""
    before = wanted or Desired(command.stream_id, running=False)
    asked_anew = command.action in ("restart", "revive")
    generation = before.generation + (1 if asked_anew else 0)
    return Desired(
        command.stream_id,
        command.action != "stop",
        generation,
        command.reason,
        command.by,
        command.at,
        revived=generation if command.action == "revive" else before.revived,
    )


def submit(
    connection: Connection, scope: Scope, commands: Sequence[Command], submission: str, now: float
) -> tuple[str, ...]:
    """Obey those commands whose ids are new, in their order; gives these ids.

    Args:
        connection: In a writing transaction.
        scope: Whose.
        commands: What is asked.
        submission: The same for each try of one call: a try whose answer was lost is recognised by it.
        now: Unix seconds.

    Raises:
        StoreError: An action that does not exist.
    """
    _check(commands)
    row = lock_project(connection, scope)
    known = _known(connection, scope, [command.id for command in commands])
    if known and submission in known.values():
        return tuple(dict.fromkeys(c.id for c in commands if known.get(c.id) == submission))
    new: dict[str, Command] = {}
    for command in commands:
        if command.id not in known:
            new.setdefault(command.id, replace(command, at=command.at or now))
    if not new:
        return ()
    taken = list(new.values())
    _apply(connection, scope, taken)
    _remember(connection, scope, taken, row.commands, submission, now)
    _trim(connection, scope, row.commands + len(taken), now)
    return tuple(command.id for command in taken)


def desired(connection: Connection, scope: Scope) -> dict[str, Desired]:
    """What should be, by stream."""
    query = select(_desired).where(_desired.c.project == scope.project).order_by(_desired.c.stream_id)
    return {row.stream_id: _wanted(row) for row in connection.execute(query)}


def revived_generations(connection: Connection, scope: Scope) -> dict[str, int]:
    """By stream, the generation that its last ``revive`` made; streams never revived are left out."""
    query = select(_desired.c.stream_id, _desired.c.revived).where(
        _desired.c.project == scope.project, _desired.c.revived > 0
    )
    return {row.stream_id: row.revived for row in connection.execute(query)}


def _check(commands: Sequence[Command]) -> None:
    for command in commands:
        if command.action not in _ACTIONS:
            raise StoreError(
                f"Command {command.id} for stream {command.stream_id} asks to {command.action!r}.",
                f"There are {', '.join(_ACTIONS)}.",
            )


def _known(connection: Connection, scope: Scope, ids: Sequence[str]) -> dict[str, str]:
    query = select(_command.c.id, _command.c.submission).where(_command.c.project == scope.project)
    found: dict[str, str] = {}
    for some in _chunks(ids):
        rows = connection.execute(query.where(_command.c.id.in_(some)))
        found.update({row.id: row.submission for row in rows})
    return found


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), 500):  # SQLite takes a bounded number of parameters
        yield ids[start : start + 500]


def _apply(connection: Connection, scope: Scope, commands: Sequence[Command]) -> None:
    query = select(_desired).where(_desired.c.project == scope.project)
    wanted: dict[str, Desired] = {}
    for some in _chunks(list(dict.fromkeys(command.stream_id for command in commands))):
        rows = connection.execute(query.where(_desired.c.stream_id.in_(some)))
        wanted.update({row.stream_id: _wanted(row) for row in rows})
    for command in commands:
        wanted[command.stream_id] = obey(wanted.get(command.stream_id), command)
    upsert(connection, _desired, [_row(scope, each) for each in wanted.values()])
    for command in commands:
        if command.action == "revive":
            for table in (tables.dead_letter, tables.recovery):
                connection.execute(
                    delete(table).where(
                        table.c.project == scope.project, table.c.stream_id == command.stream_id
                    )
                )


def _remember(
    connection: Connection, scope: Scope, commands: Sequence[Command], last: int, submission: str, now: float
) -> None:
    rows = [
        {
            "project": scope.project,
            "id": command.id,
            "number": number,
            "submission": submission,
            "received_at": now,
            "body": to_text(command),
        }
        for number, command in enumerate(commands, last + 1)
    ]
    insert_new(connection, _command, rows)
    connection.execute(
        update(tables.project)
        .where(tables.project.c.project == scope.project)
        .values(commands=last + len(commands))
    )


def _trim(connection: Connection, scope: Scope, last: int, now: float) -> None:
    if last > COMMANDS_KEPT:
        old = or_(_command.c.received_at < now - COMMAND_AGE, _command.c.number <= last - COMMANDS_AT_MOST)
        connection.execute(
            delete(_command).where(
                _command.c.project == scope.project, _command.c.number <= last - COMMANDS_KEPT, old
            )
        )


def _wanted(row: Any) -> Desired:
    desired = from_text(row.body, Desired, f"desired state of stream {row.stream_id}")
    return replace(desired, running=row.running, generation=row.generation, revived=row.revived)


def _row(scope: Scope, wanted: Desired) -> dict[str, Any]:
    return {
        "project": scope.project,
        "stream_id": wanted.stream_id,
        "running": wanted.running,
        "generation": wanted.generation,
        "revived": wanted.revived,
        "body": to_text(wanted),
    }
