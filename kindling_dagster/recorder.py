"""The child process that records an app into a Manifest: without Spark, or by initialising Kindling for real.

``python -m kindling_dagster.recorder REQUEST RESPONSE`` reads and writes JSON files. Names of Kindling
with an underscore are replaced here so that its own ``initialize_framework`` runs as it is, but on no session.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kindling_dagster.app_errors import app_place, translate
from kindling_dagster.apps import AppLayout, load_settings_file, locate_app
from kindling_dagster.errors import KindlingDagsterError
from kindling_dagster.manifest import Manifest
from kindling_dagster.registries import declaration_sites, install_recording_registries, is_internal
from kindling_dagster.runtime import Surroundings, initialize_app, secret_not_found
from kindling_dagster.secrets import SecretBook

_NEEDS_CONTEXT = re.compile(
    r"SparkContext|SparkSession|active (Spark )?session|_jvm|NO_ACTIVE", re.IGNORECASE
)


class RealStartWanted(BaseException):
    """The app asks for something that only a real start has.

    No Exception, so that neither the app nor Kindling takes it for one of the failures they forgive.
    """


@dataclass
class NoSpark:
    """Stands where Spark would start: harmless to Kindling's own start, a reason for a real one to the app."""

    wanted: str = ""

    def want(self, what: str) -> Any:
        """Note and raise that ``what`` needs a real start."""
        sites = declaration_sites()
        self.wanted = self.wanted or (f"{what} ({sites[0]})" if sites else what)
        raise RealStartWanted(self.wanted)

    def install(self) -> None:
        """Put this in the place of every way to a session, in this process, for good."""
        import kindling.bootstrap
        import kindling.entity_resolution
        import kindling.features
        import kindling.spark_session
        from kindling.platform_standalone import StandaloneService
        from pyspark import SparkContext
        from pyspark.sql import SparkSession

        session = _NoSession(self)

        def create_session() -> Any:
            caller = str(sys._getframe(2).f_globals.get("__name__", ""))
            return session if is_internal(caller) else self.want("it asks for a Spark session")

        def active_session(*_: Any) -> Any:
            caller = str(sys._getframe(1).f_globals.get("__name__", ""))
            return None if is_internal(caller) else self.want("it asks for the active Spark session")

        def refuse(*_: Any, **__: Any) -> Any:
            return self.want("it starts Spark")

        def get_secret(_: Any, secret_name: str, default: str | None = None) -> Any:
            del default
            return f"@secret:{secret_name}" if _kindling_resolves() else self.want("it asks for a secret")

        def nothing(*_: Any) -> None:
            return None

        kindling.spark_session.create_session = create_session
        kindling.features.discover_runtime_features = _assume_features
        kindling.entity_resolution._get_current_namespace = lambda: ("spark_catalog", "default")
        # Secrets stay references: resolving them is for a run.
        kindling.bootstrap._resolve_and_validate_secrets = nothing
        kindling.bootstrap._resolve_registered_tag_secrets = nothing
        StandaloneService.get_secret = get_secret
        SparkSession.getActiveSession = active_session
        SparkSession.Builder.getOrCreate = refuse
        SparkContext.__init__ = refuse
        SparkContext.getOrCreate = refuse


