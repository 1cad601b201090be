"""A Kindling app initialised for real, inside a run: started as Kindling's CLI does it, and taken back afterwards.

The names of Kindling with an underscore are used where 0.14 has no public way: to switch the watermark
aspect off again, and because ``kindling.reset()`` forgets the bindings that only imports would make anew.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from kindling_dagster.app_errors import translate
from kindling_dagster.apps import AppLayout
from kindling_dagster.errors import ProjectError, ProjectMixError, RunError
from kindling_dagster.jvm import remember_classes, set_local_working_dir
from kindling_dagster.manifest import SecretRef
from kindling_dagster.secrets import SecretBook, environment_names

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from kindling_dagster.lineage.applying import Lineage
    from kindling_dagster.project import KindlingProject

APP_MODULE = "_kindling_app"
"""The name under which Kindling's CLI loads an app.py."""


def read_dotenv(path: Path) -> dict[str, str]:
    """``KEY=value`` lines of a .env file, read as Kindling's CLI does; empty when there is none."""
    if (
        os.environ.get("KINDLING_SKIP_DOTENV", "").strip().lower() in ("1", "true", "yes")
        or not path.is_file()
    ):
        return {}
    found: dict[str, str] = {}
    for raw in path.read_text(encoding="utf-8").splitlines():
        key, separator, value = raw.strip().removeprefix("export ").partition("=")
        key, value = key.strip(), value.strip()
        if not separator or not key or key.startswith("#"):
            continue
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        found.setdefault(key, value[1:-1] if quoted else value)
    return found


class Surroundings:
    """The working directory, Python path and environment an app expects; ``restore`` puts the old ones back."""

    def __init__(self, layout: AppLayout, environment: str, working_dir: Path) -> None:
        self._layout = layout
        self._cwd = Path.cwd()
        self._path = list(sys.path)
        self._environ = dict(os.environ)
        for name, value in read_dotenv(working_dir / ".env").items():
            os.environ.setdefault(name, value)
        os.environ["KINDLING_ENV"] = environment
        os.chdir(working_dir)
        new = [str(path) for path in layout.python_paths if str(path) not in sys.path]
        sys.path[:0] = new

    def restore(self) -> None:
        """Put back what was, and forget the app's modules: they must register anew on the next start."""
        os.chdir(self._cwd)
        sys.path[:] = self._path
        os.environ.clear()
        os.environ.update(self._environ)
        for name in [name for name, module in sys.modules.items() if self._is_apps(module)]:
            del sys.modules[name]

    def _is_apps(self, module: ModuleType | None) -> bool:
        file = getattr(module, "__file__", None)
        return file is not None and any(Path(file).is_relative_to(root) for root in self._layout.source_dirs)


def initialize_app(
    layout: AppLayout, environment: str, config_dir: Path | None, settings: Mapping[str, Any]
) -> None:
    """Initialise Kindling and load the app, as ``kindling app`` does.

    Args:
        layout: Where the app is.
        environment: The environment whose settings apply.
        config_dir: Directory of shared settings, if any.
        settings: Further bootstrap parameters, over all settings files.

    Raises:
        ProjectError: app.py's ``initialize`` cannot be called.
        Exception: Whatever Kindling or the app raises.
    """
    from kindling.bootstrap import initialize_framework

    initialize_framework(
        {
            "platform": "standalone",
            **settings,
            "environment": environment,
            "app_dir": str(layout.app_dir),
            "install_bootstrap_dependencies": False,
            "registration_packages": [
                name for name in layout.packages if name not in layout.missing_packages
            ],
            **({"config_dir": str(config_dir)} if config_dir else {}),
        }
    )
    if layout.app_py is not None:
        _load_app_module(layout.app_py, environment, config_dir)


