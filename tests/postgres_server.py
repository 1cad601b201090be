"""A PostgreSQL server of the tests' own, from the binaries of this machine; skips where there are none."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

PASSWORD = "p@ss/w:rd s3cret"


def find_binaries() -> Path | None:
    """The folder with PostgreSQL's server programs."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


class PostgresServer:
    """One server on a free port, whose data lie in a folder under the system's temporary one."""

    def __init__(self, binaries: Path, folder: Path, user: str | None) -> None:
        self.binaries = binaries
        self.folder = folder
        self.user = user  # the system user who runs it; None: this one
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def url(self, password: str = PASSWORD, database: str = "postgres") -> str:
        return f"postgresql://postgres:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self.user is not None:
            shutil.chown(self.folder, self.user)
            shutil.chown(secret, self.user)
        self.run(
            *("initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--no-sync"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"),
        )

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", self.data, "-l", log, "-o", options, "-w", "-t", "30", "start")

    def stop(self, mode: str = "immediate") -> None:
        """``immediate`` is a crash: whatever was not committed is lost."""
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        if self.user is not None:
            command = ["runuser", "-u", self.user, "--", *command]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=60)


def missing() -> str:
    """Why no server can be run here; empty when one can."""
    if find_binaries() is None:
        return "no PostgreSQL server on this machine (initdb and pg_ctl of the package postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (kindling-dagster[postgres])"
    if os.geteuid() == 0 and (_system_user() is None or shutil.which("runuser") is None):
        return "PostgreSQL does not run as root, and there is no user postgres with runuser"
    return ""


def _system_user() -> str | None:
    return next((entry.pw_name for entry in pwd.getpwall() if entry.pw_name == "postgres"), None)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server, gone afterwards."""
    if reason := missing():
        pytest.skip(reason)
    binaries = find_binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="kindling-pg-"))
    server = PostgresServer(binaries, folder, _system_user() if os.geteuid() == 0 else None)
    try:
        server.create()
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
