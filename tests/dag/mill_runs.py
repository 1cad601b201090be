"""The app below ``mill_app``, started in this process: what its pipes do is set by the tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kindling_dagster.project import KindlingProject
from kindling_dagster.runtime import KindlingRuntime
from kindling_dagster.spark import build_session

GRAIN = [(1, "rye"), (2, "oat"), (3, "rye")]


@dataclass(frozen=True)
class Mill:
    """The started app. ``switches.bodies`` says what pipes do; ``switches.called`` which were called."""

    spark: Any
    runtime: KindlingRuntime
    project: KindlingProject
    switches: Any

    @property
    def folder(self) -> Path:
        assert self.project.app_path is not None
        return self.project.app_path

    @property
    def manifest(self) -> Any:
        return self.project.manifest

    def table(self, entity_id: str) -> str:
        return str(self.folder / "data" / "lake" / entity_id.replace(".", "/"))

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        frame = self.spark.read.parquet(str(self.folder / "data" / "out" / name))
        return sorted((row["id"], row["kind"]) for row in frame.collect())

    @contextmanager
    def hearing(self, *names: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        """Signals of these names, with their payloads, in the order they came."""
        heard: list[tuple[str, dict[str, Any]]] = []
        connected = []
        for name in names:

            def receive(sender: Any, name: str = name, **payload: Any) -> None:
                heard.append((name, payload))

            signal = self.runtime.signals.create_signal(name)
            signal.connect(receive, weak=False)
            connected.append((signal, receive))
        try:
            yield heard
        finally:
            for signal, receive in connected:
                signal.disconnect(receive)

    @contextmanager
    def receiving(self, name: str, receiver: Any) -> Iterator[None]:
        """With a receiver of the app's own on a signal."""
        signal = self.runtime.signals.create_signal(name)
        signal.connect(receiver, weak=False)
        try:
            yield
        finally:
            signal.disconnect(receiver)


@contextmanager
def started_mill(folder: Path) -> Iterator[Mill]:
    """A copy of the app in ``folder``, its table of grain written, in a session of two cores."""
    app = folder / "mill_app"
    shutil.copytree(Path(__file__).parent / "mill_app", app)
    with ThreadPoolExecutor(1) as pool:  # never on the main thread, as in a run
        spark = pool.submit(build_session, {"spark.master": "local[2]", "spark.app.name": "mill"}).result()
    try:
        grain = spark.createDataFrame(GRAIN, "id long, kind string").coalesce(1)
        grain.write.format("delta").save(str(app / "data" / "lake" / "lake" / "grain"))
        project = KindlingProject(app)
        with KindlingRuntime.start(project, spark) as runtime:
            from mill import switches  # on the path while the app is up

            yield Mill(spark, runtime, project, switches)
    finally:
        spark.stop()
