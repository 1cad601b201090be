"""Code versions: a hash of a function, what it uses of its own module, and the app's modules that this imports."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PLAIN = (str, int, float, bool, bytes, type(None))


@dataclass(frozen=True)
class _Module:
    """A parsed module of the app.

    ``names`` maps what its top level binds to the statements that bind it, ``functions`` a first line
    (that of the first decorator) to the functions and lambdas there.
    """

    name: str
    is_package: bool
    lines: list[str]
    tree: ast.Module
    names: dict[str, list[ast.stmt]]
    stars: list[ast.stmt]
    functions: dict[int, list[ast.AST]]

    def source(self, node: ast.AST) -> str:
        """The node's own lines, decorators included."""
        end = getattr(node, "end_lineno", None) or _first_line(node)
        return "\n".join(self.lines[_first_line(node) - 1 : end])


def _first_line(node: ast.AST) -> int:
    lines: list[int] = [decorator.lineno for decorator in getattr(node, "decorator_list", [])]
    return min([getattr(node, "lineno", 1), *lines])


@dataclass
class CodeVersions:
    """Hashes functions of one app; keeps the modules it has parsed.

    Args:
        source_dirs: Directories with the app's code. Only modules below them count, so that a
            library's update changes no code version.
        python_paths: Where imports of the app are looked up.
    """

    source_dirs: Sequence[Path]
    python_paths: Sequence[Path]
    _modules: dict[Path, _Module | None] = field(default_factory=dict)
    _closures: dict[Path, frozenset[Path]] = field(default_factory=dict)
    _found: dict[str, Path | None] = field(default_factory=dict)
    _statement_imports: dict[int, tuple[Path, ...]] = field(default_factory=dict)
    _digests: dict[Path, str] = field(default_factory=dict)

    def of(self, functions: Iterable[Callable[..., Any]], texts: Iterable[str] = ()) -> str:
        """SHA-256 over functions and texts; the same on every machine and with every line ending.

        Args:
            functions: The functions a pipe is made of.
            texts: Further text that decides what the pipe does (SQL).
        """
        digest = hashlib.sha256()
        for text in texts:
            digest.update(b"text\0" + _normal(text).encode() + b"\0")
        for function in functions:
            for piece in self._pieces(function):
                digest.update(piece.encode(errors="surrogatepass") + b"\0")
        return digest.hexdigest()

    def _pieces(self, function: Callable[..., Any]) -> Iterator[str]:
        plain = plain_function(function)
        code = getattr(plain, "__code__", None)
        if code is None:
            yield f"{type(function).__module__}.{type(function).__qualname__}"
            return
        yield from _captured(plain)
        path = Path(code.co_filename)
        module = self._module(path, str(getattr(plain, "__module__", "")))
        nodes = module.functions.get(code.co_firstlineno) if module else None
        if module is None or not nodes:
            # Not a file of the app, or no source at all (made by exec): the byte code stands in for it.
            yield hashlib.sha256(code.co_code).hexdigest()
            return
        statements = _slice(module, nodes)
        yield from (module.source(node) for node in (*nodes, *statements))
        imported: set[Path] = set()
        for node in (*nodes, *statements):
            for target in self._imports(module, node):
                imported |= self._reach(target)
        yield from sorted(self._digest(target) for target in imported - {path})

    def _module(self, path: Path, name: str = "") -> _Module | None:
        """The app's module at ``path``; None for files outside the app."""
        if path not in self._modules:
            self._modules[path] = self._parse(path, name) if self._is_ours(path) else None
        return self._modules[path]

    def _is_ours(self, path: Path) -> bool:
        return path.suffix == ".py" and any(path.is_relative_to(root) for root in self.source_dirs)

    def _parse(self, path: Path, name: str) -> _Module | None:
        try:
            text = _normal(path.read_text(encoding="utf-8"))
            tree = ast.parse(text)
        except (OSError, SyntaxError, ValueError):
            return None
        names: dict[str, list[ast.stmt]] = {}
        stars: list[ast.stmt] = []
        for statement in tree.body:
            for item in _bound_names(statement):
                (stars if item == "*" else names.setdefault(item, [])).append(statement)
        functions: dict[int, list[ast.AST]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                functions.setdefault(_first_line(node), []).append(node)
        is_package = path.stem == "__init__"
        return _Module(
            self._module_name(path, name), is_package, text.split("\n"), tree, names, stars, functions
        )

    def _module_name(self, path: Path, given: str) -> str:
        for root in self.python_paths:
            if path.is_relative_to(root):
                parts = path.relative_to(root).with_suffix("").parts
                return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        return given

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            module = self._module(path)
            text = "\n".join(module.lines) if module else ""
            label = module.name if module else path.name
            self._digests[path] = hashlib.sha256(f"{label}\0{text}".encode()).hexdigest()
        return self._digests[path]

    def _reach(self, path: Path) -> frozenset[Path]:
        """``path`` and every module of the app that it imports, directly or not."""
        if path not in self._closures:
            seen: set[Path] = set()
            todo = [path]
            while todo:
                current = todo.pop()
                module = self._module(current)
                if current in seen or module is None:
                    continue
                seen.add(current)
                todo.extend(self._imports(module, module.tree))
            self._closures[path] = frozenset(seen)
        return self._closures[path]

    def _imports(self, module: _Module, node: ast.AST) -> tuple[Path, ...]:
        if id(node) not in self._statement_imports:  # nodes live as long as their module here
            self._statement_imports[id(node)] = tuple(
                target
                for child in ast.walk(node)
                if isinstance(child, ast.Import | ast.ImportFrom)
                for target in self._targets(module, child)
            )
        return self._statement_imports[id(node)]

    def _targets(self, module: _Module, node: ast.Import | ast.ImportFrom) -> Iterator[Path]:
        """Files of the app that an import statement loads."""
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = node.module or ""
            if node.level:
                package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
                outer = package[: len(package) - node.level + 1]
                base = ".".join([*outer, base] if base else outer)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
        for name in names:
            found = self._find(name) if name else None
            if found is not None:
                yield found

    def _find(self, name: str) -> Path | None:
        if name not in self._found:
            relative = Path(*name.split("."))
            roots = dict.fromkeys((*self.python_paths, *(root.parent for root in self.source_dirs)))
            candidates = (
                candidate
                for root in roots
                for candidate in (root / relative.with_suffix(".py"), root / relative / "__init__.py")
            )
            self._found[name] = next(
                (path for path in candidates if path.is_file() and self._is_ours(path)), None
            )
        return self._found[name]


def plain_function(function: Any) -> Any:
    """The function under decorators, partials and callable objects."""
    for _ in range(32):
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.ismethod(function):
            function = function.__func__
        elif not hasattr(function, "__code__") and hasattr(type(function).__call__, "__code__"):
            function = type(function).__call__
        else:
            return function
    return function


def _captured(function: Any) -> Iterator[str]:
    """Plain values a function closed over or defaults to: what sets apart functions made in a loop."""
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=False):
        try:
            value = cell.cell_contents
        except ValueError:
            continue
        if isinstance(value, _PLAIN):
            yield f"{name}={value!r}"
    yield from (repr(value) for value in function.__defaults__ or () if isinstance(value, _PLAIN))


def _normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _used_names(nodes: Iterable[ast.AST]) -> set[str]:
    return {child.id for node in nodes for child in ast.walk(node) if isinstance(child, ast.Name)}


def _slice(module: _Module, nodes: Sequence[ast.AST]) -> list[ast.stmt]:
    """The other top-level statements that some nodes rely on, directly or not, in the module's order."""
    todo = _used_names(nodes)
    seen: set[str] = set()
    needed: dict[int, ast.stmt] = {id(statement): statement for statement in module.stars}
    own = {id(node) for node in nodes}
    while todo:
        name = todo.pop()
        seen.add(name)
        for statement in module.names.get(name, ()):
            if id(statement) not in needed and id(statement) not in own:
                needed[id(statement)] = statement
                todo |= _used_names([statement]) - seen
    return sorted(needed.values(), key=lambda statement: statement.lineno)


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    """Names a top-level statement binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.split(".")[0] for alias in statement.names)
    else:
        for child in ast.walk(statement):
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                yield child.id
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield child.name
            elif isinstance(child, ast.Import | ast.ImportFrom):
                yield from (alias.asname or alias.name.split(".")[0] for alias in child.names)
