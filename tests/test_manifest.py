"""The manifest: round trip, hash, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import entity, manifest, pipe

from kindling_dagster.errors import ManifestError
from kindling_dagster.manifest import MANIFEST_VERSION, Manifest, Problem, SecretRef, SourceRef

FULL = manifest(
    pipe("p", "a.b c.d", "e.f", parameters=("a_b", "c_d"), tags={"x": "y"}, source=SourceRef("m", "m.py", 3)),
    entities=(
        entity("a.b", schema=({"name": "id", "type": "long", "nullable": False},), merge_columns=("id",)),
    ),
    settings={"kindling.execution": {"pipes": {"p": {"retry": {"attempts": 2}}}}},
    secrets=(SecretRef("KEY", "entity_tags.a.b.provider.path"),),
    problems=(Problem("warning", "p", "odd", "do this"),),
)


def test_round_trip() -> None:
    assert Manifest.from_json(FULL.to_json()) == FULL


def test_write_and_read(tmp_path: Path) -> None:
    FULL.write(tmp_path / "deep" / "manifest.json")
    assert Manifest.read(tmp_path / "deep" / "manifest.json") == FULL
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["manifest.json"]


def test_laid_out_in_another_way_it_is_the_same() -> None:
    for indent in (None, 1):
        assert Manifest.from_json(json.dumps(json.loads(FULL.to_json()), indent=indent)) == FULL


def test_each_entity_and_each_pipe_is_one_line() -> None:
    lines = FULL.to_json().splitlines()
    for name in (*(item.id for item in FULL.entities), *(item.id for item in FULL.pipes)):
        assert len([line for line in lines if f'"id":"{name}"' in line]) == 1


texts = st.text(min_size=1, max_size=8)


@given(
    st.lists(st.tuples(texts, st.lists(texts, max_size=3), texts), max_size=4), st.dictionaries(texts, texts)
)
def test_any_manifest_survives_json(declared: list[tuple[str, list[str], str]], tags: dict[str, str]) -> None:
    pipes = [pipe(name, " ".join(inputs), output, tags=tags) for name, inputs, output in declared]
    made = manifest(*pipes)
    again = Manifest.from_json(made.to_json())
    assert again == made
    assert again.content_hash == made.content_hash == json.loads(made.to_json())["content_hash"]


def test_the_hash_tells_apart_what_is_declared() -> None:
    changed = manifest(pipe("p", "a.b c.d", "e.f", tags={"x": "z"}))
    assert FULL.content_hash != changed.content_hash
    assert FULL.content_hash != FULL.with_problems(Problem("error", "p", "bad")).content_hash


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1]", "not a kindling-dagster manifest"),
        ('{"version": "1"}', "not a kindling-dagster manifest"),
        (json.dumps({"version": MANIFEST_VERSION + 1}), f"version {MANIFEST_VERSION + 1}"),
        (
            json.dumps({"version": MANIFEST_VERSION, "pipes": []}),
            "missing 2 required positional arguments: 'app' and 'entities'",
        ),
        (json.dumps({**json.loads(FULL.to_json()), "settings": []}), "settings: expected an object, not []"),
        (json.dumps({**json.loads(FULL.to_json()), "pipes": 3}), "pipes: expected a list, not 3"),
        (json.dumps({**json.loads(FULL.to_json()), "surprise": 1}), "unexpected keyword argument 'surprise'"),
        (FULL.to_json().replace('"odd"', '"even"'), "changed after it was written"),
    ],
)
def test_what_is_no_manifest_is_refused(text: str, says: str) -> None:
    with pytest.raises(ManifestError, match=r"my\.json") as caught:
        Manifest.from_json(text, origin="my.json")
    assert says in str(caught.value)
    assert caught.value.suggestion


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.json"):
        Manifest.read(tmp_path / "gone.json")


def test_reading_imports_neither_kindling_nor_spark(tmp_path: Path) -> None:
    FULL.write(tmp_path / "m.json")
    code = (
        "import sys; from kindling_dagster.manifest import Manifest; Manifest.read(sys.argv[1]);"
        "print([m for m in sys.modules if m.split('.')[0] in ('kindling', 'pyspark', 'dagster')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.json")], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
