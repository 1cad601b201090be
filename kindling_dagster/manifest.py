"""The manifest: everything an app declares, as frozen data that needs neither Kindling nor Spark to read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kindling_dagster.collector import collector_paused
from kindling_dagster.errors import ManifestError

MANIFEST_VERSION = 1
"""Version of the JSON layout. Raised when an older reader could misread a newer file."""


@dataclass(frozen=True)
class SourceRef:
    """Where something is declared.

    ``file`` is relative to the app's root where the file lies below it (``in_app``); otherwise it
    starts at the import package (``acme_sales/pipes/orders.py``), so that a manifest carries no
    path of the machine it was made on.
    """

    module: str
    file: str
    line: int
    in_app: bool = True


@dataclass(frozen=True)
class Location:
    """Where an entity's data lives, as Kindling's locator resolves it.

    ``kind`` is one of

    - ``path``: ``value`` is a path or URI, relative ones counting from the project's working directory;
    - ``table``: ``value`` is a catalog table name, and no path is known without that catalog;
    - ``secret``: ``value`` is the name of the secret that holds the path (never the path);
    - ``memory``: only in the Spark session that wrote it;
    - ``none``: nothing stored (views, SQL entities, external services).
    """

    kind: str
    value: str = ""


@dataclass(frozen=True)
class EntitySpec:
    """One Kindling entity after all settings overlays.

    ``schema`` is Spark's JSON form of the fields (``StructType.jsonValue()["fields"]``), or None
    when the app declares none. ``sql_inputs`` are the entities a SQL entity reads.
    """

    id: str
    name: str
    provider: str
    location: Location
    tags: Mapping[str, str] = field(default_factory=dict)
    merge_columns: tuple[str, ...] = ()
    partition_columns: tuple[str, ...] = ()
    cluster_columns: tuple[str, ...] = ()
    schema: tuple[Mapping[str, Any], ...] | None = None
    layer: str = ""
    kind: str = "state"
    """``state``, ``insert_only``, ``derived``, ``sql`` or ``companion``."""
    scd2: bool = False
    companion_of: str = ""
    """For the read-only current-row companion of an SCD2 entity: the id of that entity."""
    sql: str | None = None
    sql_inputs: tuple[str, ...] = ()
    clone_of: str = ""
    description: str = ""
    source: SourceRef | None = None


@dataclass(frozen=True)
class PipeSpec:
    """One Kindling pipe after all settings overlays.

    ``parameters`` are the names of the function's keyword parameters; None when it takes ``**kwargs``
    (views do). ``code_version`` is a hash of the function's source and of the modules it takes its
    transforms from. ``driving_entity_ids`` is always resolved: the declared ones, else the first input.
    """

    id: str
    name: str
    input_entity_ids: tuple[str, ...]
    output_entity_id: str
    output_type: str = "table"
    driving_entity_ids: tuple[str, ...] = ()
    use_watermark: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    kind: str = "python"
    """``python`` or ``view`` (SQL over temp views)."""
    parameters: tuple[str, ...] | None = None
    description: str = ""
    code_version: str = ""
    clone_of: str = ""
    extended: bool = False
    sql: str | None = None
    source: SourceRef | None = None

    @property
    def streaming(self) -> bool:
        """Whether the pipe is tagged ``processing_mode: streaming``, Kindling's convention."""
        return str(self.tags.get("processing_mode", "")).strip().lower() == "streaming"


@dataclass(frozen=True)
class IngestionSpec:
    """One file ingestion entry: file name patterns to a destination entity (may hold ``{group}``)."""

    id: str
    name: str
    patterns: tuple[str, ...]
    dest_entity_id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    filetype: str = "csv"
    infer_schema: bool = False
    discovery: str = "batch"
    source_glob: str | None = None


@dataclass(frozen=True)
class SecretRef:
    """A secret an app asks for: its key and the place that asks (``entity_tags.silver.orders.provider.path``)."""

    key: str
    used_at: str


