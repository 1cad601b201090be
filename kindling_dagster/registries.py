"""Kindling's registries as they record an app: who declared what where, duplicates refused, linear in time.

The names with an underscore belong to Kindling 0.14's managers, which offer no public way to defer
the convergence of companions or to see the raw declarations; a test pins each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from injector import inject
from kindling.data_entities import DataEntityManager, DataEntityRegistry
from kindling.data_pipes import DataPipesManager, DataPipesRegistry
from kindling.file_ingestion import FileIngestionManager, FileIngestionRegistry
from kindling.injection import GlobalInjector
from kindling.signaling import SignalProvider
from kindling.spark_config import ConfigService
from kindling.spark_log_provider import PythonLoggerProvider

from kindling_dagster.errors import DeclarationError

INTERNAL = ("kindling", "kindling_dagster", "injector", "dynaconf")
"""Packages whose frames are no place of a declaration."""


@dataclass(frozen=True)
class Site:
    """One frame of a declaration: file, line, module."""

    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


Sites = tuple[Site, ...]
"""The app's frames of a declaration, innermost first."""


def is_internal(module: str) -> bool:
    """Whether a module belongs to the machinery rather than to the app."""
    return module.split(".")[0] in INTERNAL


def declaration_sites() -> Sites:
    """The app's frames that lead to the call, innermost first, up to the import that ran the module."""
    frame: FrameType | None = sys._getframe(1)
    sites: list[Site] = []
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            break
        if not is_internal(module):
            sites.append(Site(frame.f_code.co_filename, frame.f_lineno, module))
        elif sites:
            break
        frame = frame.f_back
    return tuple(sites)


@dataclass
class Declared:
    """What was declared under each id of one kind: the place, the raw parameters, the raw tags.

    ``otherwise`` continues the advice about a duplicate id.
    """

    kind: str
    otherwise: str = ""
    sites: dict[str, Sites] = field(default_factory=dict)
    raw: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    raw_tags: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, item_id: str, params: Mapping[str, Any]) -> None:
        """Note a declaration.

        Raises:
            DeclarationError: The id is declared already, somewhere else.
        """
        here = declaration_sites()
        before = self.sites.get(item_id)
        if before is not None and self._is_another(item_id, before, here, params):
            raise DeclarationError(
                f"The {self.kind} {item_id!r} is declared twice: at {_first(before)} and at {_first(here)}.",
                f"Give one of them another id{self.otherwise}.",
            )
        self.sites[item_id] = here
        self.raw[item_id] = dict(params)
        self.note_tags(item_id, params.get("tags"))

    def note_tags(self, item_id: str, tags: Any) -> None:
        """Remember tags as written: Kindling later puts secrets' values in their place."""
        if isinstance(tags, Mapping):
            self.raw_tags.setdefault(item_id, {}).update(tags)

    def _is_another(self, item_id: str, before: Sites, here: Sites, params: Mapping[str, Any]) -> bool:
        if not before or not here or before == here:
            return False
        if before[0] == here[0]:
            # One helper that declares: the callers tell whether it was the same declaration run again.
            return _comparable(self.raw[item_id]) != _comparable(params)
        return not _is_same_view(self.raw[item_id], params)


def _first(sites: Sites) -> str:
    return str(sites[0]) if sites else "an unknown place"


def _comparable(params: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in params.items() if key != "execute"}
    code = getattr(params.get("execute"), "__code__", None)
    return repr((sorted(plain.items(), key=lambda item: item[0]), code))


def view_parts(execute: Any) -> dict[str, Any]:
    """What ``DataPipes.view`` closed over: ``_sql``, ``_sf`` (file), ``_ids``, ``post_fn``; empty for other functions."""
    code = getattr(execute, "__code__", None)
    if (
        code is None
        or getattr(execute, "__module__", "") != "kindling.data_pipes"
        or "_sf" not in code.co_freevars
    ):
        return {}
    return {
        name: cell.cell_contents for name, cell in zip(code.co_freevars, execute.__closure__, strict=True)
    }


