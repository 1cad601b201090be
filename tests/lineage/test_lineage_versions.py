"""Versions of real packages: a release, an editable install, a working copy, plain files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kindling_dagster.errors import LineageError
from kindling_dagster.lineage.context import VersionedExecutionContext
from kindling_dagster.lineage.versions import TransformVersion, TransformVersions, content_hash


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "acme"
    (root / "pipes").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "pipes" / "orders.py").write_text("x = 1\n")
    return root


def install(root: Path, version: str, monkeypatch: pytest.MonkeyPatch, editable: bool = False) -> None:
    """What an installer leaves beside a package."""
    info = root.parent / f"acme_sales-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-sales\nVersion: {version}\n")
    (info / "top_level.txt").write_text("acme\n")
    (info / "RECORD").write_text("acme/__init__.py,,\n")
    if editable:
        (info / "direct_url.json").write_text('{"url": "file:///somewhere", "dir_info": {"editable": true}}')
    monkeypatch.syspath_prepend(str(root.parent))


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def version(package: Path, override: str = "") -> TransformVersion:
    return TransformVersions(override).of("acme.pipes.orders", package / "pipes" / "orders.py")


def test_a_release_has_its_own_version(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(package, "1.2", monkeypatch)
    assert version(package) == TransformVersion("acme-sales", "1.2", "package")


def test_of_a_namespace_that_packages_share_the_one_counts_that_brings_the_module(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(package, "1.2", monkeypatch)
    info = package.parent / "acme_stock-7.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-stock\nVersion: 7.0\n")
    (info / "top_level.txt").write_text("acme\n")
    for name in ("stock", "shelves"):
        (package / f"{name}.py").write_text("")
    (info / "RECORD").write_text("acme/stock.py,,\n")
    (package.parent / "acme_sales-1.2.dist-info" / "RECORD").write_text("acme/shelves.py,,\n")
    versions = TransformVersions()
    assert versions.of("acme.stock", package / "stock.py") == TransformVersion("acme-stock", "7.0", "package")
    assert versions.of("acme.shelves", package / "shelves.py") == TransformVersion(
        "acme-sales", "1.2", "package"
    )


def test_an_editable_install_is_known_by_its_content(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(package, "1.2", monkeypatch, editable=True)
    assert version(package) == TransformVersion(
        "acme-sales", f"1.2+content.{content_hash(package)}", "content"
    )


def test_a_working_copy_is_known_by_its_commit(package: Path) -> None:
    git(package, "init", "-q")
    git(package, "add", ".")
    git(package, "commit", "-qm", "first")
    commit = git(package, "rev-parse", "--short=12", "HEAD")
    assert version(package) == TransformVersion("acme", f"git.{commit}", "git")
    (package / "pipes" / "orders.py").write_text("x = 2\n")
    assert version(package).version == f"git.{commit}.dirty.{content_hash(package)}"


def test_plain_files_are_known_by_their_content(package: Path) -> None:
    first = version(package)
    assert first == TransformVersion("acme", f"content.{content_hash(package)}", "content")
    (package / "pipes" / "orders.py").write_text("x = 2\n")
    assert version(package) != first


def test_line_endings_change_no_content(package: Path) -> None:
    before = content_hash(package)
    (package / "pipes" / "orders.py").write_bytes(b"x = 1\r\n")
    assert content_hash(package) == before


def test_the_project_has_the_last_word(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(package, "1.2", monkeypatch)
    assert version(package, "7") == TransformVersion("acme-sales", "7", "setting")


def test_without_git_the_content_counts(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(package, "init", "-q")
    git(package, "add", ".")
    git(package, "commit", "-qm", "first")
    monkeypatch.setenv("PATH", "")
    assert version(package).source == "content"


def test_code_without_a_file_says_so() -> None:
    assert TransformVersions().of("__main__", None) == TransformVersion("__main__", "unknown", "content")


def test_a_single_module_is_its_own_package(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text("x = 1\n")
    found = TransformVersions().of("steps", tmp_path / "steps.py")
    assert found.version == f"content.{content_hash(tmp_path / 'steps.py')}"


def test_an_installed_library_of_this_environment() -> None:
    import click

    found = TransformVersions().of("click.core", Path(sys.modules["click.core"].__file__ or ""))
    assert (found.package.lower(), found.source) == ("click", "package")
    assert found.version == __import__("importlib.metadata").metadata.version(click.__name__)


def test_the_context_tells_of_pipes_it_knows(package: Path) -> None:
    context = VersionedExecutionContext(
        {"silver.clean": ("acme.pipes.orders", package / "pipes" / "orders.py")}, run_id="r", version="3"
    )
    found = context.get_lineage_metadata("silver.clean", "silver")
    assert (found.pipe_id, found.package_version, found.layer, found.run_id) == (
        "silver.clean",
        "3",
        "silver",
        "r",
    )
    assert found.timestamp.tzinfo is not None
    with pytest.raises(LineageError, match=r"no\.such"):
        context.get_lineage_metadata("no.such", "silver")