@dataclass(frozen=True)
class Problem:
    """Something wrong with the declarations that does not stop the rest from loading.

    ``severity`` is ``error`` (the pipe cannot run) or ``warning``. ``subject`` is the pipe or entity id.
    """

    severity: str
    subject: str
    message: str
    suggestion: str = ""


@dataclass(frozen=True)
class AppRef:
    """Which app a manifest was made from, and with what."""

    name: str
    environment: str
    form: str
    """``scaffold``, ``entry_point``, ``packages`` or ``dynamic``."""
    recorded_by: str
    """``recorder`` (no Spark was started) or ``initialized`` (a child process started Kindling for real)."""
    kindling_version: str = ""
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """Everything one app declares in one environment.

    Everything above it (graph, plan, asset specs, sensors, CLI) reads this alone. ``settings`` holds
    the few settings that matter for planning and running, flattened to dotted keys, secrets left out.
    """

    app: AppRef
    entities: tuple[EntitySpec, ...]
    pipes: tuple[PipeSpec, ...]
    ingestion: tuple[IngestionSpec, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[SecretRef, ...] = ()
    problems: tuple[Problem, ...] = ()
    version: int = MANIFEST_VERSION

    @cached_property
    def entities_by_id(self) -> Mapping[str, EntitySpec]:
        """Entities by id."""
        return {entity.id: entity for entity in self.entities}

    @cached_property
    def pipes_by_id(self) -> Mapping[str, PipeSpec]:
        """Pipes by id."""
        return {pipe.id: pipe for pipe in self.pipes}

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over the manifest's canonical JSON: equal exactly when what is declared is equal."""
        return _hash_of(_in_lines(_fields_of(self)))

    def to_json(self) -> str:
        """The manifest as JSON, with its version and content hash; each entity and each pipe is one line."""
        body = _in_lines(_fields_of(self))
        return _HEAD + _hash_of(body) + _HASH_END + body.removeprefix("{\n")

    def write(self, path: str | Path) -> None:
        """Write the manifest to ``path``, replacing it whole or not at all."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.write_text(self.to_json() + "\n", encoding="utf-8")
        partial.replace(target)

    @staticmethod
    def from_json(text: str, origin: str = "manifest") -> Manifest:
        """Read a manifest from JSON.

        Args:
            text: What ``to_json`` gave.
            origin: Named in errors, usually the file's path.

        Raises:
            ManifestError: Not JSON, not a manifest, changed by hand, or of a newer version.
        """
        rebuild = "Write it anew with `kindling-dagster manifest`."
        try:
            with collector_paused():
                data = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"{origin} is not valid JSON: {error}.", rebuild) from error
        if not isinstance(data, dict) or not isinstance(data.get("version"), int):
            raise ManifestError(f"{origin} is not a kindling-dagster manifest.", rebuild)
        if data["version"] > MANIFEST_VERSION:
            raise ManifestError(
                f"{origin} has manifest version {data['version']}; this kindling-dagster reads up to "
                f"{MANIFEST_VERSION}.",
                "Upgrade kindling-dagster here, or write the manifest with the version that runs here.",
            )
        stated_hash = data.pop("content_hash", None)
        try:
            with collector_paused():
                manifest: Manifest = _read_manifest(data)
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{origin} does not have a manifest's fields: {error}.", rebuild) from error
        # The same content laid out in another way will do; it only takes longer to see.
        if stated_hash not in (None, _hash_of_text(text)) and stated_hash != _hash_of(_in_lines(data)):
            raise ManifestError(f"{origin} was changed after it was written.", rebuild)
        return manifest

    @staticmethod
    def read(path: str | Path) -> Manifest:
        """Read the manifest file at ``path``; raises ManifestError as ``from_json`` does, or when there is none."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ManifestError(
                f"Manifest {path} cannot be read: {error.strerror or error}.",
                "Write one with `kindling-dagster manifest`.",
            ) from error
        return Manifest.from_json(text, origin=str(path))

    def with_problems(self, *problems: Problem) -> Manifest:
        """A copy with more problems."""
        return replace(self, problems=(*self.problems, *problems))


