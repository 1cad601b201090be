"""KindlingStreamsResource: an app's streams, from ops, sensors and notebooks. Starts no Spark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dagster import ConfigurableResource, DagsterInstance, EnvVar, InitResourceContext
from pydantic import Field, PrivateAttr

from kindling_dagster.errors import DeclarationError
from kindling_dagster.project import KindlingProject
from kindling_dagster.streaming.client import StreamsClient
from kindling_dagster.streaming.identity import store_project, store_url
from kindling_dagster.streaming.model import DeadLetter, HistoryEntry
from kindling_dagster.streaming.store import default_store_url
from kindling_dagster.streaming.store.location import STORE_URL_VARIABLE
from kindling_dagster.streaming.views import StreamView

if TYPE_CHECKING:
    from kindling_dagster.streaming.store import StreamStore


class KindlingStreamsResource(ConfigurableResource[Any]):
    """Starts, stops, restarts and shows an app's streams.

    What is asked for is written down and done by the stream host as soon as it can; asking twice is
    asking once. Streams are named by pipe id, by the id of the entity they write, or by a glob over
    either; no name means all of them.

    Args:
        project: The app: a ``KindlingProject``, or what its ``to_json`` gave.
        store_url: ``postgresql://…`` or ``sqlite:///…``. By default the environment variable
            ``KINDLING_DAGSTER_STORE_URL``, else a SQLite file in the Dagster instance's storage.
            Dagster shows a resource's fields in its UI: give a URL with a password as ``EnvVar``.
        options: How all streams are started and watched, by the settings' names below
            ``kindling.streaming.``: ``{"trigger": "5 seconds", "recovery.max_retries": 3}``.

    Example::

        @op
        def after_maintenance(kindling_streams: KindlingStreamsResource):
            kindling_streams.restart("silver.*", reason="tables were compacted", cascade=True)
    """

    project: str = Field(description="The app, as KindlingProject.to_json gives it.")
    store_url: str | None = Field(
        default=None, description="Where the streams' store is; by default in the instance's storage."
    )

    options: dict[str, Any] = Field(
        default={}, description="How all streams are started and watched, by the names of the settings."
    )

    _store: StreamStore | None = PrivateAttr(default=None)
    _opened: KindlingProject | None = PrivateAttr(default=None)
    _instance: DagsterInstance | None = PrivateAttr(default=None)

    def __init__(self, project: KindlingProject | str, **data: Any) -> None:
        # One that was made from configuration gets the JSON that this one gave it.
        stated = project.to_json() if isinstance(project, KindlingProject) else project
        super().__init__(**{"project": stated, **data})

    @property
    def kindling_project(self) -> KindlingProject:
        """The app."""
        if self._opened is None:
            self._opened = KindlingProject.from_json(self.project)
        return self._opened

    def url(self, instance: DagsterInstance | None = None) -> str:
        """The store's URL, password and all: not to be shown.

        Args:
            instance: Whose storage holds the default store; the run's, else that of ``DAGSTER_HOME``.
        """
        stated = store_url(self.store_url, None)
        if stated is not None:
            return stated
        return default_store_url((instance or self._instance or DagsterInstance.get()).storage_directory())

    def client(self, by: str = "", instance: DagsterInstance | None = None) -> StreamsClient:
        """The streams, and the commands that they take, with ``by`` as who asks.

        Raises:
            StoreError: The store cannot be opened.
        """
        project = self.kindling_project
        if self._store is None:
            from kindling_dagster.streaming.store import StreamStore

            self._store = StreamStore.open(self.url(instance), store_project(project))
        return StreamsClient(self._store, project.manifest, by or "resource")

    def start(self, *streams: str, reason: str = "") -> tuple[str, ...]:
        """Ask that streams run. Gives their ids.

        Raises:
            SelectionError: A name means no stream.
            StoreError: The store cannot take it.
        """
        return self.client().start(streams, reason=reason)

    def stop(self, *streams: str, reason: str = "") -> tuple[str, ...]:
        """Ask that streams end after the batch they are in. As ``start``."""
        return self.client().stop(streams, reason=reason)

    def restart(self, *streams: str, reason: str = "", cascade: bool = False) -> tuple[str, ...]:
        """Ask that streams start anew from their checkpoints; with ``cascade`` also the running ones that read them."""
        return self.client().restart(streams, reason=reason, cascade=cascade)

    def revive(self, *streams: str, reason: str = "", reset_checkpoint: bool = False) -> tuple[str, ...]:
        """Ask that dead letters, all when none is named, are started again with their failures forgotten. As ``start``.

        Args:
            streams: Which.
            reason: Why, for the history.
            reset_checkpoint: Accept that those whose checkpoint is gone read their sources from the beginning.
        """
        client = self.client()
        chosen = streams or tuple(client.dead_letters())
        return client.revive(chosen, reason=reason, reset_checkpoint=reset_checkpoint) if chosen else ()

    def status(self, stream: str) -> StreamView:
        """One stream as it is now; raises SelectionError when the name means none, or several."""
        return self.client().status(stream)

    def list(self) -> Sequence[StreamView]:
        """Every stream of the app as it is now."""
        return self.client().list()

    def history(self, stream: str | None = None, limit: int = 100) -> Sequence[HistoryEntry]:
        """What happened to one stream, or to all, newest first."""
        return self.client().history(stream, limit)

    def dead_letters(self) -> dict[str, DeadLetter]:
        """Streams that are not started again until they are revived, by id."""
        return self.client().dead_letters()

    def setup_for_execution(self, context: InitResourceContext) -> None:
        """Know the instance whose storage holds the default store."""
        self._instance = context.instance

    def close(self) -> None:
        """Give back the store's connections; they are opened again when they are needed.

        Not done by Dagster: a resource with something to take down makes sensors harder to test, and
        what an op or a notebook leaves behind goes with it.
        """
        store, self._store = self._store, None
        if store is not None:
            store.close()


def refuse_shown_password(resource: KindlingStreamsResource) -> None:
    """Refuse a resource whose plain configuration, which Dagster's UI shows, holds a password.

    Raises:
        DeclarationError: It does.
    """
    url = resource.store_url
    if url is None or isinstance(url, EnvVar):
        return
    # Here, because definitions do without SQLAlchemy otherwise.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        shown = make_url(url).password is not None
    except ArgumentError:
        # What is wrong with it is said by the store, without the URL's password, when it is opened.
        shown = "@" in url
    if shown:
        raise DeclarationError(
            "The KindlingStreamsResource's store_url holds a password, which Dagster's UI would show.",
            f'Put the URL into an environment variable and give EnvVar("{STORE_URL_VARIABLE}").',
        )