class _NoConf:
    """The settings of no session: what Kindling sets can be read back."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def get(self, key: str, *default: Any) -> Any:
        if key in self._values or not default:
            return self._values[key]
        return default[0]

    def set(self, key: str, value: Any) -> None:
        self._values[key] = str(value)

    def getAll(self) -> dict[str, str]:  # noqa: N802 (Spark's name)
        return dict(self._values)


class _NoSession:
    def __init__(self, no_spark: NoSpark) -> None:
        self.conf = _NoConf()
        self.version = version("pyspark")
        self._no_spark = no_spark

    def __getattr__(self, name: str) -> Any:
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        if name.startswith("_") or (name == "sparkContext" and is_internal(caller)):
            # As a Spark Connect session answers; Kindling's logging and tracing then do without.
            raise AttributeError(name)
        return self._no_spark.want(f"it uses the Spark session (.{name})")


def _assume_features(config: Any, logger: Any = None) -> None:
    """What Kindling finds out about a local session by asking it."""
    del logger
    features = {
        "spark.version": version("pyspark"),
        "spark.jvm_bridge": False,
        "delta.cluster_by": True,
        "delta.auto_clustering": False,
    }
    for key, value in features.items():
        config.set(f"kindling.runtime.features.{key}", value)


def _kindling_resolves() -> bool:
    """Whether Kindling resolves settings or tags here, as opposed to the app asking for a secret."""
    frame = sys._getframe(1)
    while frame is not None and is_internal(str(frame.f_globals.get("__name__", ""))):
        if frame.f_code.co_name in ("load_secrets_from_provider", "resolve_secret_value"):
            return True
        if frame.f_back is None:
            break
        frame = frame.f_back
    return False


@dataclass
class Recording:
    """One recording, as the request describes it."""

    layout: AppLayout
    environment: str
    config_dir: Path | None
    working_dir: Path
    settings: Mapping[str, Any]
    real: bool
    secrets: SecretBook = field(default_factory=SecretBook)

    def run(self) -> Manifest:
        """Register the app and build its manifest. Raises whatever the app and Kindling raise."""
        self._check_settings_files()
        Surroundings(self.layout, self.environment, self.working_dir)
        no_spark = NoSpark()
        if self.real:
            self._start_spark()
        else:
            no_spark.install()
        install_recording_registries()
        try:
            initialize_app(self.layout, self.environment, self.config_dir, self.settings)
            manifest = self._build()
        except Exception as error:
            if not self.real and (no_spark.wanted or needs_context(error)):
                place = app_place(error, self.layout)
                raise RealStartWanted(no_spark.wanted or f"it uses Spark at import ({place})") from error
            raise
        if no_spark.wanted:
            raise RealStartWanted(no_spark.wanted)
        return manifest

    def _check_settings_files(self) -> None:
        """Kindling's own complaint about a broken file does not say which file."""
        for directory in (self.config_dir, self.layout.app_dir):
            if directory is not None:
                for path in (*directory.glob("settings*.yaml"), directory / "app.yaml"):
                    if path.is_file() and path.name in self._settings_names():
                        load_settings_file(path)

    def _settings_names(self) -> tuple[str, ...]:
        return ("app.yaml", "settings.yaml", "settings.standalone.yaml", f"settings.{self.environment}.yaml")

    def _start_spark(self) -> None:
        import kindling.bootstrap
        from kindling.config_loaders import load_secrets_from_provider
        from kindling.platform_standalone import StandaloneService

        import __main__
        from kindling_dagster.spark import build_session

        __main__.spark = build_session()
        ask, resolved = StandaloneService.get_secret, self.secrets.resolved

        def get_secret(service: Any, secret_name: str, default: str | None = None) -> Any:
            try:
                value = ask(service, secret_name, default)
            except KeyError as error:
                if _kindling_resolves():
                    return f"@secret:{secret_name}"  # for a run to resolve; the manifest does without
                raise secret_not_found({secret_name: ["the app itself, while it is loaded"]}) from error
            # So that the value can be turned back into its reference in what is written.
            resolved[value] = secret_name
            return value

        def resolve_what_is_there(config: Any, _: Any) -> None:
            load_secrets_from_provider(config.dynaconf, silent=True)

        def nothing(_: Any) -> None:
            return None

        StandaloneService.get_secret = get_secret
        kindling.bootstrap._resolve_and_validate_secrets = resolve_what_is_there
        kindling.bootstrap._resolve_registered_tag_secrets = nothing

    def _build(self) -> Manifest:
        from kindling.data_entities import DataEntityRegistry, EntityNameMapper, EntityPathLocator
        from kindling.data_pipes import DataPipesRegistry
        from kindling.entity_provider_registry import EntityProviderRegistry
        from kindling.file_ingestion import FileIngestionRegistry
        from kindling.injection import get_kindling_service
        from kindling.spark_config import ConfigService

        from kindling_dagster.declarations import ManifestBuilder, Registries

        registries = Registries(
            entities=get_kindling_service(DataEntityRegistry),
            pipes=get_kindling_service(DataPipesRegistry),
            ingestion=get_kindling_service(FileIngestionRegistry),
            config=get_kindling_service(ConfigService),
            providers=get_kindling_service(EntityProviderRegistry),
            path_locator=get_kindling_service(EntityPathLocator),
            name_mapper=get_kindling_service(EntityNameMapper),
        )
        snapshot = registries.config._settings_snapshot
        self.secrets.note(load_settings_file(Path(snapshot)) if snapshot else {})
        for registry in (registries.entities, registries.pipes, registries.ingestion):
            for item_id, tags in registry.declared.raw_tags.items():
                self.secrets.note(tags, f"{item_id}.tags")
        recorded_by = "initialized" if self.real else "recorder"
        return ManifestBuilder(registries, self.layout, self.environment, recorded_by, self.secrets).build()


def needs_context(error: BaseException) -> bool:
    """Whether pyspark complains that there is no session, as ``functions.col`` at module level makes it do."""
    frames = traceback.extract_tb(error.__traceback__)
    in_pyspark = bool(frames) and "pyspark" in Path(frames[-1].filename).parts
    # Spark 3.5 asserts without a word that there is a context.
    return in_pyspark and (isinstance(error, AssertionError) or bool(_NEEDS_CONTEXT.search(str(error))))


def main(request_path: str, response_path: str) -> None:
    """Do what the request asks and write the response; both are JSON files."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(Path.cwd()))]
    sys.path += [entry for entry in request["fallback_paths"] if entry not in sys.path]
    response = _respond(request)
    target = Path(response_path)
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(response), encoding="utf-8")
    partial.replace(target)


def _respond(request: Mapping[str, Any]) -> dict[str, Any]:
    secrets = SecretBook()
    layout: AppLayout | None = None
    try:
        layout = locate_app(request["app"], request["packages"], request["form"])
        recording = Recording(
            layout=layout,
            environment=request["environment"],
            config_dir=Path(request["config_dir"]) if request["config_dir"] else None,
            working_dir=Path(request["working_dir"]),
            settings=request["settings"],
            real=request["real"],
            secrets=secrets,
        )
        return {"manifest": recording.run().to_json()}
    except RealStartWanted as wanted:
        return {"wants_real_start": str(wanted)}
    except (Exception, SystemExit) as error:
        ours = error if layout is None and isinstance(error, KindlingDagsterError) else None
        if ours is None:
            if layout is None:
                raise
            ours = translate(error, layout, secrets)
        return {
            "error": {"class": type(ours).__name__, "message": ours.message, "suggestion": ours.suggestion}
        }


if __name__ == "__main__":
    # Under its own name, so that its frames and classes are those of the package.
    from kindling_dagster.recorder import main as run

    run(sys.argv[1], sys.argv[2])
