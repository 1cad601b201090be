"""Which store, and which part of it, is a project's: the same answer for hosts, clients and sensors."""

from __future__ import annotations

import os

from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.store import default_store_url
from kindling_dagster.streaming.store.location import STORE_URL_VARIABLE


def store_project(project: KindlingProject) -> str:
    """The name under which the store keeps a project: the app in its environment."""
    return f"{project.name}@{project.environment}"


def store_url(stated: str | None, storage_directory: str | None) -> str | None:
    """The store's URL: the stated one, else the environment's, else the SQLite file in a folder.

    Args:
        stated: What a resource or a command line says.
        storage_directory: Dagster's ``instance.storage_directory()``; None where there is no instance.

    Returns:
        None when nothing says where the store is.
    """
    given = stated or os.environ.get(STORE_URL_VARIABLE)
    if given:
        return given
    return None if storage_directory is None else default_store_url(storage_directory)


def running_code_version(project: KindlingProject) -> str:
    """What a host reports as its code version: changes with anything the app declares or its pipes call."""
    return project.manifest.content_hash[:16]
