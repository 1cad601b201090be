"""What looks at Delta tables make of trouble, and that they show no secret."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake
from dimension_tables import ROWS, append, dimension

from kindling_dagster.streaming.dimensions import delta, log
from kindling_dagster.streaming.dimensions.look import look
from kindling_dagster.streaming.dimensions.model import DimensionLook


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "planes"
    write_deltalake(str(path), ROWS)
    return path


class TestProblems:
    """Each is reported, none is raised, and the fingerprint is kept for the next look."""

    def check(self, found: DimensionLook, seen: DimensionLook, kind: str) -> None:
        assert found.problem is not None
        assert found.problem.kind == kind
        assert (found.change, found.fingerprint) == (None, seen.fingerprint)
        assert found.problem.message.startswith("ref.planes")
        assert found.problem.suggestion
        json.dumps(found.to_json())

    def test_missing(self, table: Path) -> None:
        seen = look(dimension(table))
        shutil.rmtree(table)
        self.check(look(dimension(table), seen.fingerprint), seen, "missing")

    def test_never_there(self, tmp_path: Path) -> None:
        found = look(dimension(tmp_path / "nothing"))
        assert found.problem is not None
        assert (found.problem.kind, found.fingerprint) == ("missing", None)

    def test_not_a_table(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("")
        found = look(dimension(tmp_path / "plain"))
        assert found.problem is not None
        assert found.problem.kind == "missing"

    @pytest.mark.parametrize("text", ["", '{"commitInfo": {"oper', "[1]", '{"add": 3}', "\x00\x00"])
    def test_corrupt_commit(self, table: Path, text: str) -> None:
        seen = look(dimension(table))
        path = table / "_delta_log" / log.commit_name(1)
        path.write_text(text)
        self.check(look(dimension(table), seen.fingerprint), seen, "corrupt")
        path.unlink()
        append(table)
        assert look(dimension(table), seen.fingerprint).change == "data"

    def test_corrupt_checkpoint(self, table: Path) -> None:
        seen = look(dimension(table, "row_count"))
        append(table)
        DeltaTable(str(table)).create_checkpoint()
        for version in (0, 1):
            (table / "_delta_log" / log.commit_name(version)).unlink()
        next((table / "_delta_log").glob("*.parquet")).write_bytes(b"PAR1 no parquet PAR1")
        self.check(look(dimension(table, "row_count"), seen.fingerprint), seen, "corrupt")

    def test_data_file_gone(self, table: Path) -> None:
        seen = look(dimension(table, "hash"))
        append(table)
        for path in table.glob("*.parquet"):
            path.unlink()
        self.check(look(dimension(table, "hash"), seen.fingerprint), seen, "missing")

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (PermissionError(13, "Permission denied"), "permission"),
            (OSError("Generic S3 error: Client error with status 403 Forbidden: AccessDenied"), "permission"),
            (OSError("Generic S3 error: error sending request: connect: Connection refused"), "unreachable"),
            (TimeoutError("timed out"), "unreachable"),
            (RuntimeError("The table uses unsupported reader features: variantType"), "unsupported"),
            (ZeroDivisionError("what?"), "error"),
        ],
    )
    def test_storage_says_no(
        self, table: Path, error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = look(dimension(table))

        def refuse(*_: object) -> None:
            raise error

        monkeypatch.setattr(delta, "open_log", refuse)
        found = look(dimension(table), seen.fingerprint)
        assert found.problem is not None
        assert (found.problem.kind, found.fingerprint) == (kind, seen.fingerprint)

    def test_no_such_column(self, table: Path) -> None:
        found = look(dimension(table, "watermark", columns=("updated",)))
        assert found.problem is not None
        assert found.problem.kind == "configuration"
        assert "there is no column updated; there are id, name" in found.problem.message

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"method": "nonsense"}, "configuration"),
            ({"method": "watermark", "columns": ()}, "configuration"),
            ({"method": "files"}, "configuration"),
            ({"method": "version", "provider": "parquet"}, "configuration"),
            ({"method": "custom"}, "configuration"),
            ({"location": ""}, "needs_spark"),
            ({"provider": "memory", "method": "hash"}, "needs_spark"),
            ({"provider": "eventhub"}, "needs_spark"),
        ],
    )
    def test_what_cannot_be_looked_at(self, table: Path, changes: dict[str, object], kind: str) -> None:
        found = look(dimension(table, **changes))  # type: ignore[arg-type]
        assert found.problem is not None
        assert found.problem.kind == kind


class TestSecrets:
    """A secret location is asked for at each look and shown nowhere; neither are storage options."""

    def test_location_is_resolved_and_not_shown(self, table: Path) -> None:
        asked: list[int] = []

        def resolve() -> str:
            asked.append(1)
            return str(table)

        watched = dimension(table, location=resolve, label="@secret:PLANES")
        seen = look(watched)
        append(table)
        found = look(watched, seen.fingerprint)
        shutil.rmtree(table)
        missing = look(watched, found.fingerprint)
        assert (found.change, len(asked)) == ("data", 3)
        assert missing.problem is not None
        assert "@secret:PLANES" in missing.problem.message
        for text in (repr(watched), json.dumps(found.to_json()), json.dumps(missing.to_json())):
            assert str(table) not in text
            assert table.name not in text.replace("ref.planes", "")

    @pytest.mark.parametrize("spoil", ["corrupt", "permission", "not there", "remote"])
    def test_no_problem_shows_it(self, table: Path, spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
        location = str(table)
        if spoil == "corrupt":
            (table / "_delta_log" / log.commit_name(0)).write_text("{")
        elif spoil == "permission":
            error = PermissionError(13, "Permission denied", location)
            monkeypatch.setattr(log.LocalLog, "names", lambda self: (_ for _ in ()).throw(error))
        elif spoil == "not there":
            location += "-elsewhere"
        else:
            location = "nonsense://secret-bucket/planes"
        found = look(dimension(table, location=lambda: location, label="@secret:PLANES"))
        assert found.problem is not None
        assert location not in json.dumps(found.to_json())
        assert "secret-bucket" not in json.dumps(found.to_json())

    def test_a_secret_that_is_not_set(self, table: Path) -> None:
        def resolve() -> str:
            raise LookupError("vault://token=abcdef says no")

        found = look(dimension(table, location=resolve, label="@secret:PLANES"))
        assert found.problem is not None
        assert found.problem.kind == "configuration"
        assert "LookupError" in found.problem.message
        assert "abcdef" not in found.problem.message

    def test_storage_options_are_masked(self, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError("cannot sign in with s3cr3t-k3y at https://store")

        monkeypatch.setattr(delta, "open_log", refuse)
        watched = dimension(table, storage_options={"secret_access_key": "s3cr3t-k3y", "allow_http": "true"})
        found = look(watched)
        assert found.problem is not None
        assert "s3cr3t-k3y" not in repr(watched) + found.problem.message
        assert "https://store" in found.problem.message
