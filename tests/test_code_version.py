"""Code versions change with what a pipe does, and with nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kindling_dagster.code_version import CodeVersions

FILES = {
    "shop/__init__.py": "",
    "shop/pipes.py": (
        "from shop.clean import drop\n"
        "from shop import unused\n"
        "import functools\n"
        "LIMIT = 3\n"
        "\n"
        "\n"
        "def helper(df):\n"
        "    return df.limit(LIMIT)\n"
        "\n"
        "\n"
        "def pipe(df):\n"
        "    from .late import last\n"
        "    return last(helper(drop(df)))\n"
        "\n"
        "\n"
        "def other(df):\n"
        "    return unused.x(df)\n"
        "\n"
        "\n"
        "def made(name):\n"
        "    return lambda df: df.select(name)\n"
        "\n"
        "\n"
        "wrapped = functools.wraps(pipe)(lambda *a: pipe(*a))\n"
        "partial = functools.partial(pipe)\n"
    ),
    "shop/clean.py": "from shop import rules\n\n\ndef drop(df):\n    return df.filter(rules.GOOD)\n",
    "shop/rules.py": "GOOD = 'a > 0'\n",
    "shop/late.py": "def last(df):\n    return df\n",
    "shop/unused.py": "def x(df):\n    return df\n",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "shop"]:
        del sys.modules[name]


def version(root: Path, attribute: str = "pipe", *arguments: str) -> str:
    for name in [name for name in sys.modules if name.split(".")[0] == "shop"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    function = getattr(importlib.import_module("shop.pipes"), attribute)
    sys.dont_write_bytecode = before
    made = function(*arguments) if arguments else function
    return CodeVersions([root / "shop"], [root]).of([made])


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("pipes.py", "last(helper(drop(df)))", "helper(drop(df))", True),
        ("pipes.py", "LIMIT = 3", "LIMIT = 4", True),
        ("pipes.py", "df.limit(LIMIT)", "df.limit(LIMIT + 1)", True),
        ("clean.py", "df.filter", "df.where", True),
        ("rules.py", "a > 0", "a > 1", True),
        ("late.py", "return df", "return df.distinct()", True),
        ("unused.py", "return df", "return df.distinct()", False),
        ("pipes.py", "unused.x(df)", "unused.x(df).limit(1)", False),
        ("pipes.py", "import functools\n", "import functools\n\n\n\n", False),
        ("pipes.py", "\n", "\r\n", False),
        ("clean.py", "\n", "\r\n", False),
    ],
)
def test_what_changes_a_version(shop: Path, file: str, old: str, new: str, changes: bool) -> None:
    before = version(shop)
    path = shop / "shop" / file
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())
    assert (version(shop) != before) is changes


def test_the_place_of_the_app_does_not_matter(
    shop: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = version(shop)
    elsewhere = tmp_path_factory.mktemp("moved")
    (shop / "shop").rename(elsewhere / "shop")
    monkeypatch.syspath_prepend(str(elsewhere))
    assert version(elsewhere) == before


def test_decorated_and_partial_functions_are_looked_through(shop: Path) -> None:
    assert version(shop, "wrapped") == version(shop, "partial") == version(shop)


def test_functions_made_in_a_loop_differ_by_what_they_close_over(shop: Path) -> None:
    assert version(shop, "made", "a") == version(shop, "made", "a")
    assert version(shop, "made", "a") != version(shop, "made", "b")


def test_texts_count_and_sources_may_be_missing(tmp_path: Path) -> None:
    space: dict[str, object] = {}
    exec("def made(df):\n    return df\ndef other(df):\n    return df + 1", space)
    codes = CodeVersions([tmp_path], [tmp_path])
    made, other = space["made"], space["other"]
    assert codes.of([made]) != codes.of([other])  # type: ignore[list-item]
    assert codes.of([], ["SELECT 1\r\n"]) == codes.of([], ["SELECT 1\n"]) != codes.of([], ["SELECT 2\n"])
