"""What is recorded of an app without Spark, what is wrong with it, and when it takes a real start."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from app_forms import (
    APPS,
    ENTITY,
    PIPE,
    SECRETS,
    manifest_cache,
    quick,
    recorded,
    small_app,
)

from kindling_dagster.app_errors import app_place
from kindling_dagster.errors import DeclarationError, KindlingDagsterError, ProjectError
from kindling_dagster.manifest import Location
from kindling_dagster.project import KindlingProject

__all__ = ["manifest_cache", "quick"]

pytestmark = pytest.mark.usefixtures("quick")


def by_id(items: Any) -> dict[str, Any]:
    return {item.id: item for item in items}


# What the recorder sees in the app with everything


def test_recording_in_a_child_leaves_this_process_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real child process, once
    manifest = recorded("kitchen")
    assert (manifest.app.form, manifest.app.recorded_by) == ("scaffold", "recorder")
    assert "kitchen" not in sys.modules


@pytest.mark.parametrize(
    ("entity_id", "expected"),
    [
        ("bronze.orders", Location("path", "lake/bronze/orders")),
        ("silver.products", Location("path", "lake/products")),
        ("bronze.lookup", Location("secret", "KITCHEN_LOOKUP_PATH")),
        ("gold.summary", Location("secret", "KITCHEN_GOLD_PATH")),
        ("gold.ranking", Location("memory")),
        ("reporting.recent", Location("none")),
        ("silver.customers.current", Location("none")),
        ("bronze.archive", Location("path", "lake/bronze/archive")),
    ],
)
def test_locations(entity_id: str, expected: Location) -> None:
    assert recorded("kitchen").entities_by_id[entity_id].location == expected


def test_locations_in_catalog_access_mode_are_table_names() -> None:
    entities = recorded("kitchen", "prod").entities_by_id
    assert entities["silver.orders"].location == Location("table", "prod.silver.orders")
    # Providers other than Delta have a path in every mode.
    assert entities["silver.products"].location == Location("path", "lake/products")


@pytest.mark.parametrize(
    ("entity_id", "kind", "attributes"),
    [
        ("bronze.orders", "state", {"description": "Orders as the shop sends them.", "layer": "bronze"}),
        ("bronze.events", "insert_only", {"cluster_columns": ("event_id",), "schema": None}),
        ("silver.customers", "state", {"scd2": True}),
        ("silver.customers.current", "companion", {"companion_of": "silver.customers", "scd2": False}),
        ("gold.summary", "derived", {"merge_columns": ()}),
        ("reporting.recent", "sql", {"sql_inputs": ("silver.orders", "silver.customers"), "layer": ""}),
        ("silver.orders_eu", "state", {"clone_of": "silver.orders", "name": "orders_eu"}),
        ("bronze.archive", "state", {"clone_of": "bronze.orders"}),
        ("silver.products", "state", {"partition_columns": ("category",), "provider": "parquet"}),
    ],
)
def test_entities(entity_id: str, kind: str, attributes: dict[str, Any]) -> None:
    entity = recorded("kitchen").entities_by_id[entity_id]
    assert entity.kind == kind
    assert {name: getattr(entity, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("pipe_id", "attributes"),
    [
        ("silver.orders", {"parameters": ("bronze_orders", "bronze_lookup"), "use_watermark": True}),
        ("silver.orders", {"description": "Drop orders that cannot be.\n\nThe lookup says which."}),
        ("silver.orders_eu", {"clone_of": "silver.orders", "output_entity_id": "silver.orders_eu"}),
        ("silver.customers", {"extended": True, "streaming": True, "parameters": None}),
        ("silver.customers", {"driving_entity_ids": ("bronze.events", "silver.orders")}),
        ("gold.summary", {"driving_entity_ids": ("silver.orders",), "parameters": None}),
        ("gold.enriched", {"kind": "view", "output_type": "memory"}),
        ("gold.labelled", {"kind": "view", "sql": "SELECT *, 1 AS label FROM gold_enriched"}),
        ("gold.labelled", {"description": "The enriched rows, labelled."}),
    ],
)
def test_pipes(pipe_id: str, attributes: dict[str, Any]) -> None:
    pipe = recorded("kitchen").pipes_by_id[pipe_id]
    assert {name: getattr(pipe, name) for name in attributes} == attributes


def test_a_views_sql_file_is_read() -> None:
    sql = recorded("kitchen").pipes_by_id["gold.enriched"].sql
    assert sql == (APPS / "kitchen/src/kitchen/pipes/enriched.sql").read_text()


def test_sources_point_at_the_declaring_line() -> None:
    manifest = recorded("kitchen")
    text = (APPS / "kitchen/src/kitchen/pipes/silver.py").read_text().splitlines()
    source = manifest.pipes_by_id["silver.orders"].source
    assert source is not None
    assert (source.file, source.module) == ("src/kitchen/pipes/silver.py", "kitchen.pipes.silver")
    assert text[source.line - 1].startswith("@DataPipes.pipe(")
    entities = (APPS / "kitchen/src/kitchen/entities/gold.py").read_text().splitlines()
    source = manifest.entities_by_id["reporting.recent"].source
    assert source is not None
    assert entities[source.line - 1].startswith("DataEntities.sql_entity(")


def test_ingestion_settings_and_secrets() -> None:
    manifest = recorded("kitchen")
    (entry,) = manifest.ingestion
    assert (entry.dest_entity_id, dict(entry.tags)) == ("bronze.files_{region}", {"source": "sftp"})
    assert manifest.settings["kindling.execution.max_workers"] == 3
    assert manifest.settings["kindling.execution.pipes.silver.orders.retry.attempts"] == 3
    assert {(secret.key, secret.used_at) for secret in manifest.secrets} == {
        ("KITCHEN_API_TOKEN", "kitchen.api_token"),
        ("KITCHEN_GOLD_PATH", "entity_tags.gold.summary.provider.path"),
        ("KITCHEN_LOOKUP_PATH", "bronze.lookup.tags.provider.path"),
    }


def test_recording_twice_gives_the_same_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    again = KindlingProject(APPS / "kitchen").load_manifest(refresh=True)
    assert again.content_hash == recorded("kitchen").content_hash


def test_secrets_values_are_not_in_a_recorded_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in SECRETS.items():
        monkeypatch.setenv(key, value)
    text = KindlingProject(APPS / "kitchen").load_manifest(refresh=True).to_json()
    assert [value for value in SECRETS.values() if value in text] == []


# What is wrong with an app


FATAL: list[tuple[str, dict[str, str], type[KindlingDagsterError], list[str]]] = [
    (
        "raises at import",
        {"pipes/a.py": "x = 1\nraise RuntimeError('no luck')\n"},
        ProjectError,
        ["RuntimeError", "no luck", "src/tiny/pipes/a.py:2"],
    ),
    ("syntax error", {"pipes/a.py": "def :\n"}, ProjectError, ["SyntaxError", "src/tiny/pipes/a.py:1"]),
    (
        "module missing",
        {"pipes/a.py": "import not_there_at_all\n"},
        ProjectError,
        ["not_there_at_all", "src/tiny/pipes/a.py:1", "Install"],
    ),
    ("exits", {"pipes/a.py": "import sys\nsys.exit(3)\n"}, ProjectError, ["exits", "src/tiny/pipes/a.py:2"]),
    (
        "pipe declared twice",
        {"entities/e.py": ENTITY, "pipes/a.py": PIPE, "pipes/b.py": "\n" + PIPE},
        DeclarationError,
        ["'a'", "pipes/a.py:", "pipes/b.py:"],
    ),
    (
        "entity declared twice",
        {"entities/e.py": ENTITY, "entities/f.py": ENTITY},
        DeclarationError,
        ["'bronze.a'", "entities/e.py:", "entities/f.py:"],
    ),
    (
        "refused by Kindling",
        {"entities/e.py": ENTITY.replace("tags={}", "tags={'scd.type': '9'}")},
        DeclarationError,
        ["scd.type must be '2'", "src/tiny/entities/e.py:5"],
    ),
    (
        "broken settings",
        {"settings.yaml": "kindling:\n  a: [1\n  b: 2\n"},
        ProjectError,
        ["settings.yaml:3", "not valid YAML"],
    ),
    (
        "broken settings an app names itself",
        {
            "app.py": "from kindling.bootstrap import initialize_framework\n\n\ndef initialize(env):\n"
            "    initialize_framework({'platform': 'standalone', 'environment': env,"
            " 'config_files': [__file__.replace('app.py', 'own.yaml')]})\n",
            "own.yaml": "- a\n- b\n",
        },
        ProjectError,
        ["own.yaml", "mapping"],
    ),
]


@pytest.mark.parametrize(
    ("modules", "kind", "told"), [case[1:] for case in FATAL], ids=[case[0] for case in FATAL]
)
def test_fatal_mistakes_are_named(
    tmp_path: Path, modules: dict[str, str], kind: type[KindlingDagsterError], told: list[str]
) -> None:
    project = KindlingProject(small_app(tmp_path, modules))
    with pytest.raises(kind) as caught:
        project.load_manifest()
    assert type(caught.value) is kind
    assert [part for part in told if part not in str(caught.value)] == []


def test_a_view_with_a_function_and_a_module_loaded_twice_are_no_duplicates(tmp_path: Path) -> None:
    modules = {
        "entities/e.py": ENTITY,
        "pipes/v.py": """
            from kindling.data_pipes import DataPipes

            @DataPipes.view(pipeid="v", input_entity_ids=["bronze.a"], output_entity_id="silver.a", sql="SELECT 1")
            def v(df):
                return df
            """,
        "app.py": "import importlib\n\ndef initialize(env):\n    import tiny.entities.e as e\n    importlib.reload(e)\n",
    }
    manifest = KindlingProject(small_app(tmp_path, modules)).load_manifest()
    assert [pipe.id for pipe in manifest.pipes] == ["v"]


def test_innermost_frame_of_the_app_is_found() -> None:
    layout = KindlingProject(APPS / "counter").layout

    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("\n\n1 / 0", str(APPS / "counter" / "src" / "counter" / "work.py"), "exec"))
    assert app_place(caught.value, layout) == "src/counter/work.py:3"


# Apps that want Spark


ASKS = {
    "session": "from kindling.spark_session import get_or_create_spark_session\nspark = get_or_create_spark_session()\n",
    "builder": "from pyspark.sql import SparkSession\nspark = SparkSession.builder.getOrCreate()\n",
    "active": "from pyspark.sql import SparkSession\nSparkSession.getActiveSession().range(1).count()\n",
    "context": "from pyspark import SparkContext\nsc = SparkContext.getOrCreate()\n",
    "function": "from pyspark.sql import functions as F\nGOOD = F.col('a') > 0\n",
    "swallowed": "from kindling.spark_session import get_or_create_spark_session\n"
    "try:\n    get_or_create_spark_session()\nexcept:\n    pass\n",
    "secret": "from kindling.injection import get_kindling_service\n"
    "from kindling.platform_provider import SecretProvider\n"
    "get_kindling_service(SecretProvider).get_secret('HOME')\n",
}


@pytest.mark.parametrize("statement", ASKS.values(), ids=ASKS.keys())
def test_an_app_that_asks_for_spark_is_initialised_for_real(
    tmp_path: Path, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = KindlingProject(small_app(tmp_path, {"entities/e.py": ENTITY, "pipes/a.py": statement + PIPE}))
    asked: list[bool] = []
    ask = project._ask_child

    def answer(real: bool) -> dict[str, Any]:
        # The real start itself is tried once, below; here it matters that it is asked for.
        asked.append(real)
        return {"manifest": recorded("counter").to_json()} if real else ask(real)

    monkeypatch.setattr(project, "_ask_child", answer)
    project.load_manifest()
    assert asked == [False, True]


def test_a_pipe_that_asks_for_spark_when_it_runs_is_recorded(tmp_path: Path) -> None:
    pipe = PIPE.replace(
        "return bronze_a", "from pyspark.sql import SparkSession\n    return SparkSession.active()"
    )
    modules = {"entities/e.py": ENTITY, "pipes/a.py": pipe}
    assert KindlingProject(small_app(tmp_path, modules)).manifest.app.recorded_by == "recorder"
