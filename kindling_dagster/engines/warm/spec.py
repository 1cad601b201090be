"""What a warm process is for, and the private folder where it is found. Free of Dagster; starts nothing."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from kindling_dagster.errors import RunError
from kindling_dagster.manifest_cache import CODE_SUFFIXES, app_fingerprint
from kindling_dagster.project import KindlingProject

FOLDER_VARIABLE = "KINDLING_DAGSTER_ENGINES"
"""Names another folder for warm processes; it must be the user's own and closed to others."""

IDLE_SECONDS = 900.0
"""How long a warm process outlives its last run."""

_PACKAGES = ("kindling-dagster", "spark-kindling", "pyspark")
# A socket's address has 107 bytes (sun_path, unix(7)), of which its name in the folder takes 31.
_LONGEST_FOLDER = 107 - 31
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class WarmSpec:
    """What a warm process serves; it goes to the process by its standard input, for settings can be secret.

    Args:
        project: The app, as ``KindlingProject.to_json`` gives it.
        conf: Spark's settings, whole.
        code: A hash of the app's files and of what they read of the environment.
        idle_seconds: It ends when no run came for so long.
        storage_options: For reading tables' logs on object storage without Spark, as deltalake takes them.
        memory_bytes: It ends after a run that leaves it larger than this, Spark's JVM with it; None for half
            of the machine's memory.
    """

    project: str
    conf: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    storage_options: Mapping[str, str] = field(default_factory=dict)
    idle_seconds: float = IDLE_SECONDS
    memory_bytes: int | None = None

    @staticmethod
    def of(
        project: KindlingProject,
        conf: Mapping[str, str],
        storage_options: Mapping[str, str],
        *,
        idle_seconds: float = IDLE_SECONDS,
        memory_bytes: int | None = None,
    ) -> WarmSpec:
        """The spec of a project as it stands now.

        Raises:
            ProjectError: There is no app.
        """
        text = project.to_json()
        files = app_fingerprint(project.layout, project.run_dir, json.loads(text), CODE_SUFFIXES)
        # What it reads besides when it declares, such as JSON, shows in the manifest.
        code = f"{files} {project.manifest.content_hash}"
        return WarmSpec(text, dict(conf), code, dict(storage_options), idle_seconds, memory_bytes)

    @property
    def family(self) -> str:
        """Equal for all versions of one project."""
        return _digest(self.project)

    @property
    def key(self) -> str:
        """Equal exactly where one process can serve both: same project, code, Spark settings and packages."""
        packages = [version(name) for name in _PACKAGES]
        settings = [sorted(self.conf.items()), sorted(self.storage_options.items())]
        parts = [self.project, settings, self.code, packages, sys.executable]
        return f"{self.family}-{_digest(json.dumps(parts))}"

    def to_json(self) -> str:
        """As JSON, settings and all."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> WarmSpec:
        """The spec that ``to_json`` wrote."""
        return WarmSpec(**json.loads(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class WarmPlace:
    """Where the process of one key listens and leaves word."""

    folder: Path
    key: str

    @property
    def socket(self) -> Path:
        """The Unix socket."""
        return self.folder / f"{self.key}.sock"

    @property
    def token(self) -> Path:
        """The file with the token that clients must know."""
        return self.folder / f"{self.key}.token"

    @property
    def log(self) -> Path:
        """What the process and its JVM print."""
        return self.folder / f"{self.key}.log"

    @property
    def lock(self) -> Path:
        """Held while somebody looks for the process and starts it."""
        return self.folder / f"{self.key}.lock"


def warm_folder() -> Path:
    """The user's private folder for warm processes; made where it is missing.

    Raises:
        RunError: It belongs to another user, or others may enter it.
    """
    stated = os.environ.get(FOLDER_VARIABLE)
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(stated) if stated else Path(base) / f"kindling-dagster-{os.getuid()}"
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise RunError(
            f"The folder {folder} of warm engines has too long a path for a Unix socket in it.",
            f"Name a shorter one in {FOLDER_VARIABLE}.",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & _OPEN_TO_OTHERS:
        raise RunError(
            f"The folder {folder} of warm engines is not this user's own and closed to others.",
            f"Remove it, close it (chmod 700), or name another in {FOLDER_VARIABLE}.",
        )
    return folder


def places(folder: Path) -> Iterator[WarmPlace]:
    """The places where a process listens, or once did."""
    for socket in sorted(folder.glob("*.sock")):
        yield WarmPlace(folder, socket.stem)