_HEAD = '{\n"content_hash":"'
_HASH_END = '",\n'


def _fields_of(value: Any) -> dict[str, Any]:
    """A mapping, or a dataclass's fields: what it has cached besides is no part of it."""
    if isinstance(value, Mapping):
        return dict(value)
    return {item.name: getattr(value, item.name) for item in fields(value)}


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_fields_of).encode


def _in_lines(body: Mapping[str, Any]) -> str:
    """The canonical JSON of ``body``, with a line for each field and for each item of a list.

    JSON holds no line break inside a string, so that without its line breaks this is the canonical JSON:
    a file can be checked as it stands.
    """
    lines = []
    for name in sorted(body):
        value = body[name]
        if isinstance(value, list | tuple) and value:
            lines.append(f"{_encode(name)}:[\n" + ",\n".join(map(_encode, value)) + "\n]")
        else:
            lines.append(f"{_encode(name)}:{_encode(value)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def _hash_of(in_lines: str) -> str:
    return hashlib.sha256(in_lines.replace("\n", "").encode()).hexdigest()


def _hash_of_text(text: str) -> str:
    """The content hash of a file laid out as ``to_json`` does; of no use for any other."""
    start = len(_HEAD) + hashlib.sha256().digest_size * 2 + len(_HASH_END)
    return _hash_of("{" + text[start:])


_Reader = Callable[[Any], Any]


def _reader(kind: type, **readers: _Reader) -> _Reader:
    """Reads a ``kind`` from JSON's object; ``readers`` for the fields that are not as JSON has them.

    By hand, since this decides how long definitions of thousands of pipes take to load.
    """
    names = {item.name for item in fields(kind)}

    def read(value: Any) -> Any:
        arguments = dict(_object(value))
        for name, reader in readers.items():
            if name in arguments:
                try:
                    arguments[name] = reader(arguments[name])
                except (TypeError, ValueError) as error:
                    raise TypeError(f"{name}: {error}") from error
        if arguments.keys() == names:
            # Nothing is left to fill in: what __init__ does for each field of a frozen dataclass takes its time.
            made: Any = object.__new__(kind)
            made.__dict__.update(arguments)
            return made
        try:
            return kind(**arguments)
        except TypeError as error:  # a field that is missing, or that there is none of
            raise TypeError(
                f"{kind.__name__}{str(error).removeprefix(f'{kind.__name__}.__init__')}"
            ) from error

    return read


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, not {value!r:.40}")
    return value


def _list(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, not {value!r:.40}")
    return tuple(value)


def _or_none(reader: _Reader) -> _Reader:
    return lambda value: None if value is None else reader(value)


def _list_of(reader: _Reader) -> _Reader:
    def read(value: Any) -> tuple[Any, ...]:
        made: list[Any] = []
        for item in _list(value):
            try:
                made.append(reader(item))
            except (TypeError, ValueError) as error:
                raise TypeError(f"item {len(made) + 1}: {error}") from error
        return tuple(made)

    return read


_source = _or_none(_reader(SourceRef))
_read_manifest = _reader(
    Manifest,
    app=_reader(AppRef, packages=_list),
    entities=_list_of(
        _reader(
            EntitySpec,
            location=_reader(Location),
            tags=_object,
            merge_columns=_list,
            partition_columns=_list,
            cluster_columns=_list,
            schema=_or_none(_list),
            sql_inputs=_list,
            source=_source,
        )
    ),
    pipes=_list_of(
        _reader(
            PipeSpec,
            input_entity_ids=_list,
            driving_entity_ids=_list,
            tags=_object,
            parameters=_or_none(_list),
            source=_source,
        )
    ),
    ingestion=_list_of(_reader(IngestionSpec, patterns=_list, tags=_object)),
    settings=_object,
    secrets=_list_of(_reader(SecretRef)),
    problems=_list_of(_reader(Problem)),
)
