"""KindlingProject: where an app is and how it loads. Cheap to make; the manifest is recorded by a child process."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from kindling_dagster import errors
from kindling_dagster.apps import AppLayout, locate_app
from kindling_dagster.errors import KindlingDagsterError, ProjectError
from kindling_dagster.manifest import Manifest, SourceRef
from kindling_dagster.manifest_cache import ManifestCache, app_fingerprint

logger = logging.getLogger("kindling_dagster")

RECORD_SECONDS = 300
"""How long recording may take before it is given up."""
INITIALIZE_SECONDS = 1200
"""How long a real start for the manifest may take before it is given up."""
REFRESH_VARIABLE = "KINDLING_DAGSTER_REFRESH"
"""Set to 1 to record anew whatever the cache holds."""


class KindlingProject:
    """A Kindling app in one environment. Immutable; making one reads nothing.

    Args:
        app: An app directory, an ``app.py`` or a package directory; a relative path counts from the
            current directory. May be None when ``manifest`` is given and nothing is run.
        environment: The environment whose settings apply.
        config_dir: A directory of settings shared by apps, Kindling's ``--config``.
        packages: Import names to register besides those of lake-reqs.txt.
        manifest: A manifest file to load instead of recording the app.
        working_dir: Where the app runs; relative paths of its storage and its fixture files count from
            there. The app's directory when None, which is where Kindling's guide has one run it.
        form: ``scaffold``, ``entry_point``, ``packages`` or ``dynamic``; found out when None.
        settings: Bootstrap parameters over all settings files, as ``kindling app run --param``; JSON.

    Raises:
        ProjectError: Neither ``app`` nor ``manifest`` is given.

    Example:
        >>> project = KindlingProject("demo", environment="local")  # doctest: +SKIP
        >>> [pipe.id for pipe in project.manifest.pipes]  # doctest: +SKIP
    """

    def __init__(
        self,
        app: str | Path | None = None,
        *,
        environment: str = "local",
        config_dir: str | Path | None = None,
        packages: Sequence[str] | None = None,
        manifest: str | Path | None = None,
        working_dir: str | Path | None = None,
        form: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if app is None and manifest is None:
            raise ProjectError("A KindlingProject needs an app or a manifest.", "Give the app's directory.")
        # Absolute at once: a run changes the working directory.
        self.app_path = _absolute(app)
        self.environment = environment
        self.config_path = _absolute(config_dir)
        self.packages = tuple(packages or ())
        self.manifest_path = _absolute(manifest)
        self.form = form
        self.settings: Mapping[str, Any] = dict(settings or {})
        self._working_dir = _absolute(working_dir)
        self._loading = threading.RLock()
        self._manifest: Manifest | None = None

    @cached_property
    def layout(self) -> AppLayout:
        """Where the parts of the app are.

        Raises:
            ProjectError: There is no app, or the project names a manifest alone.
        """
        if self.app_path is None:
            raise ProjectError(
                f"The project of manifest {self.manifest_path} names no app.", "Give app= to run it."
            )
        return locate_app(self.app_path, self.packages, self.form)

    @property
    def name(self) -> str:
        """The app's name."""
        return self.layout.name if self.app_path is not None else self.manifest.app.name

    @property
    def run_dir(self) -> Path:
        """The directory the app runs in."""
        return self._working_dir or self.layout.root

    @property
    def working_dir(self) -> Path | None:
        """Where relative storage paths count from; None when a manifest alone does not tell."""
        return self._working_dir if self.app_path is None else self.run_dir

    @property
    def identity(self) -> str:
        """Equal for two projects exactly when they stand for the same app, loaded in the same way."""
        parts = (
            self.app_path,
            self.manifest_path,
            self.environment,
            self.config_path,
            self.packages,
            self._working_dir,
            self.form,
        )
        return json.dumps([str(part) for part in parts] + [self.settings], sort_keys=True, default=str)

    def to_json(self) -> str:
        """How to make this project again, as JSON; ``from_json`` reads it."""
        arguments = {
            "app": self.app_path,
            "environment": self.environment,
            "config_dir": self.config_path,
            "packages": list(self.packages) or None,
            "manifest": self.manifest_path,
            "working_dir": self._working_dir,
            "form": self.form,
            "settings": dict(self.settings) or None,
        }
        return json.dumps(
            {name: value for name, value in arguments.items() if value is not None}, default=str
        )

    @staticmethod
    def from_json(text: str) -> KindlingProject:
        """The project that ``to_json`` described."""
        return KindlingProject(**json.loads(text))

    def describe(self) -> str:
        """The app's path and environment, for messages."""
        return f"{self.app_path or self.manifest_path}, environment {self.environment}"

    def __repr__(self) -> str:
        return (
            f"KindlingProject({str(self.app_path or self.manifest_path)!r}, environment={self.environment!r})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KindlingProject) and other.identity == self.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def manifest(self) -> Manifest:
        """The manifest, loaded once; see ``load_manifest``."""
        return self.load_manifest()

    def load_manifest(self, refresh: bool = False) -> Manifest:
        """The app's manifest: read from its file, from the cache, or recorded by a child process.

        Imports neither the app nor Kindling and starts no JVM in this process.

        Args:
            refresh: Read or record anew, whatever was loaded or cached before.

        Raises:
            ProjectError: The app cannot be found, loaded or recorded.
            DeclarationError: It declares something contradictory, such as one id twice.
            ManifestError: The manifest file cannot be read.
            SparkSetupError: It needs a real start, and Spark does not start.
        """
        with self._loading:
            if self._manifest is None or refresh:
                self._manifest = self._load(refresh)
            return self._manifest

    def _load(self, refresh: bool) -> Manifest:
        if self.manifest_path is not None:
            return Manifest.read(self.manifest_path)
        cache = ManifestCache.default()
        key = app_fingerprint(self.layout, self.run_dir, self._request(real=False))
        wanted_anew = refresh or os.environ.get(REFRESH_VARIABLE, "").lower() in ("1", "true", "yes")
        cached = None if wanted_anew else cache.get(self.layout.name, key)
        if cached is not None:
            return cached
        manifest = self._record()
        cache.put(self.layout.name, key, manifest)
        return manifest

    def _record(self) -> Manifest:
        what = f"Kindling app {self.layout.name!r} (environment {self.environment})"
        started = time.monotonic()
        real = self.layout.form == "dynamic"
        if not real:
            report(f"Recording {what} …")
            answer = self._ask_child(real=False)
            if "wants_real_start" in answer:
                report(f"{what} needs a real start: {answer['wants_real_start']}.")
                real = True
        if real:
            report(f"Initialising {what} with Spark in a child process …")
            answer = self._ask_child(real=True)
        manifest = Manifest.from_json(answer["manifest"], origin="the recording process's answer")
        report(
            f"Recorded {what}: {len(manifest.pipes)} pipes, {len(manifest.entities)} entities, "
            f"{len(manifest.problems)} problems, {time.monotonic() - started:.1f} s."
        )
        return manifest

    def _request(self, real: bool) -> dict[str, Any]:
        return {
            "app": str(self.app_path),
            "packages": list(self.packages),
            "form": self.form,
            "environment": self.environment,
            "config_dir": None if self.config_path is None else str(self.config_path),
            "working_dir": str(self.run_dir),
            "settings": dict(self.settings),
            "real": real,
        }

    def _ask_child(self, real: bool) -> dict[str, Any]:
        """Run the recorder; gives its answer, or raises the error it answers with."""
        seconds = INITIALIZE_SECONDS if real else RECORD_SECONDS
        request = {**self._request(real), "fallback_paths": [entry for entry in sys.path if entry]}
        answer = run_recorder(request, seconds)
        if "error" in answer:
            raise _error_from(answer["error"])
        return answer

    def source_path(self, source: SourceRef) -> Path | None:
        """The file a declaration stands in, on this machine; None when it is not there."""
        if self.app_path is None:
            return None
        if source.in_app:
            candidates = [self.layout.root / source.file]
        else:
            candidates = [root.parent / source.file for root in self.layout.source_dirs]
            candidates += [path / source.file for path in self.layout.python_paths]
        return next((path for path in candidates if path.is_file()), None)


def run_recorder(request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Have a child process do what the request asks; gives its answer.

    Args:
        request: What ``recorder.main`` reads.
        seconds: After so many the child is ended.

    Raises:
        ProjectError: It took too long or ended without an answer.
    """
    app = request["app"]
    with tempfile.TemporaryDirectory(prefix="kindling-dagster-") as folder:
        asked, answered, log = (Path(folder) / name for name in ("request.json", "response.json", "log.txt"))
        asked.write_text(json.dumps(request), encoding="utf-8")
        with log.open("wb") as output:
            try:
                # In a neutral directory: Python puts the current one in front of its path.
                ended = subprocess.run(
                    [sys.executable, "-m", "kindling_dagster.recorder", str(asked), str(answered)],
                    cwd=folder,
                    env=_child_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise ProjectError(
                    f"Loading the Kindling app {app} took more than {seconds:g} s.{_tail(log)}",
                    "Something waits while its modules are imported; move it into a pipe's function.",
                ) from error
        if not answered.is_file():
            raise ProjectError(
                f"The process that loads the Kindling app {app} ended with exit code {ended.returncode} and no "
                f"answer.{_tail(log)}"
            )
        answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    return answer


def report(message: str) -> None:
    """Tell how loading gets on: through logging where that is set up, else on the error output."""
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info(message)
    else:
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


def _absolute(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser().absolute()


def _child_environment() -> dict[str, str]:
    """This process's environment, with relative entries of PYTHONPATH made absolute for another directory."""
    environment = dict(os.environ)
    if entries := environment.get("PYTHONPATH"):
        environment["PYTHONPATH"] = os.pathsep.join(
            str(Path(entry).absolute()) for entry in entries.split(os.pathsep) if entry
        )
    return environment


def _tail(log: Path, lines: int = 20) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    return "\nIts last output:\n" + "\n".join(text.splitlines()[-lines:]) if text else ""


def _error_from(answer: Mapping[str, str]) -> KindlingDagsterError:
    """The child's error as the class it was there."""
    kind = getattr(errors, answer["class"], ProjectError)
    made: KindlingDagsterError = kind(answer["message"], suggestion=answer["suggestion"])
    return made
