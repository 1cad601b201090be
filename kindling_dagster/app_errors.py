"""What an app or Kindling raises while an app is loaded, as errors of ours: what, where in the app, what to do."""

from __future__ import annotations

import traceback
from pathlib import Path

from kindling_dagster.apps import AppLayout, load_settings_file
from kindling_dagster.errors import DeclarationError, KindlingDagsterError, ProjectError
from kindling_dagster.secrets import SecretBook

_REGISTRATION = (
    "kindling.data_entities",
    "kindling.data_pipes",
    "kindling.declaration_derivations",
    "kindling.file_ingestion",
    "kindling.entity_provider_sql",
    "kindling.surrogate_keys",
)
"""Modules of Kindling that refuse a declaration."""


def app_place(error: BaseException, layout: AppLayout) -> str:
    """``file:line`` of the innermost frame of the app in a traceback; empty when there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(Path(error.filename), layout)}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if any(path.is_relative_to(root) for root in layout.source_dirs):
            return f"{_shown(path, layout)}:{frame.lineno}"
    return ""


def _shown(path: Path, layout: AppLayout) -> str:
    for root in (layout.root, *(root.parent for root in layout.source_dirs)):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return str(path)


def translate(error: BaseException, layout: AppLayout, secrets: SecretBook) -> KindlingDagsterError:
    """Whatever went wrong, as one of our errors: what, where in the app, what to do; secrets' values masked."""
    if isinstance(error, KindlingDagsterError):
        return error
    place = app_place(error, layout)
    text = secrets.mask(str(error)) or "no message"
    frames = traceback.extract_tb(error.__traceback__)
    broken = _broken_settings_file(error)
    if broken is not None:
        return broken
    innermost = Path(frames[-1].filename).as_posix() if frames else ""
    from_kindling = any(innermost.endswith(f"{name.replace('.', '/')}.py") for name in _REGISTRATION)
    at = f" at {place}" if place else ""
    if from_kindling and isinstance(error, ValueError):
        return DeclarationError(f"Kindling refuses a declaration{at}: {text}", "Correct the declaration.")
    if isinstance(error, ModuleNotFoundError):
        hint = f"Install the package that provides {error.name!r} where the app is loaded, or name it with packages=."
    elif isinstance(error, SystemExit):
        return ProjectError(
            f"The app {layout.name!r} exits while it is loaded{at}.", "Guard it with __main__."
        )
    else:
        hint = "Correct the module; it is imported when the app is loaded."
    return ProjectError(f"The app {layout.name!r} cannot be loaded: {type(error).__name__}{at}: {text}", hint)


def _broken_settings_file(error: BaseException) -> ProjectError | None:
    """For a settings file that an app names itself: load it again by itself to learn which line is wrong."""
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_name == "_merged_settings_file":
            path = step.tb_frame.f_locals.get("file_path")
            if isinstance(path, Path):
                try:
                    load_settings_file(path)
                except ProjectError as broken:
                    return broken
                return ProjectError(f"{path} is no settings file: {error}.", "Correct the file.")
        step = step.tb_next
    return None
