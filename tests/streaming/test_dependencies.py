"""Dimensions of streams, and whether a change calls for a restart."""

from __future__ import annotations

from typing import Any

import pytest
from manifests import entity, manifest, pipe

from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.manifest import Location, Manifest
from kindling_dagster.streaming.dependencies import StreamDependencies, decide
from kindling_dagster.streaming.dimensions.model import DimensionLook

DECISIONS = [
    # change, policy, how it is read, restart, in the reason
    (None, "always", "files", False, "nothing changed"),
    ("data", "auto", "delta", False, "read anew with every micro-batch"),
    ("schema", "auto", "delta", True, "other columns only after a restart"),
    ("replaced", "auto", "delta", True, "stays with the table it was started on"),
    ("data", "auto", "files", True, "once they are replaced"),
    ("schema", "auto", "files", True, "other columns"),
    ("data", "auto", "view", True, "is not known"),
    ("data", "auto", "memory", True, "as it was when the query started"),
    ("data", "auto", "captured", True, "read or cached itself"),
    ("data", "always", "delta", True, "always to restart"),
    ("schema", "never", "delta", False, "never to restart"),
    ("replaced", "never", "files", False, "never to restart"),
    ("data", "never", "captured", False, "never to restart"),
]


@pytest.mark.parametrize(("change", "policy", "kind", "restart", "words"), DECISIONS)
def test_decide(change: Any, policy: Any, kind: Any, restart: bool, words: str) -> None:
    decision = decide(change, policy, kind)
    assert decision.restart is restart
    assert words in decision.reason


def stream(inputs: str, **tags: str) -> Manifest:
    """One stream over these inputs, driven by the first, with all kinds of entities to read."""
    memory = Location("memory")
    entities = (
        entity("ref.planes", scd2=True),
        entity(
            "ref.planes.current",
            provider="current_view",
            companion_of="ref.planes",
            location=Location("none"),
        ),
        entity("ref.airlines"),
        entity("ref.rates", provider="parquet"),
        entity("ref.codes", provider="csv"),
        entity("ref.session", provider="memory", location=memory),
        entity("ref.sql", kind="sql", provider="view", sql_inputs=("ref.airlines", "ref.planes.current")),
        entity("ref.deep", kind="sql", provider="view", sql_inputs=("ref.sql", "ref.rates")),
        entity("ref.view", provider="memory", location=memory),
        entity("ref.opaque", kind="sql", provider="view", sql="select 1", location=Location("none")),
        entity("ref.hub", provider="eventhub", location=Location("none")),
    )
    return manifest(
        pipe("views", "ref.airlines ref.codes", "ref.view", kind="view"),
        pipe("s", inputs, "silver.out", tags={"processing_mode": "streaming", **tags}),
        pipe("batch", "bronze.x ref.airlines", "silver.other"),
        entities=entities,
    )


DERIVED = [
    ("bronze.x", {}),
    ("bronze.x ref.airlines", {"ref.airlines": "delta"}),
    ("bronze.x ref.planes", {"ref.planes": "delta"}),
    ("bronze.x ref.planes.current", {"ref.planes": "delta"}),
    ("bronze.x ref.planes.current ref.planes", {"ref.planes": "delta"}),
    ("bronze.x ref.rates ref.codes", {"ref.rates": "files", "ref.codes": "files"}),
    ("bronze.x ref.session", {"ref.session": "memory"}),
    ("bronze.x ref.sql", {"ref.airlines": "delta", "ref.planes": "delta"}),
    ("bronze.x ref.deep", {"ref.airlines": "delta", "ref.planes": "delta", "ref.rates": "files"}),
    ("bronze.x ref.view", {"ref.airlines": "delta", "ref.codes": "files"}),
    ("bronze.x ref.airlines ref.sql", {"ref.airlines": "delta", "ref.planes": "delta"}),
    ("bronze.x ref.rates ref.deep", {"ref.rates": "files", "ref.airlines": "delta", "ref.planes": "delta"}),
    ("bronze.x ref.opaque", {"ref.opaque": "view"}),
    ("bronze.x ref.hub", {"ref.hub": "captured"}),
    ("bronze.x silver.out", {}),
    ("bronze.x silver.out ref.airlines", {"ref.airlines": "delta"}),
]


@pytest.mark.parametrize(("inputs", "expected"), DERIVED)
def test_derived_from_the_declarations(inputs: str, expected: dict[str, str]) -> None:
    dependencies = StreamDependencies(stream(inputs))
    assert dependencies.stream_ids == ("s",)
    assert {item.entity_id: item.read_kind for item in dependencies.of_stream("s")} == expected
    assert set(dependencies.dimension_ids) == set(expected)


def test_every_driving_input_is_left_out() -> None:
    app = manifest(
        pipe("s", "bronze.x bronze.y ref.a", "out", driving_entity_ids=("bronze.x", "bronze.y")),
    )
    dependencies = StreamDependencies(app, ["s"])
    assert dependencies.dimension_ids == ("ref.a",)


def test_inputs_that_lead_there_are_told() -> None:
    dependencies = StreamDependencies(stream("bronze.x ref.airlines ref.sql"))
    by_id = {item.entity_id: item.inputs for item in dependencies.of_stream("s")}
    assert by_id == {"ref.airlines": ("ref.airlines", "ref.sql"), "ref.planes": ("ref.sql",)}


