"""An app initialised for real: found as the manifest says, switched, refused beside another, and taken back whole."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from app_forms import APPS, ENTITY, PIPE, SECRETS, manifest_cache, quick, small_app

from kindling_dagster.errors import DeclarationError, ProjectError, ProjectMixError, RunError
from kindling_dagster.manifest import SecretRef
from kindling_dagster.project import KindlingProject
from kindling_dagster.runtime import KindlingRuntime, missing_secret_error, read_dotenv

__all__ = ["manifest_cache", "quick"]

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from kindling_dagster.spark import build_session

    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("spark"))
    session = build_session({"spark.master": "local[2]", "spark.sql.shuffle.partitions": 2})
    os.chdir(before)
    yield session
    session.stop()


@pytest.fixture
def tiny(tmp_path: Path) -> KindlingProject:
    return KindlingProject(small_app(tmp_path, {"entities/e.py": ENTITY, "pipes/a.py": PIPE}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\n# no\n\nexport B = 'two words'\n", {"A": "1", "B": "two words"}),
        ('C="x=y"\nno separator\n=nothing\n', {"C": "x=y"}),
        ("D=1\nD=2\n", {"D": "1"}),
        ('E="open\n', {"E": '"open'}),
    ],
)
def test_dotenv_is_read_as_kindlings_cli_does(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    (tmp_path / ".env").write_text(text)
    assert read_dotenv(tmp_path / ".env") == expected


def test_missing_secrets_name_key_place_and_where_kindling_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    references = [SecretRef("lake-path", "silver.a.tags.provider.path"), SecretRef("THERE", "x.y")]
    monkeypatch.setenv("KINDLING_SECRET_THERE", "value-of-it")
    error = missing_secret_error(references)
    assert error is not None
    text = str(error)
    assert "lake-path" in text
    assert "silver.a.tags.provider.path" in text
    assert "LAKE_PATH" in text
    assert "KINDLING_SECRET_LAKE_PATH" in text
    assert "THERE" not in text
    assert "value-of-it" not in text


@pytest.mark.spark
def test_start_and_close_leave_the_process_as_it_was(tiny: KindlingProject, spark: Any) -> None:
    import __main__

    before = (Path.cwd(), list(sys.path), dict(os.environ), getattr(__main__, "spark", None))
    for _ in range(2):  # what is closed can be started again
        runtime = KindlingRuntime.start(tiny, spark)
        assert Path.cwd() == tiny.run_dir
        assert os.environ["KINDLING_ENV"] == "local"
        assert runtime.pipes.get_pipe_ids() == ["a"]
        assert runtime.entities.get_entity_ids() == ["bronze.a", "silver.a"]
        assert runtime.spark is spark
        assert "tiny.pipes.a" in sys.modules
        assert KindlingRuntime.start(tiny) is runtime
        runtime.close()
        runtime.close()
        after = (Path.cwd(), list(sys.path), dict(os.environ), getattr(__main__, "spark", None))
        # Kindling announces its settings loader to Dynaconf in the environment; that is put back too.
        assert after == before
        assert [name for name in sys.modules if name.split(".")[0] == "tiny"] == []


@pytest.mark.spark
def test_it_starts_in_a_thread_and_runs_a_pipe_where_the_app_lives(tiny: KindlingProject, spark: Any) -> None:
    settings = {
        "kindling.delta.access_mode": "storage",
        "kindling.storage.table_root": str(tiny.run_dir / "lake"),
    }
    project = KindlingProject(tiny.app_path, settings=settings)
    spark.createDataFrame([(1,), (2,)], ["id"]).write.format("delta").save(
        str(tiny.run_dir / "lake/bronze/a")
    )
    counts: list[Any] = []

    def work() -> None:
        with KindlingRuntime.start(project, lambda: spark) as runtime:
            runtime.execution.run_datapipes(["a"])
            counts.append(
                spark.read.format("delta").load("file://" + runtime.table_path(_entity(runtime))).count()
            )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(300)
    assert counts == [2]
    location = project.manifest.entities_by_id["silver.a"].location
    assert location.value == str(tiny.run_dir / "lake/silver/a")


def _entity(runtime: KindlingRuntime) -> Any:
    return runtime.entities.get_entity_definition("silver.a")


@pytest.mark.spark
def test_two_apps_do_not_mix(tiny: KindlingProject, spark: Any) -> None:
    other = KindlingProject(APPS / "counter")
    with KindlingRuntime.start(tiny, spark) as runtime:
        with pytest.raises(ProjectMixError) as caught:
            KindlingRuntime.start(other, spark)
        assert "tiny_app" in str(caught.value)
        assert "counter" in str(caught.value)
        assert runtime.pipes.get_pipe_ids() == ["a"]
    with KindlingRuntime.start(other, spark) as runtime:
        assert runtime.pipes.get_pipe_ids() == ["counted"]


@pytest.mark.spark
def test_watermarks_can_be_switched_between_runs(tiny: KindlingProject, spark: Any) -> None:
    from kindling.watermarking import WatermarkAspect

    def listeners(runtime: KindlingRuntime) -> int:
        return len(runtime.signals.create_signal("persist.after_persist")._signal.receivers)

    with KindlingRuntime.start(tiny, spark) as runtime:
        counts = []
        for wanted in (None, True, True, False, False, True):
            KindlingRuntime.start(tiny, spark, watermarks=wanted)
            counts.append(listeners(runtime))
    assert counts == [0, 1, 1, 0, 0, 1]
    with KindlingRuntime.start(tiny, spark) as runtime:
        runtime._service(WatermarkAspect).register()  # as a platform does that turns them on itself
        KindlingRuntime.start(tiny, spark, watermarks=False)
        assert listeners(runtime) == 1


@pytest.mark.spark
def test_missing_secrets_stop_the_start(spark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key, value in SECRETS.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("KITCHEN_GOLD_PATH")
    monkeypatch.delenv("KITCHEN_LOOKUP_PATH")
    (tmp_path / ".env").write_text("KITCHEN_LOOKUP_PATH=/from/dotenv\n")
    project = KindlingProject(APPS / "kitchen", working_dir=tmp_path)
    with pytest.raises(RunError) as caught:
        KindlingRuntime.start(project, spark)
    text = str(caught.value)
    assert "KITCHEN_GOLD_PATH (asked for by entity_tags.gold.summary.provider.path)" in text
    assert "KITCHEN_LOOKUP_PATH" not in text
    assert [value for value in SECRETS.values() if value in text] == []
    monkeypatch.setenv("KITCHEN_GOLD_PATH", SECRETS["KITCHEN_GOLD_PATH"])
    with KindlingRuntime.start(project, spark) as runtime:  # nothing of the failed start is left
        path = runtime.table_path(runtime.entities.get_entity_definition("gold.summary"))
        assert path == SECRETS["KITCHEN_GOLD_PATH"]


@pytest.mark.spark
@pytest.mark.parametrize(
    ("modules", "kind", "told"),
    [
        ({"pipes/a.py": "1 / 0\n"}, ProjectError, "src/tiny/pipes/a.py:1"),
        (
            {"entities/e.py": ENTITY.replace("{}", "{'scd.type': '3'}")},
            DeclarationError,
            "src/tiny/entities/e.py:5",
        ),
    ],
)
def test_a_start_that_fails_says_where(
    tmp_path: Path, spark: Any, modules: dict[str, str], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        KindlingRuntime.start(KindlingProject(small_app(tmp_path, modules)), spark)
    assert Path.cwd() != tmp_path / "tiny_app"
