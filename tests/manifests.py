"""Small manifests for tests of what is pure."""

from __future__ import annotations

from typing import Any

from kindling_dagster.manifest import AppRef, EntitySpec, Location, Manifest, PipeSpec

APP = AppRef(name="shop", environment="local", form="packages", recorded_by="recorder")


def entity(entity_id: str, **changes: Any) -> EntitySpec:
    """An entity in Delta at ``lake/<id>``, its layer the first part of its id."""
    values: dict[str, Any] = {
        "name": entity_id,
        "provider": "delta",
        "location": Location("path", f"lake/{entity_id.replace('.', '/')}"),
        "layer": entity_id.split(".")[0],
    }
    return EntitySpec(entity_id, **(values | changes))


def pipe(pipe_id: str, inputs: str, output: str, **changes: Any) -> PipeSpec:
    """A pipe from the space-separated inputs to the output."""
    ids = tuple(inputs.split())
    values: dict[str, Any] = {"name": pipe_id, "driving_entity_ids": ids[:1]}
    return PipeSpec(pipe_id, input_entity_ids=ids, output_entity_id=output, **(values | changes))


def manifest(*pipes: PipeSpec, entities: tuple[EntitySpec, ...] = (), **changes: Any) -> Manifest:
    """A manifest of these pipes, with plain entities for whatever is not given."""
    given = {item.id for item in entities}
    named = dict.fromkeys(id_ for item in pipes for id_ in (*item.input_entity_ids, item.output_entity_id))
    plain = tuple(entity(id_) for id_ in named if id_ not in given)
    return Manifest(app=APP, entities=(*entities, *plain), pipes=pipes, **changes)
