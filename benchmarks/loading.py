"""Loading definitions of 100, 1,000 and 5,000 pipes, from the app and from its manifest, against Dagster alone.

The other side declares as many asset specs in one multi_asset. Plain ones have key, dependencies and group; full
ones also the descriptions, tags, kinds, schemas, locations and code versions that ours carry, which cost Dagster
itself a good part of the difference; checked ones the three checks of each table as well. So like is compared with
like where the other side is "full specs and checks", and the rest shows what comes on top of bare specs, with the
checks and without.

All figures are CPU seconds of processes that end with the repository being there, as a code server loads it.
"The whole process" begins with the interpreter, "without imports" after them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks._apart import apart
from benchmarks._loading_child import reads, written
from benchmarks.harness import Case
from kindling_dagster.project import KindlingProject

ROOT = Path(__file__).parents[1]
SIZES = (100, 1_000, 5_000)
PER_MODULE = 50
MANIFEST_GOAL = 1.5
"""From the manifest, loading takes at most so many times as long as Dagster alone."""
BASES = {"plain": "plain specs", "full": "full specs", "checked": "full specs and checks"}
"""Whom we are compared with: all are Dagster alone."""
MODES = {
    "manifest": "manifest",
    "unchecked": "manifest, no checks",
    "app": "app, recorded before",
    "anew": "app, recorded anew",
}
ROUNDS = 5
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


class Loads:
    """Loads definitions in processes of their own, and keeps what each has told.

    Args:
        cache: Where manifests are cached; emptied before an app is recorded anew.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._told: dict[tuple[int, str, str], list[dict[str, float]]] = {}

    def _load(self, app: App, mode: str, what: str, kept: str) -> float:
        """CPU seconds: of the ``build`` without imports, or of the whole ``process``."""
        from_file = {"manifest": app.manifest, "unchecked": app.manifest, "app": app.directory}
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks._loading_child", mode, str(from_file.get(mode, app.pipes))],
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
        self._told.setdefault((app.pipes, kept, mode), []).append(told)
        return float(told[what])

    def cases(self, app: App, mode: str, base: str, *shown: tuple[str, float | None]) -> Iterator[Case]:
        """One way of loading against as many specs in Dagster alone.

        Args:
            app: The app.
            mode: ``manifest``, ``unchecked``, ``app``, or ``anew`` for an app that is recorded first.
            base: The other side, one of ``BASES``.
            shown: Which of the figures of the same processes, each with its goal.
        """
        kept = f"{mode} against {base}"
        for number, (what, goal) in enumerate(shown):
            measured = {"build": "without imports", "process": "the whole process"}[what]
            first = number == 0
            yield Case(
                name=f"{app.pipes:,} pipes from the {MODES[mode]}, {measured}",
                ours=partial(self._load, app, "app" if mode == "anew" else mode, what, kept)
                if first
                else self._figures(app, kept, mode, what),
                other=partial(self._load, app, base, what, kept)
                if first
                else self._figures(app, kept, base, what),
                other_name=BASES[base],
                goal=goal,
                runs=ROUNDS,
                warmups=1 if first else 0,
                clock="cpu",
                before_each=self._forget if mode == "anew" else None,
            )

    def growth(self, large: App, small: App) -> Case:
        """How the cost of recording grows, of the same processes."""
        kept = "anew against plain"
        return Case(
            name=f"{large.pipes:,} pipes against {small.pipes:,}, recorded anew",
            ours=self._figures(large, kept, "app", "process"),
            other=self._figures(small, kept, "app", "process"),
            other_name=f"{small.pipes:,} pipes",
            goal=GROWTH_GOAL,
            runs=ROUNDS,
            warmups=0,
            clock="cpu",
        )

    def _figures(self, app: App, kept: str, mode: str, what: str) -> Callable[[], float]:
        """What processes have told before, one after the other; without the first, which warmed up."""
        told = self._told.get((app.pipes, kept, mode), [])[1:]
        return (one[what] for one in told).__next__

    def _forget(self) -> None:
        shutil.rmtree(self._cache, ignore_errors=True)


def cases() -> Iterator[Case]:
    """Each size from the manifest and from the app, then how the cost of recording grows."""
    with tempfile.TemporaryDirectory() as folder, apart(Path(folder)):
        loads = Loads(Path(folder) / "cache")
        apps = [make_app(Path(folder), pipes) for pipes in SIZES]
        for app in apps:
            both = (("process", MANIFEST_GOAL), ("build", MANIFEST_GOAL))
            yield from loads.cases(app, "manifest", "checked", *both)
            yield from loads.cases(app, "manifest", "plain", *both)
            yield from loads.cases(app, "unchecked", "full", ("build", MANIFEST_GOAL))
            yield from loads.cases(app, "unchecked", "plain", ("build", MANIFEST_GOAL))
            yield from loads.cases(app, "app", "plain", ("process", None))
            yield from loads.cases(app, "anew", "plain", ("process", None))
        yield loads.growth(apps[2], apps[1])
