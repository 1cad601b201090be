"""Recorded manifests on disk, by the hash of everything that decides what an app declares."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kindling_dagster.apps import AppLayout
from kindling_dagster.errors import ManifestError
from kindling_dagster.manifest import Manifest
from kindling_dagster.secrets import environment_names

logger = logging.getLogger("kindling_dagster")

CACHE_VARIABLE = "KINDLING_DAGSTER_CACHE"
"""Names the cache directory."""
KEPT_PER_APP = 12
"""How many manifests of one app are kept, newest first."""

CODE_SUFFIXES = (".py", ".yaml", ".yml", ".sql", ".toml", ".cfg", ".ini")
"""Of files that hold code and settings, and that no run writes."""
_SUFFIXES = (*CODE_SUFFIXES, ".txt", ".json")
_SKIPPED = (
    "__pycache__",
    "node_modules",
    "spark-warehouse",
    "site",
    "dist",
    "build",
    "_delta_log",
    "metastore_db",
)
_MAX_FILE_BYTES = 4_000_000
_ENVIRONMENT_READS = re.compile(
    r"""(?:environ(?:\.get)?\s*[\[(]|getenv\s*\(|env\s*\[)\s*['"]([A-Za-z_]\w*)"""
)
_FORMAT_READS = re.compile(r"""\benv\[(\w+)\]""")
_SECRETS = re.compile(r"@secret[: ]\s*([\w./:-]+)")
_RECORDING = (
    "app_errors",
    "apps",
    "code_version",
    "declarations",
    "manifest",
    "problems",
    "recorder",
    "registries",
    "runtime",
    "secrets",
)
"""Modules of this package that decide what is recorded: part of the fingerprint like the app's own."""
_OURS = "KINDLING_DAGSTER_"


def app_fingerprint(
    layout: AppLayout,
    working_dir: Path,
    request: Mapping[str, Any],
    suffixes: tuple[str, ...] = _SUFFIXES,
) -> str:
    """A hash of all that decides what an app declares: files, request, versions and what it reads of the environment.

    The values of environment variables go into the hash alone.

    Args:
        layout: Where the app is.
        working_dir: Where it runs.
        request: How it is loaded.
        suffixes: How the names of files end that count; by default all that an app may read when it declares.
    """
    digest = hashlib.sha256()
    for module in _RECORDING:
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    packages = ("spark-kindling", "kindling-dagster", "pyspark")
    stated = [sorted(request.items()), [version(name) for name in packages], sys.version_info[:2]]
    digest.update(json.dumps([*stated, sorted(map(str, layout.python_paths))], default=str).encode())
    names = {name for name in os.environ if name.startswith("KINDLING_") and not name.startswith(_OURS)}
    directories = [*layout.source_dirs]
    if request.get("config_dir"):
        directories.append(Path(request["config_dir"]))
    for path in _files(directories, working_dir, suffixes):
        content = _content(path)
        digest.update(f"{path}\0".encode(errors="surrogatepass") + hashlib.sha256(content).digest())
        names |= _environment_read(content.decode("utf-8", errors="ignore"))
    # The request says which environment, and a run sets the variable to it.
    for name in sorted(names - {"KINDLING_ENV"}):
        digest.update(f"{name}={os.environ.get(name, chr(0))}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    """What stands in a file; nothing for one that may not be read or is gone by now: that is for loading to say."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _environment_read(text: str) -> set[str]:
    found = {*_ENVIRONMENT_READS.findall(text), *_FORMAT_READS.findall(text)}
    return found | {name for key in _SECRETS.findall(text) for name in environment_names(key)}


def _files(directories: Iterable[Path], working_dir: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Every file that may matter, sorted within its directory, each once."""
    seen: set[Path] = set()
    for path in (
        working_dir / ".env",
        *(file for directory in directories for file in _walk(directory, suffixes)),
    ):
        if path not in seen and path.is_file():
            seen.add(path)
            yield path


def _walk(
    directory: Path, suffixes: tuple[str, ...], above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Path]:
    try:
        state = directory.stat()
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    here = (state.st_dev, state.st_ino)
    # A link may lead back to a directory that it lies in.
    if here in above or any(entry.name in ("_delta_log", "pyvenv.cfg") for entry in entries):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=True):
            if not entry.name.startswith(".") and not _is_skipped(entry):
                yield from _walk(Path(entry.path), suffixes, above | {here})
        elif entry.name.endswith(suffixes) and _is_small_file(entry):
            yield Path(entry.path)


def _is_skipped(entry: os.DirEntry[str]) -> bool:
    """Whether a folder holds what tools have made; a package may have such a name too."""
    return entry.name in _SKIPPED and not Path(entry.path, "__init__.py").is_file()


def _is_small_file(entry: os.DirEntry[str]) -> bool:
    """False too for a link that leads nowhere, as Emacs leaves beside a file that is being edited."""
    try:
        return entry.is_file() and entry.stat().st_size <= _MAX_FILE_BYTES
    except OSError:
        return False


@dataclass(frozen=True)
class ManifestCache:
    """A directory of manifests. A directory that cannot be used makes every look-up a miss, said once per use."""

    directory: Path

    @staticmethod
    def default() -> ManifestCache:
        """The cache at ``$KINDLING_DAGSTER_CACHE``, below ``$DAGSTER_HOME``, or in the user's cache directory."""
        if stated := os.environ.get(CACHE_VARIABLE):
            return ManifestCache(Path(stated).expanduser().absolute())
        if home := os.environ.get("DAGSTER_HOME"):
            return ManifestCache(Path(home).expanduser().absolute() / ".kindling_dagster")
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return ManifestCache(base / "kindling-dagster")

    def path(self, app: str, key: str) -> Path:
        """Where the manifest of ``app`` with fingerprint ``key`` is kept."""
        return self.directory / "manifests" / f"{_file_name(app)}-{key[:40]}.json"

    def get(self, app: str, key: str) -> Manifest | None:
        """The manifest, or None when there is none that can be read."""
        path = self.path(app, key)
        if not path.is_file():
            return None
        try:
            return Manifest.read(path)
        except ManifestError as error:
            logger.warning("Ignoring a cached manifest: %s", error)
            return None

    def put(self, app: str, key: str, manifest: Manifest) -> None:
        """Keep a manifest; processes may do so at once, and readers see it whole or not at all."""
        path = self.path(app, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(manifest.to_json() + "\n")
            Path(partial).replace(path)
            self._prune(app)
        except OSError as error:
            logger.warning(
                "Recorded manifests cannot be kept in %s (%s), so every process records the app anew; "
                "set %s to a directory that can be written.",
                self.directory,
                error.strerror or error,
                CACHE_VARIABLE,
            )

    def _prune(self, app: str) -> None:
        kept = sorted(
            self.path(app, "").parent.glob(f"{_file_name(app)}-*.json"),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        for old in kept[KEPT_PER_APP:]:
            old.unlink(missing_ok=True)


def _file_name(app: str) -> str:
    return re.sub(r"[^\w-]+", "_", app) or "app"
