"""The benchmark harness: cases, how they are timed, and the one table they end in."""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

import benchmarks

NOT_BENCHMARKS = ("dimension_restarts", "harness", "__main__")
MEASURED_PACKAGES = ("kindling-dagster", "dagster", "spark-kindling", "pyspark", "delta-spark")

Measured = Callable[[], "float | None"]
"""What is measured: returns nothing and is timed in seconds, or returns what it has measured itself."""

Better = Literal["at most", "at least"]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Each round measures both sides, one right after the other and (but for ``in_turn``) in changing order, so
    that a machine that slows down slows both: the ratio is the median of the rounds' ratios. The figure of a
    side is its median over the rounds. By the ``cpu`` clock figures are minima, and the ratio is theirs, since
    what comes on top there is only the caches being shared with others.

    Args:
        name: What is compared; names the size.
        ours: Our side.
        other: The side we compare with; None to compare our figure itself with the goal.
        goal: What the ratio must reach; None to report without judging.
        better: ``at most``: the ratio is ours / other (cost), and must not be above the goal.
            ``at least``: the ratio is other / ours (speed-up), and must not be below the goal.
            Without another side, the figure of ours is judged in the same sense.
        other_name: Who the other side is.
        runs: How many rounds.
        warmups: How many rounds before them that do not count.
        in_turn: Keep one order, so that each side is always measured after the other one and never after
            itself: where what was measured last makes the next one slower or faster.
        units: Of the figures; seconds unless the sides return their own.
        clock: ``wall``, or ``cpu`` for the time that this thread was really given: for pure computing,
            where a busy machine would otherwise decide.
        setup: Called before the first round, not timed.
        before_each: Called before each measurement, not timed.
        teardown: Called after the last round, also when a side raised.
    """

    name: str
    ours: Measured
    other: Measured | None = None
    goal: float | None = None
    better: Better = "at most"
    other_name: str = ""
    runs: int = 5
    warmups: int = 1
    in_turn: bool = False
    units: str = "s"
    clock: Literal["wall", "cpu"] = "wall"
    setup: Callable[[], None] | None = None
    before_each: Callable[[], None] | None = None
    teardown: Callable[[], None] | None = None


@dataclass(frozen=True)
class Result:
    """What a case gave. ``ratios`` are those of the single rounds; ``error`` is a traceback."""

    benchmark: str
    case: str
    ours: float | None = None
    other: float | None = None
    other_name: str = ""
    units: str = "s"
    ratio: float | None = None
    goal: float | None = None
    better: Better = "at most"
    ok: bool | None = None
    """Whether the goal is reached; None without a goal."""
    ours_runs: tuple[float, ...] = ()
    other_runs: tuple[float, ...] = ()
    ratios: tuple[float, ...] = field(default=())
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether the goal is missed or the case broke."""
        return self.ok is False or bool(self.error)


def names() -> list[str]:
    """The benchmarks there are: the modules of this package that have ``cases()``."""
    found = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    return sorted(name for name in found if name not in NOT_BENCHMARKS and not name.startswith("_"))


def run_benchmark(name: str, runs: int | None = None, log: Callable[[str], None] = print) -> Iterator[Result]:
    """Run the cases of one benchmark, giving each result when it is there.

    Its ``cases()`` may be a generator that holds something open between cases (a Spark session): each
    case runs before the next one is asked for, and the generator is closed at the end.
    """
    log(f"{name} …")
    cases: Iterable[Case] | None = None
    try:
        cases = importlib.import_module(f"benchmarks.{name}").cases()
        for case in cases:
            log(f"{name}: {case.name} …")
            yield run_case(name, case, runs)
    except Exception:  # one broken benchmark must not hide the results of the others
        yield Result(name, "could not be set up", error=traceback.format_exc())
    finally:
        close = getattr(cases, "close", None)
        if close is not None:
            close()


def run_case(benchmark: str, case: Case, runs: int | None = None) -> Result:
    """Measure one case; ``runs`` replaces its number of rounds."""
    ours: list[float] = []
    other: list[float] = []
    try:
        if case.setup is not None:
            case.setup()
        for number in range(-case.warmups, runs or case.runs):
            sides = [(case.ours, ours)] + ([(case.other, other)] if case.other is not None else [])
            for measured, values in sides if number % 2 or case.in_turn else reversed(sides):
                value = _measure(measured, case)
                if number >= 0:
                    values.append(value)
    except Exception:  # shown in the table; the other cases go on
        return Result(benchmark, case.name, error=traceback.format_exc())
    finally:
        if case.teardown is not None:
            case.teardown()
    return judge(benchmark, case, ours, other)


