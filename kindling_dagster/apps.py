"""Where a Kindling app is: its entry point, packages, settings and Python paths. Imports neither the app nor Kindling."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from kindling_dagster.errors import ProjectError

FORMS = ("scaffold", "entry_point", "packages", "dynamic")
NAMESPACES = ("entities", "pipes", "ingestion")
"""The subpackages in which Kindling looks for declarations."""


@dataclass(frozen=True)
class AppLayout:
    """Where the parts of one app are.

    Args:
        name: The app's name: from app.yaml, else its directory's.
        root: The directory the app was given as (or that holds the given app.py).
        app_dir: The directory with settings and lake-reqs.txt, Kindling's ``app_dir``.
        form: One of ``FORMS``.
        app_py: The entry point; None when there is none.
        packages: Import names whose declarations are registered, in order.
        missing_packages: Those of ``packages`` that are not to be found.
        python_paths: What goes in front of the Python path, in order.
        source_dirs: Every directory that holds code of this app: ``root`` and its packages' own.
    """

    name: str
    root: Path
    app_dir: Path
    form: str
    app_py: Path | None
    packages: tuple[str, ...]
    missing_packages: tuple[str, ...]
    python_paths: tuple[Path, ...]
    source_dirs: tuple[Path, ...]


def locate_app(app: str | Path, packages: Sequence[str] = (), form: str | None = None) -> AppLayout:
    """Find out how the app at ``app`` is laid out.

    Args:
        app: An app directory, an ``app.py``, or a package directory.
        packages: Import names to register besides those of lake-reqs.txt.
        form: Forces the form; found out when None.

    Raises:
        ProjectError: Nothing is there, or nothing that is a Kindling app.
    """
    if form is not None and form not in FORMS:
        raise ProjectError(f"{form!r} is no form of a Kindling app.", f"Use one of {', '.join(FORMS)}.")
    given = Path(app).expanduser().absolute()
    if not given.exists():
        raise ProjectError(
            f"There is no Kindling app at {given}: the path does not exist.",
            "Give an app directory, an app.py or a package directory.",
        )
    root = given.parent if given.is_file() else given
    app_py = _find_entry_point(given)
    app_dir = app_py.parent if app_py else root
    own_packages = () if app_py or _is_app_dir(root) else _package_names(root)
    wanted = tuple(dict.fromkeys((*_lake_packages(app_dir), *own_packages, *packages)))
    if app_py is None and not wanted:
        raise ProjectError(
            f"{given} is no Kindling app: it has no app.py, no lake-reqs.txt that names packages, and no "
            f"{', '.join(NAMESPACES)} of its own.",
            "Give the directory that holds app.yaml, or name packages with packages=.",
        )
    paths = _base_paths(root, app_py)
    beside = {name: _find_package(name, root, paths) for name in wanted}
    installed = {name: _installed_package(name) for name in wanted if beside[name] is None}
    around = {name: _package_in_repository(name, root) for name, place in installed.items() if place is None}
    found = {**beside, **installed, **around}
    # An installed package is on the path already, wherever that is.
    parents = [place.parent for place in (*beside.values(), *around.values()) if place is not None]
    return AppLayout(
        name=_app_name(app_dir, root),
        root=root,
        app_dir=app_dir,
        form=form or _detect_form(app_py, own_packages),
        app_py=app_py,
        packages=wanted,
        missing_packages=tuple(name for name, directory in found.items() if directory is None),
        python_paths=tuple(dict.fromkeys((*paths, *parents))),
        source_dirs=_source_dirs(root, app_py, found.values()),
    )


def _find_entry_point(given: Path) -> Path | None:
    """The app.py as Kindling's CLI finds it, or the one app.yaml names."""
    if given.is_file():
        return given
    named = _read_yaml(given / "app.yaml").get("entry_point")
    candidates = [given / str(named)] if named else []
    candidates += [given / "app.py", *sorted(given.glob("src/*/app.py"))]
    if not _is_app_dir(given):
        candidates += [*sorted(given.glob("apps/*/app.py")), *sorted(given.glob("packages/*/src/*/app.py"))]
    found = list(dict.fromkeys(path for path in candidates if path.is_file()))
    if len(found) > 1 and found[0].parent != given:
        listed = ", ".join(str(path.relative_to(given)) for path in found)
        raise ProjectError(f"There are several apps below {given}: {listed}.", "Name one of them.")
    return found[0] if found else None


