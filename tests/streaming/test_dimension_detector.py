"""The detector: registers, keeps fingerprints, tells changes, listens to Kindling's signals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from kindling.signaling import BlinkerSignalProvider
from manifests import entity, manifest

from kindling_dagster.errors import DeclarationError, SelectionError
from kindling_dagster.manifest import Location
from kindling_dagster.signals.payloads.streams import DimensionChangePayload
from kindling_dagster.streaming.dimensions.detector import CHANGE_SIGNALS, DimensionChangeDetector

ENTITIES = ("ref.planes", "ref.airlines")


class Setup:
    """Two Delta tables, a detector over them, and what it has told."""

    def __init__(self, lake: Path) -> None:
        self.lake = lake
        entities = tuple(entity(id_, location=Location("path", id_)) for id_ in ENTITIES)
        companion = entity(
            "ref.planes.current",
            provider="current_view",
            companion_of="ref.planes",
            location=Location("none"),
        )
        self.provider = BlinkerSignalProvider()
        self.kept: dict[str, str] = {}
        self.told: list[DimensionChangePayload] = []
        self.detector = DimensionChangeDetector(
            manifest(entities=(*entities, companion)), self.kept, self.provider, working_directory=lake
        )
        self.provider.create_signal("streaming.dimension_changed").connect(self.hear, weak=False)
        for entity_id in ENTITIES:
            self.write(entity_id)

    def hear(self, _sender: object, **arguments: Any) -> None:
        self.told.append(DimensionChangePayload(signal="streaming.dimension_changed", **arguments))

    def write(self, entity_id: str) -> None:
        write_deltalake(str(self.lake / entity_id), pa.table({"id": [1]}), mode="append")


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_tells_a_change_once(setup: Setup) -> None:
    setup.detector.register_dimension("ref.planes", "version")
    first = setup.detector.check("ref.planes")
    setup.write("ref.planes")
    second = setup.detector.check("ref.planes")
    third = setup.detector.check("ref.planes")
    assert (first.change, second.change, third.change) == (None, "data", None)
    (told,) = setup.told
    assert (told.entity_id, told.change_detection, told.change) == ("ref.planes", "version", "data")
    assert (told.version, told.operation) == (1, "WRITE")
    assert (told.previous_fingerprint, told.fingerprint) == (first.fingerprint, second.fingerprint)
    assert setup.kept == {"ref.planes": second.fingerprint}


def test_look_keeps_and_tells_nothing(setup: Setup) -> None:
    setup.detector.register_dimension("ref.planes")
    setup.detector.check("ref.planes")
    before = dict(setup.kept)
    setup.write("ref.planes")
    assert setup.detector.look("ref.planes").change == "data"
    assert (setup.kept, setup.told) == (before, [])


def test_keeps_the_fingerprint_where_nothing_changed_but_the_version(setup: Setup) -> None:
    setup.detector.register_dimension("ref.planes")
    setup.write("ref.planes")
    setup.detector.check("ref.planes")
    DeltaTable(str(setup.lake / "ref.planes")).optimize.compact()
    found = setup.detector.check("ref.planes")
    assert (found.change, found.version, setup.told) == (None, 2, [])
    assert setup.kept == {"ref.planes": found.fingerprint}


def test_one_trouble_does_not_keep_others_from_being_seen(setup: Setup) -> None:
    for entity_id in ENTITIES:
        setup.detector.register_dimension(entity_id)
    list(setup.detector.check_all())
    (setup.lake / "ref.planes" / "_delta_log" / f"{1:020d}.json").write_text("{")
    setup.write("ref.airlines")
    planes, airlines = setup.detector.check_all()
    assert planes.problem is not None
    assert (planes.problem.kind, airlines.change) == ("corrupt", "data")


def test_budget(setup: Setup) -> None:
    for entity_id in ENTITIES:
        setup.detector.register_dimension(entity_id)
    assert list(setup.detector.check_all(budget=0)) == []
    assert len(list(setup.detector.check_all(budget=60))) == 2


@pytest.mark.parametrize(("signal", "argument"), CHANGE_SIGNALS.items())
def test_listens_to_kindling(setup: Setup, signal: str, argument: str) -> None:
    setup.detector.register_dimension("ref.planes")
    setup.detector.check("ref.planes")
    setup.detector.listen(setup.provider)
    setup.write("ref.planes")
    sent = setup.provider.create_signal(signal)
    sent.send(self, **{argument: "ref.airlines"}) if (self := object()) else None
    assert setup.told == []
    sent.send(self, **{argument: "ref.planes"})
    assert [told.entity_id for told in setup.told] == ["ref.planes"]


def test_registration(setup: Setup) -> None:
    assert setup.detector.register_dimension("ref.planes.current").entity_id == "ref.planes"
    setup.detector.register_dimension("ref.planes", "hash", columns=("id",))
    assert [(d.method, d.columns) for d in setup.detector.dimensions.values()] == [("hash", ("id",))]
    with pytest.raises(DeclarationError, match=r"No such entity: ref\.gone"):
        setup.detector.register_dimension("ref.gone")
    with pytest.raises(SelectionError, match="no change detection 'magic'"):
        setup.detector.register_dimension("ref.planes", "magic")
    with pytest.raises(SelectionError, match=r"'ref\.airlines' is not registered"):
        setup.detector.check("ref.airlines")


def test_without_a_store_or_signals(setup: Setup) -> None:
    detector = DimensionChangeDetector(
        manifest(entities=(entity("ref.planes", location=Location("path", "ref.planes")),)),
        working_directory=setup.lake,
    )
    detector.register_dimension("ref.planes", "custom", custom=iter(range(9)).__next__)
    assert [detector.check("ref.planes").change for _ in range(3)] == [None, "data", "data"]
