"""The Pipes engine's job side: in an environment without Dagster, from the files that are sent to a driver."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from app_forms import manifest_cache  # noqa: F401  # a fixture
from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    encode_param,
)

from kindling_dagster import KindlingProject, __version__
from kindling_dagster.engines.base import RunRequest
from kindling_dagster.errors import RunError
from kindling_dagster.remote.package import APP_FOLDER, MANIFEST, JobPackage, build_package
from kindling_dagster.remote.protocol import EXTRA, MESSAGE, Order
from kindling_dagster.spark import session_conf

APP = Path(__file__).parents[1] / "running" / "app"
NO_DAGSTER = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dagster", "dagster_shared", "dagster_pyspark"):
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> JobPackage:
    folder = tmp_path_factory.mktemp("sent")
    app = folder / "here" / "shop_app"
    shutil.copytree(APP, app)
    (app / "data").mkdir()
    (app / "data" / "private.csv").write_text("stays here")
    return build_package(KindlingProject(app), folder / "dist")


def test_the_package_holds_code_app_and_manifest_and_no_data(sent: JobPackage) -> None:
    names = zipfile.ZipFile(sent.app).namelist()
    assert {"app.yaml", "settings.yaml", "shop/pipes/steps.py", MANIFEST} <= set(names)
    assert not [name for name in names if "data/" in name or name.endswith(".pyc")]
    assert "kindling_dagster/remote/job.py" in zipfile.ZipFile(sent.package).namelist()
    required = {line.split("==")[0] for line in sent.requirements.read_text().splitlines()}
    assert {"spark-kindling", "dagster-pipes"} <= required
    assert not required & {"dagster", "pyspark"}


def test_an_order_survives_json_and_another_version_is_refused() -> None:
    order = Order("1.0", {"app": "app"}, RunRequest("r", ("a",)), "/tmp/x")
    data = json.loads(json.dumps(order.to_json()))
    assert Order.from_json(data, "1.0") == order
    for wrong in (data, None, [], {}):
        with pytest.raises(RunError, match="same version"):
            Order.from_json(wrong, "1.1")


def _job(sent: JobPackage, folder: Path, order: Any) -> tuple[int, list[dict[str, Any]], str]:
    """Runs the job as a driver does; gives its exit code, what it told, and its error output."""
    with zipfile.ZipFile(sent.app) as archive:
        archive.extractall(folder / APP_FOLDER)
    landing = folder / APP_FOLDER / "data"
    landing.mkdir()
    (landing / "orders.csv").write_text("id,item,amount\n1,pen,10\n")
    (folder / "without").mkdir()
    (folder / "without" / "sitecustomize.py").write_text(NO_DAGSTER)
    messages = folder / "messages"
    messages.touch()
    context = {
        "asset_keys": None, "code_version_by_asset_key": None, "provenance_by_asset_key": None,
        "partition_key": None, "partition_key_range": None, "partition_time_window": None,
        "run_id": "r", "job_name": None, "retry_number": 0, "extras": {EXTRA: order},
    }  # fmt: skip
    conf = {**session_conf({"spark.master": "local[1]"})}
    submit = " ".join(f"--conf '{name}={value}'" for name, value in conf.items()) + " pyspark-shell"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder / "without"), str(sent.package)]),
        "PYSPARK_SUBMIT_ARGS": submit,
        "SHOP_SECRET_PATH": "hidden",
        DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"data": context}),
        DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"path": str(messages)}),
    }
    done = subprocess.run(
        [sys.executable, str(sent.job)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    told = [json.loads(line) for line in messages.read_text().splitlines()]
    ours = [line["params"]["payload"][MESSAGE] for line in told if line["method"] == "report_custom_message"]
    return done.returncode, ours, done.stderr


@pytest.mark.spark
@pytest.mark.timeout(400)
def test_it_runs_without_dagster(sent: JobPackage, tmp_path: Path) -> None:
    project = {"app": APP_FOLDER, "manifest": f"{APP_FOLDER}/{MANIFEST}"}
    # As on another machine, where there is no trace of the process that ordered.
    elsewhere = str(tmp_path / "not here")
    order = Order(__version__, project, RunRequest("r", ("land", "flaky")), elsewhere)
    code, told, errors = _job(sent, tmp_path, order.to_json())
    assert [line["n"] for line in told] == list(range(len(told))), errors
    assert told[0]["hello"]["version"] == __version__, errors
    ended = {
        line["event"]["result"]["pipe_id"]: line["event"]["result"]
        for line in told
        if line.get("event", {}).get("kind") == "pipe_finished"
    }
    assert (code, told[-1].get("end", 0)) == (0, None), errors
    assert ended["land"]["status"] == "succeeded", ended
    assert ended["land"]["metadata"]["rows"] == 1
    # The table it reads is not there: a pipe's failure is told, and is not the job's.
    assert ended["flaky"]["status"] == "failed"


def test_an_order_of_another_version_ends_the_job_with_the_reason(sent: JobPackage, tmp_path: Path) -> None:
    code, told, errors = _job(sent, tmp_path, {"version": "0.0.0"})
    assert code == 1, errors
    assert "0.0.0" in told[-1]["end"]["message"]
    assert "same version" in told[-1]["end"]["suggestion"]