def _load_app_module(app_py: Path, environment: str, config_dir: Path | None) -> None:
    spec = importlib.util.spec_from_file_location(APP_MODULE, app_py)
    if spec is None or spec.loader is None:
        raise ProjectError(f"{app_py} cannot be loaded as a Python module.", "An entry point is a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[APP_MODULE] = module
    spec.loader.exec_module(module)
    initialize = getattr(module, "initialize", None)
    if callable(initialize):
        initialize(**_initialize_arguments(app_py, initialize, environment, config_dir))


def _initialize_arguments(
    app_py: Path, initialize: Any, environment: str, config_dir: Path | None
) -> dict[str, Any]:
    parameters = inspect.signature(initialize).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments: dict[str, Any] = {}
    for name in ("env", "environment"):
        if name in parameters or (takes_any and name == "env"):
            arguments[name] = environment
    if config_dir is not None:
        if "config_dir" not in parameters and not takes_any:
            raise ProjectError(
                f"initialize() in {app_py} takes no config_dir, but the project names one.",
                "Add a parameter config_dir to it, or leave config_dir out of the project.",
            )
        arguments["config_dir"] = config_dir
    return arguments


def missing_secret_error(references: Iterable[SecretRef]) -> RunError | None:
    """An error for the secrets that are not to be found, naming keys and places, never values; None when all are there."""
    missing: dict[str, list[str]] = {}
    for reference in references:
        if not any(name in os.environ for name in environment_names(reference.key)):
            missing.setdefault(reference.key, []).append(reference.used_at)
    return secret_not_found(missing) if missing else None


def secret_not_found(missing: Mapping[str, Iterable[str]]) -> RunError:
    """The error for secrets that are not there: key to the places that ask for it."""
    told = "; ".join(f"{key} (asked for by {', '.join(places)})" for key, places in missing.items())
    names = ", ".join(name for key in missing for name in environment_names(key))
    return RunError(
        f"Kindling cannot find the secret {told}.",
        f"On its standalone platform Kindling looks in the environment variables {names}.",
    )


class KindlingRuntime:
    """One app, initialised in this process. Make it with ``start``; ``close`` takes everything back.

    Kindling keeps its state in the process, so there is at most one at a time.
    """

    lineage: Lineage
    """Version lineage of the app; there once it is started."""

    _active: ClassVar[KindlingRuntime | None] = None
    _lock: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, project: KindlingProject) -> None:
        self.project = project
        self._undo = ExitStack()
        self._platform_has_watermarks: bool | None = None

    @classmethod
    def start(
        cls,
        project: KindlingProject,
        spark: SparkSession | Callable[[], SparkSession] | None = None,
        *,
        watermarks: bool | None = None,
    ) -> KindlingRuntime:
        """Initialise a project's app, or give the runtime that already holds it.

        Args:
            project: The app.
            spark: The session, or what makes one; ours is built when None. A JVM resolves relative paths
                from the directory it was started in, so one that is made here, after changing to the
                project's ``run_dir``, finds what one made before may not.
            watermarks: Turn Kindling's watermarks on or off where its platform leaves them off
                (standalone); where the platform turns them on, they stay on. None leaves them as they are.

        Raises:
            ProjectMixError: Another app is initialised in this process.
            ProjectError: The app cannot be loaded.
            RunError: A secret is missing.
            SparkSetupError: Spark does not start.
        """
        with cls._lock:
            active = cls._active
            if active is not None and active.project.identity != project.identity:
                raise ProjectMixError(
                    f"The Kindling app {project.name!r} ({project.describe()}) cannot run in this process: it "
                    f"already runs {active.project.name!r} ({active.project.describe()}), and Kindling keeps one "
                    "app's state per process.",
                    "Run them in separate runs or code locations, or close the first.",
                )
            if active is None:
                active = cls(project)
                active._initialize(spark)
                cls._active = active
            if watermarks is not None:
                active.set_watermarks(watermarks)
            return active

    @classmethod
    def is_up(cls) -> bool:
        """Whether an app is initialised in this process."""
        return cls._active is not None

    def _initialize(self, spark: SparkSession | Callable[[], SparkSession] | None) -> None:
        from kindling_dagster.spark import build_session

        layout = self.project.layout
        make = build_session if spark is None else spark
        try:
            self._undo.callback(Surroundings(layout, self.project.environment, self.project.run_dir).restore)
            session = make() if callable(make) else make
            remember_classes(session)
            self._undo.callback(set_local_working_dir(session, self.project.run_dir))
            self._take_main_session(session)
            self._keep_bindings()
            initialize_app(
                layout, self.project.environment, self.project.config_path, self.project.settings or {}
            )
            self._resolve_late_secrets()
            self._start_lineage(session)
        except BaseException as error:
            # Before the environment is put back: a secret may stand in the app's .env.
            missing = (
                missing_secret_error(self.project.manifest.secrets) if _is_about_secrets(error) else None
            )
            self._undo.close()
            if missing is not None:
                raise missing from error
            if isinstance(error, Exception | SystemExit):
                ours = translate(error, layout, SecretBook())
                if ours is not error:
                    raise ours from error
            raise

    def _take_main_session(self, spark: SparkSession) -> None:
        """Give Kindling the session where it looks for one."""
        import __main__

        had = "spark" in vars(__main__)
        before = getattr(__main__, "spark", None)

        def put_back() -> None:
            if had:
                __main__.spark = before
            else:
                vars(__main__).pop("spark", None)

        __main__.spark = spark
        self._undo.callback(put_back)

    def _keep_bindings(self) -> None:
        """Make ``kindling.reset()`` at the end leave Kindling able to start again.

        It drops the injector, and with it the bindings that Kindling's modules make once, when imported.
        """
        import kindling
        import kindling.platform_standalone  # binds on import, so before the picture is taken
        from kindling.file_ingestion import FileIngestionEntries
        from kindling.injection import GlobalInjector

        pristine = dict(GlobalInjector.get_injector().binder._bindings)

        def reset() -> None:
            late = dict(GlobalInjector.get_injector().binder._bindings)
            kindling.reset()
            FileIngestionEntries.deregistry = None  # reset() overlooks it
            binder = GlobalInjector.get_injector().binder
            fresh = dict(binder._bindings)
            kept = {
                interface: binding
                for interface, binding in late.items()
                if interface not in pristine and interface.__module__.split(".")[0] == "kindling"
            }
            binder._bindings.update({**kept, **pristine, **fresh})

        self._undo.callback(reset)

    def _resolve_late_secrets(self) -> None:
        """Resolve secrets in tags that an app declared after Kindling had resolved those it knew of."""
        from kindling.bootstrap import apply_config_overrides
        from kindling.platform_provider import SecretProvider

        provider = self._service(SecretProvider)
        failed = [*self.entities.resolve_secret_tags(provider), *self.pipes.resolve_secret_tags(provider)]
        if failed:
            raise RunError(f"Secrets cannot be resolved at: {', '.join(sorted(failed))}.")
        apply_config_overrides()

    def _start_lineage(self, session: SparkSession) -> None:
        from kindling_dagster.lineage.applying import Lineage

        self.lineage = Lineage(self, self.project.manifest, session)
        self.lineage.install()
        self._undo.callback(self.lineage.close)

    @staticmethod
    def _service(interface: Any) -> Any:
        from kindling.injection import get_kindling_service

        return get_kindling_service(interface)

    @property
    def pipes(self) -> Any:
        """Kindling's DataPipesRegistry."""
        from kindling.data_pipes import DataPipesRegistry

        return self._service(DataPipesRegistry)

    @property
    def entities(self) -> Any:
        """Kindling's DataEntityRegistry."""
        from kindling.data_entities import DataEntityRegistry

        return self._service(DataEntityRegistry)

    @property
    def ingestion(self) -> Any:
        """Kindling's FileIngestionRegistry."""
        from kindling.file_ingestion import FileIngestionRegistry

        return self._service(FileIngestionRegistry)

    @property
    def providers(self) -> Any:
        """Kindling's EntityProviderRegistry."""
        from kindling.entity_provider_registry import EntityProviderRegistry

        return self._service(EntityProviderRegistry)

    def read_entity(self, entity_id: str) -> Any:
        """All rows of an entity, as Kindling's provider reads it."""
        entity = self.entities.get_entity_definition(entity_id)
        return self.providers.get_provider_for_entity(entity).read_entity(entity)

    def table_path(self, entity: Any) -> str:
        """Where Kindling keeps an entity's table in storage access mode."""
        from kindling.data_entities import EntityPathLocator

        return str(self._service(EntityPathLocator).get_table_path(entity))

    def table_name(self, entity: Any) -> str:
        """An entity's table name in catalog access mode."""
        from kindling.data_entities import EntityNameMapper

        return str(self._service(EntityNameMapper).get_table_name(entity))

    @property
    def execution(self) -> Any:
        """Kindling's DataPipesExecution."""
        from kindling.data_pipes import DataPipesExecution

        return self._service(DataPipesExecution)

    @property
    def signals(self) -> Any:
        """Kindling's SignalProvider."""
        from kindling.signaling import SignalProvider

        return self._service(SignalProvider)

    def receivers(self) -> dict[str, dict[int, Any]]:
        """Who is subscribed to each signal, by Python's identity of the subscriber.

        Kindling wraps blinker's signals, which know, and hands on neither them nor its own list.
        """
        from blinker import ANY

        return {
            name: {id(receiver): receiver for receiver in wrapped._signal.receivers_for(ANY)}
            for name, wrapped in dict(self.signals._signals).items()
        }

    def memory_entities(self) -> dict[str, dict[str, Any]]:
        """The frames of memory entities by entity id, in the dictionaries of the providers that hold them.

        The providers live as long as Kindling does, merge into what they hold, and have no way to let go of it.
        """
        from kindling.entity_provider_memory import MemoryEntityProvider

        providers = self.providers
        found = {}
        for provider_type in providers.list_registered_providers():
            if issubclass(providers.get_provider_class(provider_type), MemoryEntityProvider):
                found[provider_type] = providers.get_provider(provider_type)._memory_store
        return found

    @property
    def config(self) -> Any:
        """Kindling's ConfigService."""
        from kindling.spark_config import ConfigService

        return self._service(ConfigService)

    @property
    def spark(self) -> Any:
        """The Spark session Kindling uses."""
        from kindling.spark_session import get_or_create_spark_session

        return get_or_create_spark_session()

    def set_watermarks(self, on: bool) -> None:
        """Turn Kindling's watermark aspect on for the runs that follow, or leave it as the platform has it."""
        from kindling.watermarking import WatermarkAspect

        aspect = self._service(WatermarkAspect)
        if self._platform_has_watermarks is None:
            self._platform_has_watermarks = bool(aspect._registered)
        if on:
            aspect.register()
        elif aspect._registered and not self._platform_has_watermarks:
            # register() has no counterpart, so its connections are taken back one by one.
            for name in _ASPECT_SIGNALS:
                signal = self.signals.get_signal(name)
                for handler in vars(type(aspect)):
                    if handler.startswith("_on_") and signal is not None:
                        signal.disconnect(getattr(aspect, handler))
            aspect._registered = False

    def close(self) -> None:
        """Reset Kindling and put back session, directory, path and environment. Leaves Spark alone; can be called twice."""
        with KindlingRuntime._lock:
            if KindlingRuntime._active is self:
                KindlingRuntime._active = None
            self._undo.close()

    def __enter__(self) -> KindlingRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ASPECT_SIGNALS = (
    "read.resolve_read",
    "persist.after_persist",
    "persist.persist_failed",
    "datapipes.pipe_failed",
    "orchestrator.pipe_failed",
    "datapipes.pipe_skipped",
    "orchestrator.pipe_skipped",
)


def _is_about_secrets(error: BaseException) -> bool:
    return "secret" in str(error).lower()
