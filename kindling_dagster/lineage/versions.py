"""Which version of which package a transform belongs to: installed, from a working copy, or by its content."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

VersionSource = Literal["package", "git", "content", "setting"]

_GIT_SECONDS: Final = 10.0
_HASH_LENGTH: Final = 12


@dataclass(frozen=True)
class TransformVersion:
    """The package a transform comes from and its version.

    ``source`` says how the version is known: ``package`` (an installed release), ``git`` (the commit of
    a working copy), ``content`` (a hash of the package's files) or ``setting`` (the project said so).
    """

    package: str
    version: str
    source: VersionSource


class TransformVersions:
    """Tells the versions of transforms; each package is looked at once.

    An installed release has its own version. An editable install and modules that no package brought
    change without a release, so their version names the git commit (``1.2+git.0f3c…``, with ``.dirty.``
    and a hash of the files where these differ from it), or a hash of the files where there is no git.

    Args:
        override: The version to take instead of all that.
    """

    def __init__(self, override: str = "") -> None:
        self._override = override
        self._owners: Mapping[str, list[str]] | None = None
        self._owner_of: dict[tuple[str, Path], str] = {}
        self._found: dict[tuple[str, str, Path | None], TransformVersion] = {}

    def of(self, module: str, file: Path | None) -> TransformVersion:
        """The version of the package that holds a module.

        Args:
            module: The module's dotted name.
            file: Its file; None for code without one (a notebook, ``exec``).
        """
        package = module.partition(".")[0]
        owner = self._owner(package, file)
        key = (package, owner, _package_root(module, file))
        if key not in self._found:
            self._found[key] = self._find(*key)
        return self._found[key]

    def _find(self, package: str, owner: str, root: Path | None) -> TransformVersion:
        distribution = importlib.metadata.distribution(owner) if owner else None
        name = distribution.metadata["Name"] if distribution is not None else package
        if self._override:
            return TransformVersion(name, self._override, "setting")
        if distribution is not None and not _is_editable(distribution):
            return TransformVersion(name, distribution.version, "package")
        prefix = f"{distribution.version}+" if distribution is not None else ""
        if root is None:
            return TransformVersion(name, f"{prefix}unknown", "content")
        commit = _commit_of(root)
        if commit is not None:
            return TransformVersion(name, f"{prefix}git.{commit}", "git")
        return TransformVersion(name, f"{prefix}content.{content_hash(root)}", "content")

    def _owner(self, package: str, file: Path | None) -> str:
        """The distribution that brings a module; empty when none does."""
        if self._owners is None:
            self._owners = _owners()
        names = list(dict.fromkeys(self._owners.get(package, ())))
        if len(names) < 2 or file is None:
            return next(iter(names), "")
        # A namespace that several share: the one that installed the file.
        key = (package, file)
        if key not in self._owner_of:
            self._owner_of[key] = next((name for name in names if _brings(name, file)), names[0])
        return self._owner_of[key]


def _owners() -> dict[str, list[str]]:
    """Import name to the distributions that bring it."""
    found = {name: list(owners) for name, owners in importlib.metadata.packages_distributions().items()}
    if sys.version_info < (3, 11):
        # There it knows only packages whose installer left a top_level.txt, which newer ones do not.
        for distribution in importlib.metadata.distributions():
            files = [file for file in distribution.files or () if file.suffix == ".py"]
            for name in {file.parts[0].removesuffix(".py") for file in files} - {".."}:
                found.setdefault(name, []).append(distribution.metadata["Name"])
    return found


def _brings(name: str, file: Path) -> bool:
    """Whether a distribution installed a file."""
    distribution = importlib.metadata.distribution(name)
    installed = (each for each in distribution.files or () if each.name == file.name)
    return any(Path(str(distribution.locate_file(each))) == file for each in installed)


def content_hash(root: Path) -> str:
    """The first 12 hexadecimal digits of a SHA-256 over a package's ``.py`` and ``.sql`` files, or over one file."""
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if _is_code(path))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root.parent).as_posix().encode() + b"\0")
        # Line endings differ between checkouts of the same commit.
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:_HASH_LENGTH]


def _is_code(path: Path) -> bool:
    return path.suffix in (".py", ".sql") and path.is_file()


def _is_editable(distribution: importlib.metadata.Distribution) -> bool:
    """By PEP 610's record of where a package was installed from."""
    stated = distribution.read_text("direct_url.json")
    return bool(stated and json.loads(stated).get("dir_info", {}).get("editable"))


def _package_root(module: str, file: Path | None) -> Path | None:
    if file is None or not file.is_file():
        return None
    levels = module.count(".") + (file.name == "__init__.py")
    return file.parents[levels - 1] if levels else file


def _commit_of(root: Path) -> str | None:
    """The commit of the working copy that tracks ``root``; None where there is none, or no git."""
    folder = root if root.is_dir() else root.parent
    if not _git(folder, "ls-files", "--", str(root)):
        return None
    commit = _git(folder, "rev-parse", f"--short={_HASH_LENGTH}", "HEAD")
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--", str(root))
    return f"{commit}.dirty.{content_hash(root)}" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
