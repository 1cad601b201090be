"""The demo's pages in a real browser, as a person uses them: lineage, materialize, a run's events, a stream, terminate.

Pictures go to the folder that KINDLING_DAGSTER_IMAGES names; `docs/images` makes those of the pages anew.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from driver import DagsterDev, wait_for

from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.identity import store_project
from kindling_dagster.streaming.store import StreamStore, default_store_url
from kindling_dagster.testing import FakeStreamHost

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (Debian's package: chromium)"),
]

ROOT = Path(__file__).parents[2]
PATIENCE = 120_000
"""Milliseconds that a page may take on a machine that does much else."""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    """The demo with two landed days, its streams not started, in `dagster dev`."""
    from kindling_dagster_demo import feed

    folder = tmp_path_factory.mktemp("browser")
    shutil.copy(ROOT / "definitions.py", folder)
    shutil.copytree(
        ROOT / "demo", folder / "demo", ignore=shutil.ignore_patterns("data", "launcher", "__pycache__")
    )
    feed.ensure_landed(folder / "demo", 2)
    server = DagsterDev(folder, folder / "definitions.py")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def page(dev: DagsterDev) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        opened = browser.new_page(viewport={"width": 1600, "height": 1000})
        opened.set_default_timeout(PATIENCE)
        opened.set_default_navigation_timeout(PATIENCE)
        go(opened, dev, "/asset-groups")
        opened.get_by_role("button", name="Skip").click()  # of the greeting at the first visit
        yield opened
        browser.close()


def go(page: Page, dev: DagsterDev, path: str) -> None:
    page.goto(dev.url.removesuffix("/graphql") + path)


def picture(page: Page, name: str, tmp_path: Path, width: int = 1600) -> None:
    folder = Path(os.environ.get("KINDLING_DAGSTER_IMAGES") or tmp_path)
    clip: FloatRect = {"x": 0, "y": 0, "width": width, "height": 1000}
    page.screenshot(path=folder / f"{name}.png", clip=clip)
    assert (folder / f"{name}.png").stat().st_size > 10_000


def newest_run(dev: DagsterDev, before: set[str]) -> str:
    """The run that a click has launched."""

    def look() -> str | None:
        return next(iter(run_ids(dev) - before), None)

    return wait_for("a run was launched", look)


def run_ids(dev: DagsterDev) -> set[str]:
    found: dict[str, Any] = dev.query("{ runsOrError(limit: 50) { ... on Runs { results { runId } } } }")
    return {run["runId"] for run in found["runsOrError"]["results"]}


def materialize(page: Page, dev: DagsterDev, key: str) -> str:
    """Click Materialize on an asset's page; leaves the browser on the page of the run."""
    before = run_ids(dev)
    go(page, dev, f"/assets/{key}")
    page.locator("button", has_text="Materialize").first.click()
    # The landing folder's files are there, but no asset of Dagster's has told of them yet.
    page.locator("button", has_text="Confirm").click()
    run_id = newest_run(dev, before)
    go(page, dev, f"/runs/{run_id}")
    return run_id


def test_the_lineage_shows_the_layers(page: Page, dev: DagsterDev) -> None:
    go(page, dev, "/asset-groups")
    for group in ("landing", "bronze", "reference", "silver", "gold"):
        page.get_by_text(group, exact=True).first.wait_for()


def test_a_run_tells_what_it_commits(page: Page, dev: DagsterDev, tmp_path: Path) -> None:
    run_id = materialize(page, dev, "ref/airlines")
    page.get_by_text(re.compile(r"ref\.airlines committed")).first.wait_for()
    picture(page, "ui_run", tmp_path)
    assert dev.wait(run_id) == "SUCCESS", dev.messages(run_id)


def test_an_assets_page_has_what_is_known_of_it(page: Page, dev: DagsterDev, tmp_path: Path) -> None:
    """Of the asset that the test before has materialized."""
    go(page, dev, "/assets/ref/airlines")
    page.get_by_text("Row count", exact=True).first.wait_for()
    page.get_by_text("16", exact=True).first.wait_for()
    for column, source in (("carrier", "carrier"), ("airline", "name")):
        row = page.get_by_role("row").filter(has_text=column).filter(has_text="string")
        row.filter(has_text=f"from landing/airlines: {source}").first.wait_for()
    page.get_by_text("Freshness policy", exact=True).first.wait_for()
    page.get_by_text("Latest check results", exact=True).wait_for()
    link = page.locator('a[href^="vscode://"]').first
    place = str(link.get_attribute("href"))
    assert re.search(r"/demo/packages/flights/src/flights/pipes/reference\.py:\d+$", place)
    picture(page, "ui_asset", tmp_path, width=1180)  # to the right stands the path of this test's folder

    go(page, dev, "/assets/ref/airlines?view=checks")
    for check in ("merge_keys_not_null", "merge_keys_unique", "schema_drift"):
        page.get_by_text(check, exact=True).first.wait_for()
    page.get_by_text("Succeeded", exact=True).nth(2).wait_for()


def test_a_streams_observations_are_on_its_asset(page: Page, dev: DagsterDev, tmp_path: Path) -> None:
    """A stand-in for the host reports; the supervisor carries it to Dagster: no Spark for this page."""
    project = KindlingProject(dev.folder / "demo")
    store = StreamStore.open(default_store_url(str(dev.home / "storage")), store_project(project))
    client = StreamsClient(store, project.manifest)
    with FakeStreamHost(client) as host:
        client.start(["silver.flights_live"])
        host.obey(rows=842, backlog_bytes=0, processed_rows_per_second=120.0)
        go(page, dev, "/assets/silver/flights_live?view=events")
        page.get_by_text("kindling/state").first.wait_for()
        picture(page, "ui_stream", tmp_path)
        client.stop()
        host.obey()
    store.close()


def test_terminate_ends_a_run(page: Page, dev: DagsterDev) -> None:
    run_id = materialize(page, dev, "ref/airports")
    wait_for("the run has started", lambda: dev.status(run_id) == "STARTED" or None)
    page.locator("button", has_text="Terminate").first.click()
    page.locator("button", has_text=re.compile("(Terminate|Force termination for) 1 run")).click()
    assert dev.wait(run_id, 60) == "CANCELED", dev.messages(run_id)
    go(page, dev, f"/runs/{run_id}")
    page.get_by_text("Canceled", exact=True).first.wait_for()
    wait_for("the run's JVM is gone", lambda: not dev.jvms(), 60)