def _is_same_view(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether both come from one ``@DataPipes.view``, which registers once plainly and once with its function."""
    one, two = view_parts(first.get("execute")), view_parts(second.get("execute"))
    same_text = bool(one and two) and (one["_sql"], one["_sf"], one["_ids"]) == (
        two["_sql"],
        two["_sf"],
        two["_ids"],
    )
    return same_text and one["post_fn"] is None and two["post_fn"] is not None


class RecordingEntities(DataEntityManager):  # type: ignore[misc]
    """Kindling's entity manager, with sites, and with companions converged once instead of at every declaration."""

    @inject
    def __init__(self, signal_provider: SignalProvider = None, config_service: ConfigService = None) -> None:
        super().__init__(signal_provider, config_service)
        self.declared = Declared("entity", ", or change the first with DataEntities.extend")
        self._unsettled = False

    def register_entity(self, entityid: str, **params: Any) -> None:
        """Register an entity, refusing an id that is declared elsewhere."""
        self.declared.add(entityid, params)
        super().register_entity(entityid, **params)

    def derive_entity(self, entityid: str, derivation: Any) -> None:
        """Register a clone or an extension."""
        if derivation.is_clone:
            self.declared.add(entityid, {"tags": derivation.tags, "clone_of": derivation.clone_of})
        else:
            self.declared.note_tags(entityid, derivation.tags)
        super().derive_entity(entityid, derivation)

    def _converge_scd2_companions(self) -> None:
        # Kindling does this over all entities after each one: quadratic. Here it waits for the next read.
        self._unsettled = True

    def settle(self) -> None:
        """Bring the companions up to date."""
        if self._unsettled:
            self._unsettled = False
            super()._converge_scd2_companions()

    def get_entity_ids(self) -> list[str]:
        """Declared ids in order, each followed by its companion."""
        self.settle()
        companions = {
            (entity.tags or {}).get("scd.companion_of"): entity_id
            for entity_id, entity in self.registry.items()
            if (entity.tags or {}).get("scd.companion_of")
        }
        ordered: list[str] = []
        for entity_id in self._declared_ids():
            if entity_id in self.registry:
                ordered.append(entity_id)
                if entity_id in companions:
                    ordered.append(companions[entity_id])
        return list(dict.fromkeys([*ordered, *self.registry]))

    def get_entity_definition(self, name: str) -> Any:
        """The entity after all overlays; see Kindling's own."""
        self.settle()
        return super().get_entity_definition(name)


class RecordingPipes(DataPipesManager):  # type: ignore[misc]
    """Kindling's pipe manager, with sites."""

    @inject
    def __init__(self, lp: PythonLoggerProvider) -> None:
        super().__init__(lp)
        self.declared = Declared("pipe", ", or change the first with DataPipes.extend")

    def register_pipe(self, pipeid: str, **params: Any) -> None:
        """Register a pipe, refusing an id that is declared elsewhere."""
        self.declared.add(pipeid, params)
        super().register_pipe(pipeid, **params)

    def derive_pipe(self, pipeid: str, derivation: Any) -> None:
        """Register a clone or an extension."""
        if derivation.is_clone:
            self.declared.add(pipeid, {"tags": derivation.tags, "clone_of": derivation.clone_of})
        else:
            self.declared.note_tags(pipeid, derivation.tags)
        super().derive_pipe(pipeid, derivation)

    def get_pipe_ids(self) -> list[str]:
        """Declared ids in order, clones last."""
        return list(dict.fromkeys([*(i for i in self._declared_ids() if i in self.registry), *self.registry]))


class RecordingIngestion(FileIngestionManager):  # type: ignore[misc]
    """Kindling's registry of file ingestion entries, with sites."""

    @inject
    def __init__(self, lp: PythonLoggerProvider) -> None:
        super().__init__(lp)
        self.declared = Declared("ingestion entry")

    def register_entry(self, entryId: str, **params: Any) -> None:  # noqa: N803 (Kindling's name)
        """Register an entry, refusing an id that is declared elsewhere."""
        self.declared.add(entryId, params)
        super().register_entry(entryId, **params)


def install_recording_registries() -> None:
    """Make Kindling register into the recording registries of this module, in this process."""
    for interface, recording in (
        (DataEntityRegistry, RecordingEntities),
        (DataPipesRegistry, RecordingPipes),
        (FileIngestionRegistry, RecordingIngestion),
    ):
        GlobalInjector.rebind_singleton(interface, recording)
