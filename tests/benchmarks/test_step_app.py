"""The apps that the benchmarks run: their shape, and that Kindling takes them."""

from __future__ import annotations

import pytest
from deltalake import DeltaTable

from benchmarks._step_app import SOURCE, chain, layers, write_app, write_source
from kindling_dagster.dag.graph import PipeGraphBuilder
from kindling_dagster.project import KindlingProject


@pytest.mark.parametrize(
    ("pipes", "widths"),
    [
        (chain(1), [1]),
        (chain(10), [1] * 10),
        (layers(4, 2), [4, 4]),
        (layers(3, 3), [3, 3, 3]),
    ],
)
def test_the_app_has_the_graph_it_is_measured_for(pipes, widths, tmp_path, monkeypatch):
    monkeypatch.setenv("KINDLING_DAGSTER_CACHE", str(tmp_path / "cache"))
    app = write_app(tmp_path / "app", pipes)
    manifest = KindlingProject(app.directory).manifest
    assert not manifest.problems
    assert {pipe.id: tuple(pipe.input_entity_ids) for pipe in manifest.pipes} == pipes
    graph = PipeGraphBuilder(manifest).build_graph()
    assert [len(generation) for generation in graph.generations] == widths


def test_the_source_is_where_the_app_looks_for_it(tmp_path):
    app = write_app(tmp_path / "app", chain(1))
    write_source(app, 50)
    table = DeltaTable(str(app.lake / SOURCE.replace(".", "/")))
    rows = table.to_pyarrow_table().to_pylist()
    assert sorted(row["id"] for row in rows) == list(range(50))
    assert table.metadata().configuration == {"delta.enableChangeDataFeed": "true"}
