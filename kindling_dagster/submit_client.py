"""A Pipes client for ``spark-submit``: the driver is a process of this machine, the executors are the cluster's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import (
    PipesClient,
    PipesContextInjector,
    PipesMessageHandler,
    PipesMessageReader,
    PipesTempFileContextInjector,
    open_pipes_session,
)
from dagster_pipes import PipesDefaultMessageWriter

from kindling_dagster.errors import RunError
from kindling_dagster.pipes_engine import KindlingMessages
from kindling_dagster.spark import find_java, session_conf, workers_python

_JOB = Path(__file__).parent / "remote" / "__main__.py"
_LOOK_SECONDS = 0.02


class FileMessages(PipesMessageReader):
    """Messages of a job on this machine, by a file.

    Dagster's own ``PipesTempFileMessageReader`` takes a line that is still being written for a whole one, and ends
    there: seen with messages of some ten kilobytes, such as the schema of a wide table or a long stack.
    """

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[Any]:
        """See ``PipesMessageReader``."""
        with tempfile.TemporaryDirectory(prefix="kindling-messages-") as folder:
            path = Path(folder) / "messages"
            path.touch()
            ended = threading.Event()
            thread = threading.Thread(
                target=_hand_on, args=(path, handler, ended), daemon=True, name="kindling messages"
            )
            thread.start()
            try:
                yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(path)}
            finally:
                ended.set()
                thread.join()

    def no_messages_debug_text(self) -> str:
        """See ``PipesMessageReader``."""
        return "Attempted to read messages from a local file."


def _hand_on(path: Path, handler: PipesMessageHandler, ended: threading.Event) -> None:
    """Hand on each line once it is whole; the last one is not where the job died over it."""
    rest = b""
    with path.open("rb") as file:
        while True:
            is_last_look = ended.is_set()
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                handler.handle_message(json.loads(line))
            if is_last_look:
                return
            ended.wait(_LOOK_SECONDS)


class KindlingSubmitClient(PipesClient):
    """Runs Kindling's job by ``spark-submit`` in client deploy mode.

    Settings go there in a file that only this user can read, never on the command line.

    Args:
        master: Spark's master.
        conf: Spark's settings; ours (Delta, scheduling) where they say nothing.
        py_files: What spark-submit sends along, ``--py-files``.
        spark_submit: The program; found on the PATH, else pyspark's own.
        env: Variables of the driver, over this process's.
        context_injector: How the order gets there.
        message_reader: How messages come back; wrapped into a ``KindlingMessages`` where it is none.
        grace_seconds: How long a job may take to end after it was told to, before it is killed.
    """

    def __init__(
        self,
        master: str = "local[*]",
        conf: Mapping[str, Any] | None = None,
        py_files: Sequence[str] = (),
        spark_submit: str | None = None,
        env: Mapping[str, str] | None = None,
        context_injector: PipesContextInjector | None = None,
        message_reader: PipesMessageReader | None = None,
        grace_seconds: float = 75.0,
    ) -> None:
        self._conf = session_conf({"spark.master": master, **(conf or {})})
        self._py_files = tuple(py_files)
        self._program = spark_submit
        self._env = dict(env or {})
        self._injector = context_injector or PipesTempFileContextInjector()
        reader = message_reader or FileMessages()
        self.message_reader = reader if isinstance(reader, KindlingMessages) else KindlingMessages(reader)
        self._grace_seconds = grace_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._terminated = False

    def run(self, *, context: Any, extras: Any = None) -> Any:  # type: ignore[override]  # as Dagster's own do
        """Run the job to its end.

        Raises:
            RunError: spark-submit is not to be found, or the job did not end well.
        """
        with (
            open_pipes_session(
                context=context,
                context_injector=self._injector,
                message_reader=self.message_reader,
                extras=extras,
            ) as session,
            tempfile.TemporaryDirectory(prefix="kindling-submit-") as folder,
        ):
            properties = Path(folder) / "spark.properties"
            properties.touch(mode=0o600)
            lines = [_property(name, value) for name, value in self._conf.items()]
            properties.write_text("".join(lines), encoding="utf-8")
            self._terminated = False
            self._process = subprocess.Popen(
                self._command(properties),
                env={**os.environ, **self._surroundings(), **self._env, **session.get_bootstrap_env_vars()},
                # The driver is a child of spark-submit; together they are one group.
                start_new_session=True,
            )
            try:
                code = self._process.wait()
            finally:
                _kill(self._process)
            if code != 0 and not self._terminated:
                raise RunError(f"spark-submit ended with code {code}.", "See the step's error output.")

    def terminate(self) -> None:
        """Have the job end: first in good order, then by force."""
        process = self._process
        if process is None:
            return
        self._terminated = True
        driver = _driver_of(process)
        try:
            os.kill(driver or process.pid, signal.SIGTERM)
            process.wait(self._grace_seconds)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            _kill(process)

    def _command(self, properties: Path) -> list[str]:
        program = self._program or shutil.which("spark-submit") or _pyspark_submit()
        command = [program, "--properties-file", str(properties)]
        if self._py_files:
            command += ["--py-files", ",".join(self._py_files)]
        return [*command, str(_JOB)]

    def _surroundings(self) -> dict[str, str]:
        found = {"JAVA_HOME": str(find_java().home), "PYSPARK_DRIVER_PYTHON": sys.executable}
        if (python := workers_python(self._conf)) is not None:
            found["PYSPARK_PYTHON"] = python
        return found


def _pyspark_submit() -> str:
    import importlib.util

    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise RunError("There is no spark-submit.", "Install pyspark, or name the program: spark_submit=.")
    return str(Path(spec.origin).parent / "bin" / "spark-submit")


def _property(name: str, value: str) -> str:
    """A line of a Java properties file, as ``java.util.Properties`` reads it back."""
    escaped = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}
    text = "".join(escaped.get(sign, sign) for sign in value)
    # The first sign of equality ends the name; blanks after it belong to no value, unless escaped.
    return f"{name}={chr(92) if text.startswith(' ') else ''}{text}\n"


def _driver_of(process: subprocess.Popen[bytes]) -> int | None:
    """The Python driver below spark-submit; told, it ends its Spark jobs before it ends."""
    import psutil

    try:
        children = psutil.Process(process.pid).children(recursive=True)
        found = [child.pid for child in children if str(_JOB) in child.cmdline()]
    except psutil.Error:
        return None
    return found[-1] if found else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
