"""Every code block of README, CONTRIBUTING and docs: Python runs, settings are read, commands exist, drawings are drawings."""

from __future__ import annotations

import ast
import configparser
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from app_forms import manifest_cache, quick_recorder, small_app  # noqa: F401  # a fixture

from kindling_dagster.cli import main
from kindling_dagster.config import KindlingRunConfig
from kindling_dagster.project import KindlingProject

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

RUN_BY = {
    "data_pipes.md": "tests/dag/test_docs.py",
    "signals.md": "tests/signals/test_signals_page.py",
    "lineage.md": "tests/lineage/test_lineage_page.py",
    "clusters.md": "tests/cluster/test_clusters_page.py",
}
"""Pages whose Python is run by a test that also looks at what comes of it."""

NEEDS_MORE = ("reprocess_rows(", "get_kindling_service(", "DataEntities.", "DataPipes.")
"""Python that needs tables, or is part of an app: it compiles, and what it imports is there."""

PRELUDE = """
from dagster import AutomationCondition, EnvVar, asset, op
from kindling_dagster import (
    KindlingProject, KindlingResource, KindlingStreamsResource, SupervisorPolicy, build_kindling_definitions,
)

@asset
def my_report(): ...

project = KindlingProject("path/to/app")
"""
"""What blocks that show a part alone may take for granted."""

ENTITIES = """
from kindling.data_entities import DataEntities
from pyspark.sql.types import LongType, StructField, StructType

SCHEMA = StructType([StructField("id", LongType(), False), StructField("amount", LongType(), True)])
for id_ in (
    "bronze.orders silver.orders gold.daily ref.planes ref.rates ref.airlines bronze.flights silver.flights_live"
).split():
    DataEntities.entity(entityid=id_, name=id_.replace(".", "_"), merge_columns=["id"], tags={}, schema=SCHEMA)
"""
PIPES = """
from kindling.data_pipes import DataPipes


def pipe(id_, inputs, output, function, **tags):
    DataPipes.pipe(
        pipeid=id_, name=id_, tags=tags, input_entity_ids=inputs.split(), output_entity_id=output, output_type="table",
    )(function)


pipe("clean", "bronze.orders", "silver.orders", lambda bronze_orders: bronze_orders.filter("amount > 0"))
pipe("daily", "silver.orders", "gold.daily", lambda silver_orders: silver_orders)
pipe(
    "silver.flights_live", "bronze.flights ref.airlines ref.planes ref.rates", "silver.flights_live",
    lambda bronze_flights, ref_airlines, ref_planes, ref_rates: bronze_flights, processing_mode="streaming",
)
"""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    illustration: bool

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, flags=re.DOTALL | re.MULTILINE)
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match[2],
            re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE),
            text[: match.start()].rstrip(" ").endswith("<!-- illustration -->\n"),
        )
        for match in found
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of(*languages: str) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in BLOCKS if block.language in languages]


def test_each_language_is_one_that_is_looked_at() -> None:
    looked_at = {"python", "yaml", "bash", "console", "ini", "properties", "mermaid", "text"}
    assert [block.place for block in BLOCKS if block.language not in looked_at] == []
    assert all((ROOT / test).is_file() for test in RUN_BY.values())


