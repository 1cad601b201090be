"""What a package's source says about its signals: emitters, emit sites. Reads files, imports nothing."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from kindling_dagster.signals.errors import SignalError

_EMITTING_CALLS: Final = frozenset({"emit", "emit_chained", "emit_async", "create_signal"})


@dataclass(frozen=True)
class EmitterClass:
    """A class that declares an EMITS list."""

    name: str
    module: str
    signals: tuple[str, ...]

    @property
    def path(self) -> str:
        """Module and class, as for an import."""
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class EmitSite:
    """One place that emits (or, for ``create_signal``, makes) a signal whose name is written there.

    ``keywords`` are those written out; ``open_ended`` says that ``**more`` follows. ``emitter`` is the
    class around it, empty at module level.
    """

    signal: str
    call: str
    module: str
    line: int
    emitter: str
    keywords: tuple[str, ...]
    open_ended: bool


@dataclass(frozen=True)
class PackageScan:
    """What was found in one package."""

    emitters: tuple[EmitterClass, ...]
    sites: tuple[EmitSite, ...]


@cache
def scan_package(package: str) -> PackageScan:
    """Scan an installed package's source.

    Raises:
        SignalError: The package is not installed, or has no source.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SignalError(
            f"There is no package {package!r} to look through for signals.", "Install it, or name another."
        )
    emitters: list[EmitterClass] = []
    sites: list[EmitSite] = []
    for root in spec.submodule_search_locations:
        for file in sorted(Path(root).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            if "EMITS" not in text and "signal" not in text.lower():
                continue
            visitor = _Visitor(_module_name(package, Path(root), file))
            visitor.visit(ast.parse(text, str(file)))
            emitters.extend(visitor.emitters)
            sites.extend(visitor.sites)
    return PackageScan(tuple(emitters), tuple(sites))


def _module_name(package: str, root: Path, file: Path) -> str:
    parts = [package, *file.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _Visitor(ast.NodeVisitor):
    def __init__(self, module: str) -> None:
        self.module = module
        self.classes: list[str] = []
        self.emitters: list[EmitterClass] = []
        self.sites: list[EmitSite] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.classes.append(node.name)
        for statement in node.body:
            signals = tuple(_declared(statement))
            if signals:
                self.emitters.append(EmitterClass(".".join(self.classes), self.module, signals))
        self.generic_visit(node)
        self.classes.pop()

    def visit_Call(self, node: ast.Call) -> None:
        call = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name = node.args[0] if node.args else None
        if call.endswith("Payload"):
            name = next((each.value for each in node.keywords if each.arg == "signal"), None)
        elif call not in _EMITTING_CALLS:
            name = None
        if isinstance(name, ast.Constant) and isinstance(name.value, str) and "." in name.value:
            self.sites.append(
                EmitSite(
                    signal=name.value,
                    call=call,
                    module=self.module,
                    line=node.lineno,
                    emitter=".".join(self.classes),
                    keywords=tuple(each.arg for each in node.keywords if each.arg),
                    open_ended=any(each.arg is None for each in node.keywords),
                )
            )
        self.generic_visit(node)


def _declared(statement: ast.stmt) -> Iterator[str]:
    """The signals of a statement ``EMITS = [...]``: every text in it, so that sums of lists count too."""
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets, value = [statement.target], statement.value
    else:
        return
    if any(isinstance(target, ast.Name) and target.id == "EMITS" for target in targets):
        for node in ast.walk(value):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
