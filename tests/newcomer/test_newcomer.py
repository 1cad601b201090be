"""A newcomer's path: an app that is there, the wheel in a new environment, `init`, `dagster dev`, green assets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd
import pytest
from app_forms import finished_scaffold, manifest_cache
from deltalake import DeltaTable, write_deltalake

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from driver import DagsterDev, wait_for

__all__ = ["manifest_cache"]

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
# Packages of this repository, which come from it and not from an index.
OURS = ("kindling-dagster", "kindling-dagster-demo")


def run(*command: str | Path, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app as Kindling scaffolds it, with what it asks its user to do, and two orders in bronze."""
    made = finished_scaffold(tmp_path_factory.mktemp("newcomer"))
    write_deltalake(str(made / "Tables" / "bronze" / "orders"), pd.DataFrame({"id": ["1", "2"]}))
    return made


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A new virtual environment with our wheel in it, installed with what it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    venv = folder / "venv"
    plain = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    run("uv", "build", "--wheel", "-o", folder, folder=ROOT, environment=plain)
    run("uv", "venv", "--python", sys.executable, venv, folder=folder, environment=plain)
    # The versions that are here are in uv's cache, and so is nearly all that is installed.
    known = {each.metadata["Name"]: each.version for each in distributions()}
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={known[name]}\n" for name in known if name not in OURS))
    (wheel,) = folder.glob("*.whl")
    install = ["uv", "pip", "install", "--python", venv / "bin" / "python", "-c", constraints]
    tools = [f"{wheel}[java]", "dagster-webserver", "dagster-dg-cli"]
    run(*install, *tools, folder=folder, environment=plain)
    kept = {name: value for name, value in plain.items() if not name.startswith(("DAGSTER_", "KINDLING_"))}
    return {**kept, "VIRTUAL_ENV": str(venv), "PATH": f"{venv / 'bin'}{os.pathsep}{plain['PATH']}"}


class Stack(DagsterDev):
    """`dagster dev` as the newcomer types it: in the project's directory, with nothing told but where to listen."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        super().__init__(folder, folder / "unused.py")
        self.home = folder / ".dagster_home"
        self._environment = environment

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/graphql"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["dagster", "dev", "-h", "127.0.0.1", "-p", str(port)],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # type: ignore[arg-type, return-value]
            )
        self._sessions.add(self._process.pid)
        wait_for("the code location is loaded", self.location, 240)


@pytest.fixture
def stack(app: Path, environment: dict[str, str]) -> Iterator[Stack]:
    repository = app.parents[1]
    told = run("kindling-dagster", "init", "apps/daily_orders", folder=repository, environment=environment)
    assert "cd daily_orders_dagster" in told
    assert "pip install" not in told, "all that is needed is there"
    server = Stack(repository / "daily_orders_dagster", environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_from_an_app_to_green_assets(stack: Stack, app: Path) -> None:
    assert stack.assets() == {"bronze/to_silver_output"}
    run_id = stack.launch("bronze/to_silver_output")
    assert stack.wait(run_id, 300) == "SUCCESS", stack.messages(run_id)
    told = stack.materialized(run_id)["bronze/to_silver_output"]
    assert told["dagster/row_count"] == 2
    rows = DeltaTable(str(app / "Tables" / "bronze" / "to_silver_output")).to_pyarrow_table()
    assert sorted(rows.column("id").to_pylist()) == ["1", "2"]
    # What .env says has been heard: the run is in the project's own instance.
    assert (stack.home / "history").is_dir()