def _is_app_dir(directory: Path) -> bool:
    return any((directory / name).is_file() for name in ("app.yaml", "lake-reqs.txt"))


def _read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping; empty when there is no file. ProjectError with file and line when it is broken."""
    if not path.is_file():
        return {}
    content = load_settings_file(path)
    return content if isinstance(content, dict) else {}


def load_settings_file(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ProjectError: It cannot be read or parsed; names file and line.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ProjectError(f"{where} is not valid YAML: {reason}.", "Correct the file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path} cannot be read: {error}.") from error


def _app_name(app_dir: Path, root: Path) -> str:
    return str(_read_yaml(app_dir / "app.yaml").get("name") or root.name).strip()


def _lake_packages(app_dir: Path) -> tuple[str, ...]:
    """Import names in lake-reqs.txt: Kindling takes a distribution's name with ``-`` as ``_``."""
    path = app_dir / "lake-reqs.txt"
    if not path.is_file():
        return ()
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    names = (re.split(r"[~<>=!\[; ]", line)[0].strip() for line in lines if line)
    return tuple(dict.fromkeys(name.replace("-", "_").lower() for name in names if name))


def _package_names(root: Path) -> tuple[str, ...]:
    """Import names of the packages with declarations that ``root`` is or holds."""
    if any((root / name).is_dir() for name in NAMESPACES) or (root / "__init__.py").is_file():
        top = _top_package(root)
        return (".".join(root.relative_to(top.parent).parts),)
    holders = (root / "src", root)
    return tuple(
        dict.fromkeys(
            child.name
            for holder in holders
            if holder.is_dir()
            for child in sorted(holder.iterdir())
            if child.name.isidentifier() and any((child / name).is_dir() for name in NAMESPACES)
        )
    )


def _top_package(directory: Path) -> Path:
    """The outermost package around ``directory``: where its chain of ``__init__.py`` begins."""
    while (directory.parent / "__init__.py").is_file():
        directory = directory.parent
    return directory


def _base_paths(root: Path, app_py: Path | None) -> list[Path]:
    paths: list[Path] = []
    if app_py is not None:
        # As Kindling's CLI does: an app inside src/<package>/ is imported from src.
        outer = app_py.parent.parent
        paths.append(outer if outer.name == "src" else app_py.parent)
        paths.append(app_py.parent / "src")
    elif (root / "__init__.py").is_file():
        paths.append(_top_package(root).parent)
    elif not _is_app_dir(root) and not (root / "src").is_dir():
        paths.append(root)
    paths.append(root / "src")
    return [path for path in dict.fromkeys(paths) if path.is_dir()]


def _find_package(name: str, root: Path, paths: Iterable[Path]) -> Path | None:
    """The directory of an import package's top level when it lies in or beside the app."""
    top = name.split(".")[0]
    for path in (*paths, root):
        if (path / top / "__init__.py").is_file() or any((path / top / part).is_dir() for part in NAMESPACES):
            return path / top
    return None


def _installed_package(name: str) -> Path | None:
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(name.split(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _package_in_repository(name: str, root: Path) -> Path | None:
    """The package in ``packages/`` of the app, or of the Kindling repository it belongs to, not installed."""
    top = name.split(".")[0]
    for ancestor in (root, *root.parents):
        for pattern in (f"packages/*/src/{top}", f"packages/{top}"):
            for candidate in sorted(ancestor.glob(pattern)):
                if (candidate / "__init__.py").is_file():
                    return candidate
        if (ancestor / ".git").exists():
            break
    return None


def _source_dirs(root: Path, app_py: Path | None, found: Iterable[Path | None]) -> tuple[Path, ...]:
    dirs = [root]
    if app_py is not None and not app_py.is_relative_to(root):
        dirs.append(app_py.parent)
    for directory in found:
        if directory is not None and not any(directory.is_relative_to(known) for known in dirs):
            dirs.append(directory)
    return tuple(dict.fromkeys(dirs))


def _detect_form(app_py: Path | None, own_packages: Sequence[str]) -> str:
    if app_py is not None and "initialize" in _top_level_names(app_py):
        return "entry_point"
    return "packages" if app_py is None and own_packages else "scaffold"


def _top_level_names(path: Path) -> set[str]:
    """Names an app.py binds at its top level; empty when it cannot be parsed (loading it will say why)."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names