# Python


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the pages name: an app at ``path/to/app`` with its manifest, and the demo."""
    folder = tmp_path_factory.mktemp("pages")
    app = small_app(folder, {"entities/tables.py": ENTITIES, "pipes/steps.py": PIPES}, name="shop")
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "app").symlink_to(app)
    (folder / "demo").symlink_to(ROOT / "demo")
    return folder


def _checked(block: Block) -> Any:
    """The block as code; every name that it imports from this package is there."""
    for node in ast.walk(ast.parse(block.text, filename=block.place)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kindling_dagster"):
            module = import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
    return compile(block.text, block.place, "exec", dont_inherit=True)


@pytest.mark.parametrize("block", of("python"))
def test_python_compiles_and_imports_what_there_is(block: Block) -> None:
    _checked(block)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name)
        for page in PAGES
        if page.name not in RUN_BY and any(block.language == "python" for block in blocks_of(page))
    ],
)
def test_the_python_of_a_page_runs(
    page: Path, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kindling_dagster.project.run_recorder", quick_recorder)
    monkeypatch.chdir(place)
    monkeypatch.setenv("STREAMS_DB", f"sqlite:///{tmp_path / 'streams.db'}")
    manifest = KindlingProject("path/to/app").manifest
    manifest.write(place / "manifest.json")
    names: dict[str, Any] = {"__name__": page.stem}
    exec(compile(PRELUDE, "prelude", "exec", dont_inherit=True), names)
    for block in blocks_of(page):
        illustrates = block.illustration or any(part in block.text for part in NEEDS_MORE)
        if block.language == "python" and not illustrates:
            # The only absolute path that a page has.
            exec(_checked(_moved(block, tmp_path)), names)
    for name, test in list(names.items()):
        # What needs Spark takes fixtures, and is run by test_pages_on_spark.py.
        if name.startswith("test_") and not inspect.signature(test).parameters:
            test()


def _moved(block: Block, folder: Path) -> Block:
    return Block(
        block.page, block.line, block.language, block.text.replace("/srv/dagster/storage", str(folder)), False
    )


# Settings


@pytest.mark.parametrize("block", of("yaml"))
def test_settings_are_read_and_name_what_there_is(block: Block) -> None:
    stated = [each for each in yaml.safe_load_all(block.text) if each is not None]
    assert stated
    for document in stated:
        assert isinstance(document, dict)
        for op, given in document.get("ops", {}).items():
            if not op.endswith("_write"):  # a job's own config, which its page's tests know
                KindlingRunConfig(**given["config"])
        if document.get("kind") == "Deployment":
            template = document["spec"]["template"]["spec"]
            for container in template["containers"]:
                name, *words = container["command"]
                assert name == "kindling-dagster"
                check_command(words)


@pytest.mark.parametrize("block", of("ini"))
def test_unit_files_start_what_there_is(block: Block) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    path, *words = shlex.split(unit["Service"]["ExecStart"])
    assert Path(path).name == "kindling-dagster"
    check_command(words)


# Commands


def _lines() -> Iterator[Any]:
    for block in BLOCKS:
        if block.language not in ("bash", "console"):
            continue
        for number, line in enumerate(block.text.replace("\\\n", " ").splitlines()):
            prompt = line.removeprefix("$ ")
            if block.language == "console" and prompt == line:
                continue  # what a command has printed
            if prompt.partition("#")[0].strip():
                yield pytest.param(prompt, id=f"{block.place}+{number + 1} {prompt.split('#')[0].strip()}")


@pytest.mark.parametrize("line", list(_lines()))
def test_a_line_of_a_shell_block_is_a_command_that_exists(line: str) -> None:
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words[:2] == ["uv", "run"]:
        words = [word for word in words[2:] if not word.startswith("--") and word != "docs"]
    if words and words[0] == "kindling-dagster":
        check_command(words[1:])
        return
    assert words[0] in {
        "pip", "cd", "dg", "dagster", "demo", "pytest", "python", "ruff", "mypy", "mkdocs", "uv", ".ci/run",
    }, line  # fmt: skip
    if words[0] == "pip":
        assert set(words[2:]) <= INSTALLABLE, line


INSTALLABLE = {
    "kindling-dagster", "kindling-dagster[java]", "kindling-dagster[postgres]", "dagster-webserver",
    "dagster-dg-cli", "dagster-postgres", "dagster-k8s", "pandas", "polars", "pyarrow", "duckdb", "matplotlib",
    "kindling-dagster[polars]", "kindling-dagster[duckdb]", "kindling-dagster[pandas]",
}  # fmt: skip
"""What the pages tell one to install."""


def check_command(words: list[str]) -> None:
    """Follow a command line of ours through its commands; its options and number of arguments must be right."""
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, words
        command = command.commands[rest.pop(0)]
    if "…" in rest:
        return
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} - {"--help"} <= options, words
    if not isinstance(command, click.Group):
        # Parsed as the shell would hand it over; nothing is called. Paths need not be there.
        for parameter in command.params:
            assert parameter.name
        parser = command.make_parser(click.Context(command))
        parser.parse_args(list(rest))


# Drawings


@pytest.mark.parametrize("block", of("mermaid"))
def test_drawings_begin_as_mermaid_knows_them_and_close_what_they_open(block: Block) -> None:
    first = block.text.split(None, 1)[0]
    assert first in {"flowchart", "graph", "sequenceDiagram", "stateDiagram-v2", "classDiagram", "erDiagram"}
    opened = re.findall(r"^\s*subgraph\b", block.text, flags=re.MULTILINE)
    closed = re.findall(r"^\s*end\s*$", block.text, flags=re.MULTILINE)
    assert first != "flowchart" or len(opened) == len(closed)


# The site


def test_every_page_is_in_the_sites_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    section = text[text.index("\nnav:") :]
    named = set(re.findall(r"([\w/]+\.md)", section))
    assert named == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_the_reference_has_every_public_name() -> None:
    import kindling_dagster

    named = set(re.findall(r"^::: kindling_dagster\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE))
    assert set(kindling_dagster.__all__) <= named