def test_views_that_read_each_other_end() -> None:
    app = manifest(
        pipe("s", "bronze.x ref.a", "out", tags={"processing_mode": "streaming"}),
        entities=(
            entity("ref.a", provider="view", sql_inputs=("ref.b", "ref.c")),
            entity("ref.b", provider="view", sql_inputs=("ref.a",)),
            entity("ref.c"),
        ),
    )
    assert StreamDependencies(app).dimension_ids == ("ref.c",)


TAGS = [
    ({"restart_on": "ref.rates"}, {"ref.airlines": ("delta", "auto"), "ref.rates": ("captured", "auto")}),
    (
        {"restart_on": "ref.rates=never"},
        {"ref.airlines": ("delta", "auto"), "ref.rates": ("captured", "never")},
    ),
    ({"restart_on": "ref.airlines = always"}, {"ref.airlines": ("delta", "always")}),
    (
        {"restart_on": "ref.planes.current, ref.rates"},
        {
            "ref.airlines": ("delta", "auto"),
            "ref.planes": ("captured", "auto"),
            "ref.rates": ("captured", "auto"),
        },
    ),
    ({"no_restart_on": "ref.airlines"}, {}),
    ({"no_restart_on": " ref.airlines , ref.rates,"}, {}),
    ({"restart_policy": "Always"}, {"ref.airlines": ("delta", "always")}),
    (
        {"restart_policy": "never", "restart_on": "ref.rates, ref.codes=auto"},
        {
            "ref.airlines": ("delta", "never"),
            "ref.rates": ("captured", "never"),
            "ref.codes": ("captured", "auto"),
        },
    ),
]


@pytest.mark.parametrize(("tags", "expected"), TAGS)
def test_tags(tags: dict[str, str], expected: dict[str, tuple[str, str]]) -> None:
    named = {f"dagster/{name}": value for name, value in tags.items()}
    found = StreamDependencies(stream("bronze.x ref.airlines", **named)).of_stream("s")
    assert {item.entity_id: (item.read_kind, item.policy) for item in found} == expected


@pytest.mark.parametrize(
    ("tags", "error", "words"),
    [
        ({"dagster/restart_on": "ref.gone"}, DeclarationError, "No such entity: ref.gone"),
        ({"dagster/no_restart_on": "ref.gone"}, DeclarationError, "dagster/no_restart_on of pipe s"),
        ({"dagster/restart_on": "ref.rates=often"}, SelectionError, "no restart policy 'often'"),
        ({"dagster/restart_policy": "often"}, SelectionError, "asked for stream 's'"),
    ],
)
def test_wrong_tags(tags: dict[str, str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        StreamDependencies(stream("bronze.x ref.airlines", **tags))


def test_registration() -> None:
    dependencies = StreamDependencies(stream("bronze.x ref.airlines"))
    dependencies.register_dependency("s", ["ref.sql", "ref.rates"], policy="always")
    found = {item.entity_id: item for item in dependencies.of_stream("s")}
    assert {id_: (item.read_kind, item.policy, item.declared_by) for id_, item in found.items()} == {
        "ref.airlines": ("delta", "always", "inputs"),
        "ref.planes": ("captured", "always", "registration"),
        "ref.rates": ("captured", "always", "registration"),
    }
    dependencies.register_dependency("s", ["ref.rates"], read_kind="files")
    (rates,) = dependencies.of_dimension("ref.rates")
    assert (rates.read_kind, rates.policy) == ("files", "always")
    dependencies.remove_dependency("s", ["ref.rates", "ref.codes"])
    assert dependencies.of_dimension("ref.rates") == ()


def test_wrong_registrations() -> None:
    dependencies = StreamDependencies(stream("bronze.x ref.airlines"))
    with pytest.raises(SelectionError, match="'batch' is not a stream"):
        dependencies.register_dependency("batch", ["ref.rates"])
    with pytest.raises(DeclarationError, match=r"ref\.gone"):
        dependencies.register_dependency("s", ["ref.gone"])
    with pytest.raises(SelectionError, match="no restart policy"):
        dependencies.register_dependency("s", ["ref.rates"], policy="often")  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="No such pipe: t"):
        StreamDependencies(stream("bronze.x"), ["t"])


def test_decisions_of_a_look() -> None:
    dependencies = StreamDependencies(stream("bronze.x ref.airlines"), ["s", "batch"])
    dependencies.register_dependency("batch", ["ref.airlines"], policy="always")
    change = DimensionLook("ref.airlines", "version", "new", "old", "data", reason="2 data-changing commits")
    first, second = dependencies.decide(change)
    assert (first.stream_id, first.restart, second.stream_id, second.restart) == ("s", False, "batch", True)
    assert first.reason.startswith("ref.airlines: its rows changed; a Delta table is read anew")
    assert first.reason.endswith("(2 data-changing commits)")
    assert first.change_id == second.change_id == change.change_id
    assert dependencies.decide(DimensionLook("ref.airlines", "version", "same", "same")) == ()
    assert dependencies.decide(DimensionLook("ref.rates", "files", "new", "old", "data")) == ()
