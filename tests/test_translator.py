"""The translator: what a Kindling entity becomes, as tables of cases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dagster import AssetKey, AssetSpec
from hypothesis import given
from hypothesis import strategies as st
from manifests import entity, manifest, pipe

from kindling_dagster.manifest import EntitySpec, Location, PipeSpec, SourceRef
from kindling_dagster.project import KindlingProject
from kindling_dagster.translator import (
    AssetData,
    CheckData,
    DagsterKindlingTranslator,
    TranslatorSettings,
    location_uri,
    table_schema,
    valid_tags,
)


def spec_of(entity_spec: EntitySpec, *pipes: PipeSpec, **settings: object) -> AssetSpec:
    project = KindlingProject(manifest="unused.json", working_dir="/app")
    data = AssetData(manifest(*pipes, entities=(entity_spec,)), entity_spec, pipes, project=project)
    return DagsterKindlingTranslator(TranslatorSettings(**settings)).get_asset_spec(data)  # type: ignore[arg-type]


def test_key_is_the_entity_id_split_on_dots() -> None:
    assert spec_of(entity("silver.orders")).key == AssetKey(["silver", "orders"])
    # Kindling takes any name, Dagster's outputs only those of ASCII.
    assert spec_of(entity("silver.größe in-m")).key == AssetKey(["silver", "gr__e_in-m"])


@pytest.mark.parametrize(
    ("layer", "settings", "pipes", "group"),
    [
        ("silver", {}, 1, "silver"),
        ("", {}, 1, "default"),
        ("land-ing", {}, 0, "land_ing"),
        ("größe", {}, 1, "gr__e"),
        ("silver", {"external_group": "sources"}, 0, "sources"),
        ("silver", {"external_group": "sources"}, 1, "silver"),
    ],
)
def test_group(layer: str, settings: dict[str, object], pipes: int, group: str) -> None:
    item = entity("silver.orders", layer=layer)
    assert spec_of(item, *[pipe("p", "a.b", "silver.orders")] * pipes, **settings).group_name == group


@pytest.mark.parametrize(
    ("provider", "kind", "kinds"),
    [
        ("delta", "python", {"kindling", "pyspark", "delta"}),
        ("memory", "view", {"kindling", "sql", "memory"}),
        ("current_view", None, {"kindling", "current_view"}),
        ("adx-api", None, {"kindling", "adx_api"}),
    ],
)
def test_kinds(provider: str, kind: str | None, kinds: set[str]) -> None:
    pipes = [] if kind is None else [pipe("p", "a.b", "silver.orders", kind=kind)]
    assert spec_of(entity("silver.orders", provider=provider), *pipes).kinds == kinds


@pytest.mark.parametrize(
    ("owner", "owners"),
    [
        ("data@acme.org", ["data@acme.org"]),
        ("data-eng, ops@acme.org", ["team:data_eng", "ops@acme.org"]),
        ("team:core", ["team:core"]),
        ("not@anaddress", ["team:not_anaddress"]),
        ("jörg@acme.org", ["team:jörg_acme_org"]),
        ("", []),
    ],
)
def test_owners(owner: str, owners: list[str]) -> None:
    assert list(spec_of(entity("silver.orders", tags={"owner": owner})).owners) == owners


@pytest.mark.parametrize(
    ("tags", "valid"),
    [
        ({"layer": "gold"}, {"layer": "gold"}),
        ({"scd.type": 2}, {"scd.type": "2"}),
        ({"two words": "a b/c"}, {"two_words": "a_b_c"}),
        ({"team/name": "x"}, {"team/name": "x"}),
        ({"provider.path": "/secret/place", "provider_type": "delta"}, {}),
        ({"token": "@secret:KEY"}, {}),
        ({"dagster/timeout": "30"}, {}),
        ({"long": "x" * 100}, {"long": "x" * 63}),
    ],
)
def test_tags(tags: dict[str, str], valid: dict[str, str]) -> None:
    assert valid_tags(tags) == valid


@given(st.dictionaries(st.text(max_size=80), st.text(max_size=80), max_size=5))
def test_any_tags_become_ones_that_dagster_takes(tags: dict[str, str]) -> None:
    assert AssetSpec("a", tags=valid_tags(tags))


def test_description_joins_what_is_said_once() -> None:
    item = entity("silver.orders", description="Orders.")
    first = pipe("a", "x.y", "silver.orders", description="Cleans.")
    assert spec_of(item, first, pipe("b", "x.y", "silver.orders", description="Orders.")).description == (
        "Orders.\n\nCleans."
    )


def test_code_version_changes_with_any_of_the_pipes() -> None:
    def version(*versions: str) -> str | None:
        pipes = [pipe(f"p{i}", "x.y", "s.o", code_version=v) for i, v in enumerate(versions)]
        return spec_of(entity("s.o"), *pipes).code_version

    assert version("a" * 64) == "a" * 16
    assert len({version("a", "b"), version("a", "c"), version("b", "b")}) == 3
    assert version() is None


@pytest.mark.parametrize(
    ("location", "key", "value"),
    [
        (Location("path", "lake/orders"), "dagster/uri", "/app/lake/orders"),
        (Location("path", "s3://bucket/orders"), "dagster/uri", "s3://bucket/orders"),
        (Location("table", "main.silver.orders"), "dagster/table_name", "main.silver.orders"),
        (Location("secret", "ORDERS_PATH"), "kindling/location", "in the secret ORDERS_PATH"),
        (Location("memory"), "kindling/location", "memory of the run's Spark session"),
    ],
)
def test_location(location: Location, key: str, value: str) -> None:
    assert spec_of(entity("silver.orders", location=location)).metadata[key] == value


@pytest.mark.parametrize(
    ("value", "uri"),
    [
        ("lake/a", "/app/lake/a"),
        ("/lake/a", "/lake/a"),
        ("file:/lake/a", "file:/lake/a"),
        ("abfss://c@a.dfs.core.windows.net/x", "abfss://c@a.dfs.core.windows.net/x"),
    ],
)
def test_location_uri(value: str, uri: str) -> None:
    assert location_uri(value, Path("/app")) == uri


def test_schema_with_nested_types() -> None:
    columns = table_schema(
        [
            {"name": "id", "type": "long", "nullable": False, "metadata": {"comment": "key"}},
            {"name": "tags", "type": {"type": "array", "elementType": "string", "containsNull": True}},
            {"name": "m", "type": {"type": "map", "keyType": "string", "valueType": "integer"}},
            {
                "name": "s",
                "type": {"type": "struct", "fields": [{"name": "a", "type": "decimal(10,2)"}]},
            },
        ]
    ).columns
    assert [(c.name, c.type) for c in columns] == [
        ("id", "long"),
        ("tags", "array<string>"),
        ("m", "map<string,integer>"),
        ("s", "struct<a:decimal(10,2)>"),
    ]
    assert (columns[0].constraints.nullable, columns[0].description) == (False, "key")
    assert columns[1].constraints.nullable


def test_code_references_point_into_the_app() -> None:
    project = KindlingProject(Path(__file__).parent.parent / "demo")
    item = entity("s.o")
    made = pipe("p", "a.b", "s.o", source=SourceRef("app", "app.py", 7))
    gone = pipe("q", "a.b", "s.o", source=SourceRef("gone", "gone.py", 7))
    data = AssetData(manifest(made, gone, entities=(item,)), item, (made, gone), project=project)
    metadata = DagsterKindlingTranslator().get_asset_spec(data).metadata
    references = metadata["dagster/code_references"].code_references
    assert [(r.file_path, r.line_number, r.label) for r in references] == [
        (str(project.run_dir / "app.py"), 7, "p")
    ]
    off = DagsterKindlingTranslator(TranslatorSettings(code_references=False)).get_asset_spec(data)
    assert "dagster/code_references" not in off.metadata


def test_check_spec_goes_by_the_same_key() -> None:
    class Prefixed(DagsterKindlingTranslator):
        def get_asset_key(self, data: AssetData) -> AssetKey:
            return super().get_asset_key(data).with_prefix("lake")

    item = entity("s.o")
    check = Prefixed().get_asset_check_spec(CheckData(AssetData(manifest(), item), "unique", blocking=True))
    assert check.asset_key == AssetKey(["lake", "s", "o"])
    assert check.blocking


@given(st.from_regex(re.compile(r"[a-z]{1,5}(\.[a-z_]{1,8}){0,3}"), fullmatch=True))
def test_any_id_makes_a_spec(entity_id: str) -> None:
    assert spec_of(entity(entity_id)).key.path == entity_id.split(".")