def judge(benchmark: str, case: Case, ours: Sequence[float], other: Sequence[float]) -> Result:
    """The result of measured rounds: figures, ratios, and whether the goal is reached."""
    ratio: float | None = None
    ratios: list[float] = []
    middle = statistics.median if case.clock == "wall" else min
    ours_figure = middle(ours)
    other_figure = middle(other) if other else None
    if other_figure is not None:
        ratios = [_ratio(case, mine, theirs) for mine, theirs in zip(ours, other, strict=True)]
        ratio = statistics.median(ratios) if case.clock == "wall" else _ratio(case, ours_figure, other_figure)
    judged = ours_figure if ratio is None else ratio
    ok = None
    if case.goal is not None:
        ok = judged <= case.goal if case.better == "at most" else judged >= case.goal
    return Result(
        benchmark=benchmark,
        case=case.name,
        ours=ours_figure,
        other=other_figure,
        other_name=case.other_name,
        units=case.units,
        ratio=ratio,
        goal=case.goal,
        better=case.better,
        ok=ok,
        ours_runs=tuple(ours),
        other_runs=tuple(other),
        ratios=tuple(ratios),
    )


def _ratio(case: Case, ours: float, other: float) -> float:
    above, below = (ours, other) if case.better == "at most" else (other, ours)
    return above / below if below else float("inf")


def _measure(measured: Measured, case: Case) -> float:
    if case.before_each is not None:
        case.before_each()
    now = time.perf_counter if case.clock == "wall" else time.thread_time
    with _clean_heap():
        started = now()
        value = measured()
        seconds = now() - started
    return seconds if value is None else float(value)


@contextmanager
def _clean_heap() -> Iterator[None]:
    """Take what is on the heap out of the collector's sight.

    Otherwise a side pays for scanning whatever the process has imported and the other side has left.
    What the measured code allocates itself is collected as ever. No collection before: it would empty the
    processor's caches.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def table(results: Sequence[Result]) -> Table:
    """The one table of all results."""
    shown = Table(title="Benchmarks", title_justify="left")
    for heading, right in (
        ("case", False),
        ("ours", True),
        ("the other", True),
        ("ratio", True),
        ("goal", True),
        ("spread of the ratio", True),
        ("", False),
    ):
        shown.add_column(heading, justify="right" if right else "left", overflow="fold")
    for result in results:
        shown.add_row(*_row(result), style="red" if result.failed else None)
    return shown


def _row(result: Result) -> tuple[str, ...]:
    name = f"{result.benchmark}: {result.case}"
    if result.error:
        return name, "", "", "", "", "", f"broken: {result.error.strip().splitlines()[-1]}"
    other = "" if result.other is None else figure(result.other, result.units)
    judged = "" if result.ratio is None else f"{result.ratio:.3g}"
    goal = ""
    if result.goal is not None:
        limit = f"{result.goal:g}" if result.ratio is not None else figure(result.goal, result.units)
        goal = f"{'≤' if result.better == 'at most' else '≥'} {limit}"
    values = result.ratios or result.ours_runs
    ends = [
        f"{value:.3g}" if result.ratios else figure(value, result.units)
        for value in (min(values), max(values))
    ]
    verdict = {True: "ok", False: "missed", None: ""}[result.ok]
    return (
        name,
        figure(result.ours, result.units),
        f"{other} ({result.other_name})" if other and result.other_name else other,
        judged,
        goal,
        f"{ends[0]} – {ends[1]} ({len(values)})",
        verdict,
    )


def figure(value: float | None, units: str) -> str:
    """A figure with its unit; seconds in the unit people would choose."""
    if value is None:
        return ""
    if units != "s":
        return f"{value:.3g} {units}"
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if abs(value) < limit:
            return f"{value * factor:.3g} {unit}"
    return f"{value:.3g} s"


def to_json(results: Sequence[Result]) -> str:
    """All results, with what they were measured on."""
    return json.dumps(
        {
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "packages": {name: _version(name) for name in MEASURED_PACKAGES},
            "results": [asdict(result) for result in results],
        },
        indent=1,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def run(
    selected: Sequence[str], *, runs: int | None = None, json_path: Path, console: Console | None = None
) -> list[Result]:
    """Run benchmarks by name, print the table and write the JSON.

    Progress goes to standard error, so that the table can be piped.

    Args:
        selected: Names, as ``names()`` gives them.
        runs: Rounds per case; as the cases say when left out.
        json_path: Where the results go; folders are made.
        console: Where the table goes; standard output when left out.
    """
    results: list[Result] = []

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    for name in selected:
        for result in run_benchmark(name, runs, tell):
            # At once: what is ended before the table is there shows what it had.
            tell("  ".join(filter(None, _row(result))))
            results.append(result)
    # A pipe or a log file has no width of its own; rich would fold the table to 80 columns.
    width = None if sys.stdout.isatty() else 160
    (console or Console(width=width)).print(table(results))
    for result in results:
        if result.error:
            print(f"\n{result.benchmark}: {result.case}\n{result.error}", file=sys.stderr)
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(to_json(results) + "\n", encoding="utf-8")
    return results
