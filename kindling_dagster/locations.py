"""Where an entity's table lies, for those who read it without Spark."""

from __future__ import annotations

from pathlib import Path

from kindling_dagster.delta_log import local_path
from kindling_dagster.errors import RunError
from kindling_dagster.manifest import EntitySpec
from kindling_dagster.secrets import environment_names, secret_from_environment


def table_location(entity: EntitySpec, working_dir: Path | None) -> str | None:
    """Path or URI of an entity's data; None where only Spark's catalog or session knows.

    Args:
        entity: The entity.
        working_dir: Where relative paths count from.

    Raises:
        RunError: It is a secret that is not there, or a relative path that counts from nowhere.
    """
    if entity.location.kind == "secret":
        return _absolute(_secret(entity), working_dir, entity)
    if entity.location.kind == "path":
        return _absolute(entity.location.value, working_dir, entity)
    return None


def _secret(entity: EntitySpec) -> str:
    key = entity.location.value
    try:
        return secret_from_environment(key)
    except LookupError as error:
        raise RunError(
            f"The location of {entity.id} is the secret {key}, which is not set.",
            f"Set one of the environment variables {', '.join(environment_names(key))}.",
        ) from error


def _absolute(location: str, working_dir: Path | None, entity: EntitySpec) -> str:
    found = absolute_location(location, working_dir)
    path = local_path(found)
    if path is not None and not path.is_absolute():
        raise RunError(
            f"The table of {entity.id} lies at a relative path, and a manifest alone does not say from where.",
            "Give the project its app, or working_dir=.",
        )
    return found


def absolute_location(location: str, working_dir: str | Path | None) -> str:
    """A relative path made absolute; URIs, absolute paths, and what counts from nowhere as they are."""
    path = local_path(location)
    if path is None or path.is_absolute() or not working_dir:
        return location
    return str(Path(working_dir) / path)
