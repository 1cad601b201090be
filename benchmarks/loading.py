"""Loading definitions of 100, 1,000 and 5,000 pipes, from the app and from its manifest, against Dagster alone.

The other side declares as many asset specs in one multi_asset. Plain ones have key, dependencies and group;
full ones also the descriptions, tags, kinds, schemas, locations and code versions that ours carry, which cost
Dagster itself a good part of the difference. All figures are CPU seconds
of processes that end with the repository being there, as a code server loads it. "Without imports" begins
after them; "the whole process" begins with the interpreter. A Spark resource alone makes Dagster import
PySpark and NumPy, so the whole process is compared with plain specs beside such a resource, too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks._loading_child import reads, written
from benchmarks.harness import Case
from kindling_dagster.project import KindlingProject

ROOT = Path(__file__).parents[1]
SIZES = (100, 1_000, 5_000)
PER_MODULE = 50
MANIFEST_GOAL = 1.5
"""From the manifest, loading takes at most so many times as long as Dagster alone."""
BASES = {"plain": "plain specs", "full": "full specs", "pyspark": "plain specs, dagster-pyspark"}
"""Whom we are compared with: all are Dagster alone."""
GROWTH_GOAL = 6.0
"""Five times the pipes may cost so many times as much; quadratic growth would be 25."""

ENTITY = """
DataEntities.entity(
    entityid="{entity}",
    name="{entity}",
    merge_columns=["id"],
    tags={{"layer": "sales"}},
    schema=COLUMNS,
)
"""
PIPE = '''

@DataPipes.pipe(
    pipeid="pipe.{number}",
    name="Table {number}",
    tags={{"team": "sales"}},
    input_entity_ids={inputs},
    output_entity_id="{entity}",
    output_type="delta",
)
def table_{number}({parameters}):
    """Makes table {number}."""
    return {first}
'''


@dataclass(frozen=True)
class App:
    """One generated app and its recorded manifest."""

    pipes: int
    directory: Path
    manifest: Path


def write_app(directory: Path, pipes: int) -> None:
    """A Kindling app as the scaffold lays it out: modules of 50 entities and 50 pipes each."""
    package = directory / "src" / "sales"
    for folder in ("entities", "pipes"):
        (package / folder).mkdir(parents=True)
        (package / folder / "__init__.py").touch()
    (package / "__init__.py").touch()
    (directory / "app.yaml").write_text("name: sales\n")
    (directory / "settings.yaml").write_text(
        "kindling:\n  delta:\n    access_mode: storage\n  storage:\n    table_root: lake\n"
    )
    (directory / "lake-reqs.txt").write_text("sales\n")
    head = (
        "from kindling.data_entities import DataEntities\n"
        "from pyspark.sql.types import LongType, StringType, StructField, StructType\n\n"
        'COLUMNS = StructType([StructField("id", LongType()), StructField("name", StringType())])\n'
    )
    sources = "".join(ENTITY.format(entity=f"source.s{number}") for number in range(10))
    (package / "entities" / "sources.py").write_text(head + sources)
    for start in range(0, pipes, PER_MODULE):
        numbers = range(start, min(start + PER_MODULE, pipes))
        entities = "".join(ENTITY.format(entity=written(number)) for number in numbers)
        (package / "entities" / f"part_{start}.py").write_text(head + entities)
        body = ""
        for number in numbers:
            inputs = reads(number, pipes)
            parameters = [entity.replace(".", "_") for entity in inputs]
            body += PIPE.format(
                number=number,
                inputs=inputs,
                entity=written(number),
                parameters=", ".join(parameters),
                first=parameters[0],
            )
        module = "from kindling.data_pipes import DataPipes\n" + body
        (package / "pipes" / f"part_{start}.py").write_text(module)


def make_app(folder: Path, pipes: int) -> App:
    """Write an app of so many pipes and record its manifest, both below ``folder``."""
    app = App(pipes, folder / f"app_{pipes}", folder / f"manifest_{pipes}.json")
    write_app(app.directory, pipes)
    KindlingProject(app.directory).manifest.write(app.manifest)
    return app


def loading(app: App, mode: str, what: str) -> Callable[[], float]:
    """Loads in a process of its own; gives CPU seconds: of the ``build`` without imports, or of the ``process``."""
    argument = {"manifest": app.manifest, "app": app.directory}.get(mode, app.pipes)

    def measured() -> float:
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks._loading_child", mode, str(argument)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(ended.stderr)
        told = json.loads(ended.stdout.splitlines()[-1])
        if told["assets"] != app.pipes:
            raise AssertionError(f"{mode} loaded {told['assets']} assets instead of {app.pipes}")
        return float(told[what])

    return measured


def cases() -> Iterator[Case]:
    """Each size from the manifest and from the app, then how the cost of recording grows."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        before = os.environ.get("KINDLING_DAGSTER_CACHE")
        os.environ["KINDLING_DAGSTER_CACHE"] = str(cache)
        try:
            yield from _cases([make_app(Path(folder), pipes) for pipes in SIZES], cache)
        finally:
            del os.environ["KINDLING_DAGSTER_CACHE"]
            if before is not None:
                os.environ["KINDLING_DAGSTER_CACHE"] = before


def _cases(apps: list[App], cache: Path) -> Iterator[Case]:
    def forget() -> None:
        shutil.rmtree(cache, ignore_errors=True)

    for app in apps:
        yield _case(app, "manifest", "build", "plain", goal=MANIFEST_GOAL, runs=7)
        yield _case(app, "manifest", "build", "full", goal=MANIFEST_GOAL, runs=7)
        yield _case(app, "manifest", "process", "pyspark", goal=MANIFEST_GOAL)
        yield _case(app, "manifest", "process", "plain")
        yield _case(app, "app", "process", "plain", "recorded before", runs=3)
        yield _case(app, "app", "process", "plain", "recorded anew", runs=3, before_each=forget)
    _, middle, large = apps
    yield Case(
        name=f"{large.pipes:,} pipes against {middle.pipes:,}, recorded anew",
        ours=loading(large, "app", "process"),
        other=loading(middle, "app", "process"),
        other_name=f"{middle.pipes:,} pipes",
        goal=GROWTH_GOAL,
        runs=3,
        clock="cpu",
        before_each=forget,
    )


def _case(
    app: App,
    mode: str,
    what: str,
    base: str,
    how: str = "",
    *,
    goal: float | None = None,
    runs: int = 5,
    before_each: Callable[[], None] | None = None,
) -> Case:
    """One way of loading against as many specs in Dagster alone."""
    measured = {"build": "without imports", "process": "the whole process"}[what]
    return Case(
        name=", ".join(part for part in (f"{app.pipes:,} pipes from the {mode}", how, measured) if part),
        ours=loading(app, mode, what),
        other=loading(app, base, what),
        other_name=BASES[base],
        goal=goal,
        runs=runs,
        clock="cpu",
        before_each=before_each,
    )
