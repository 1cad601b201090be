"""The code of docs/signals.md runs, and does what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bridge_steps import APP, DAILY, LIVE, ORDERS, done, failed, lines_of, run_step, seen
from dagster import DagsterInstance, build_op_context, build_sensor_context, materialize
from kindling.signaling import BlinkerSignalProvider
from test_run_signals import Engine

from kindling_dagster import KindlingProject, KindlingResource
from kindling_dagster.signals.bridge_outputs import Output
from kindling_dagster.signals.bridge_table import DEFAULT_RULES
from kindling_dagster.signals.settings import SignalSettings

TEXT = (Path(__file__).parents[2] / "docs" / "signals.md").read_text(encoding="utf-8")
COMMIT = seen("persist.after_persist", pipe_id="daily", output_entity_id="gold.daily")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names of all Python blocks, run one after another as on the page."""
    folder = tmp_path_factory.mktemp("page")
    APP.write(folder / "manifest.json")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks("python"):
            exec(block, names)
        yield names


def test_the_rules_of_the_page(page: dict[str, Any]) -> None:
    def send(provider: BlinkerSignalProvider) -> None:
        loader = page["FileLoader"](provider)
        loader.load("gold.daily", 0)
        loader.shutdown_signals(30)
        for name in ("entity.after_merge", "config.post_reload"):
            provider.create_signal(name).send(None, entity_id="silver.orders", duration_seconds=90.0)

    class Resource(KindlingResource):
        def engine_for(self, project: KindlingProject, context: Any) -> Any:
            return Engine(send)

    instance = DagsterInstance.ephemeral()
    result = materialize([page["shop"]], resources={"kindling": Resource()}, instance=instance)
    lines = list(lines_of(instance, result.run_id))
    assert [(line.asset, line.text) for line in lines if line.kind in ("observation", "check")] == [
        ("gold/daily", "0 files"),
        ("gold/daily", "files_arrived failed"),
    ]
    (orders,) = [line for line in lines if (line.kind, line.asset) == ("materialization", "silver/orders")]
    assert orders.metadata["merge seconds"] == 90.0
    assert "kindling/merge_seconds" not in orders.metadata
    assert any(line.text == "The merge into silver.orders took 90 s" for line in lines)
    assert '"dropped":{"config.post_reload":1}' in lines[-1].text


def test_the_receivers_of_the_page(page: dict[str, Any]) -> None:
    instance = DagsterInstance.ephemeral()
    stalled = seen("streaming.query_stalled", query_id="follow", reason="no batch for 90 s")
    run_step([COMMIT, stalled, done("daily")], instance=instance)
    lost = seen("datapipes.pipe_failed", pipe_id="clean", error="lost executor", error_type="IOError")
    run_step([lost, failed("clean")], instance=instance)
    ticked = page["when_daily_is_written"](build_sensor_context(instance=instance))
    assert [request.tags["written_by"] for request in ticked.run_requests] == ["daily"]
    again = page["when_daily_is_written"](build_sensor_context(instance=instance, cursor=ticked.cursor))
    assert again.run_requests == []
    assert page["worst_stall"](build_op_context(instance=instance)) == ["follow"]
    assert list(page["failures"](instance, ORDERS)) == [("datapipes.pipe_failed", "IOError", "lost executor")]
    assert {DAILY, LIVE} <= set(instance.all_asset_keys())


def test_what_the_page_looks_up(page: dict[str, Any]) -> None:
    assert page["spec"].payload.__name__ == "PersistPayload"
    assert "persist.persist_failed" in [*page["get_all_signals"]()]
    assert page["schema"]["properties"]["pipe_id"] == {"type": ["string", "null"]}
    assert "kindling.data_pipes.DataPipesExecution" in page["emitters"]


def test_the_settings_of_the_page() -> None:
    (block,) = blocks("yaml")
    section = yaml.safe_load(block)["kindling"]["signals"]
    settings = SignalSettings.from_config(
        {f"kindling.signals.{key}": value for key, value in section.items()}
    )
    assert settings.is_async("streaming.query_started")
    assert not settings.is_async("streaming.query_failed")
    table = dict(re.findall(r"^\| `(kindling\.signals\.\w+)` \| (.*?) \|", TEXT, flags=re.MULTILINE))
    defaults = {key.rpartition(".")[2]: value.strip("`") for key, value in table.items()}
    ours = SignalSettings()
    assert defaults == {
        "async": "as the emitter says",
        "backpressure": ours.backpressure.value,
        "capacity": str(ours.capacity),
        "max_workers": str(ours.max_workers),
        "stall_after": f"{ours.stall_after:g}",
        "naming": ours.naming.value,
        "allowed_names": "none",
    }


def test_the_page_names_every_part_of_the_table_and_every_output() -> None:
    outputs = {kind.__name__ for kind in Output.__args__}  # type: ignore[attr-defined]
    assert [name for name in outputs if f"`{name}" not in TEXT] == []
    namespaces = {pattern.partition(".")[0] for pattern in DEFAULT_RULES if "." in pattern}
    # What a subscriber does wrong is told in a sentence.
    assert [name for name in namespaces if f"`{name}." not in TEXT] == []
