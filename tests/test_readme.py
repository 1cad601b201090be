"""README, docs and CONTRIBUTING: links lead somewhere, commands within lines exist, options are all there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kindling_dagster import cli, options
from kindling_dagster.config import KindlingRunConfig

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings this one
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

# Scripts that dependencies of the development environment bring; the rest must be scripts of ours.
TOOLS = {"dagster", "dg", "mkdocs", "pytest", "ruff", "mypy", "python"}
# What `python -m` may name in the pages.
MODULES = {
    "benchmarks": "benchmarks/__main__.py",
    "benchmarks.dimension_restarts": "benchmarks/dimension_restarts.py",
}


def _blocks(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [
        block
        for language, block in re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)
        if language in languages
    ]


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ +(.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def _links(page: Path) -> list[str]:
    targets = re.findall(r"\]\(([^)\s]+)\)", _without_code(page.read_text(encoding="utf-8")))
    return [target for target in targets if "://" not in target]


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Each command after `uv run`, or of `kindling-dagster`, in code within lines; blocks are in test_pages.py."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        candidates = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in candidates:
            found = re.match(r"\s*(?:uv run\s+)(.+)|\s*(kindling-dagster [a-z].*)", line)
            if found:
                words = shlex.split((found.group(1) or found.group(2)).replace("\\|", "|"))
                yield page.name, words


def _scripts() -> set[str]:
    files = (ROOT / "pyproject.toml", ROOT / "demo" / "launcher" / "pyproject.toml")
    return {
        name
        for file in files
        for name in tomllib.loads(file.read_text(encoding="utf-8"))["project"]["scripts"]
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for link in _links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize(
    ("page", "words"), [pytest.param(page, words, id=" ".join(words)) for page, words in _commands()]
)
def test_a_command_that_is_named_exists(page: str, words: list[str]) -> None:
    name, *rest = words
    assert name in TOOLS | _scripts(), f"{page}: {words}"
    if name == "python":
        module = rest[rest.index("-m") + 1]
        path = ROOT / MODULES.get(module, module.replace(".", "/") + ".py")
        assert path.is_file(), f"{page}: {words}"
    if name == "kindling-dagster":
        _check_cli(rest)


def _check_cli(words: list[str]) -> None:
    """Follow a command line of ours through the commands, and look its options up."""
    command: click.Command = cli.main
    for word in words:
        if isinstance(command, click.Group):
            assert word in command.commands, words
            command = command.commands[word]
        elif word.startswith("-"):
            assert any(word in (*item.opts, *item.secondary_opts) for item in command.params), words


def test_the_readme_names_the_two_commands() -> None:
    [first, *_] = _blocks(ROOT / "README.md", "bash")
    assert [line.partition("#")[0].strip() for line in first.splitlines()] == ["uv run demo", "uv run pytest"]


def test_the_readmes_imports_are_public() -> None:
    import kindling_dagster

    for block in _blocks(ROOT / "README.md", "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "kindling_dagster":
                assert {alias.name for alias in node.names} <= set(kindling_dagster.__all__)


@pytest.mark.parametrize("option", sorted(KindlingRunConfig.model_fields))
def test_every_option_of_a_run_is_documented(option: str) -> None:
    rows = [line for line in CONFIGURATION.splitlines() if line.startswith(f"| `{option}` ")]
    assert len(rows) >= 2, "once with its default, once with where it can be given"


def test_the_documented_cache_levels_are_those_there_are() -> None:
    [row] = [line for line in CONFIGURATION.splitlines() if line.startswith("| `cache_level` | `MEM")]
    assert set(re.findall(r"`([A-Z_]+)`", row)) == set(options.CACHE_LEVELS)


def test_the_picture_of_the_readme_is_small_enough_to_load() -> None:
    assert (ROOT / "docs" / "images" / "asset_graph.png").stat().st_size < 400_000
