"""The Pipes engine: has a Spark driver elsewhere run a plan, through any Dagster Pipes client."""

from __future__ import annotations

import ctypes
import fcntl
import json
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dagster import (
    AssetExecutionContext,
    DagsterExecutionInterruptedError,
    PipesClient,
    PipesMessageHandler,
    PipesMessageReader,
)

from kindling_dagster import __version__
from kindling_dagster.engine_resources import EngineSetup
from kindling_dagster.engines.base import LogLine, PipeFinished, RunEvent, RunRequest
from kindling_dagster.engines.recovered import committed_by
from kindling_dagster.engines.wire import error_from_json, event_from_json
from kindling_dagster.errors import RunError
from kindling_dagster.remote.protocol import EXTRA, MESSAGE, Order

_TERMINATE_SECONDS = 120.0


class KindlingMessages(PipesMessageReader):
    """A message reader that hands on what Kindling's job tells the moment it comes.

    Pipes keeps custom messages for the end; results are to appear as pipes commit.

    Args:
        reader: The reader that brings messages from where the job writes them.

    Example::

        PipesK8sClient(message_reader=KindlingMessages(PipesK8sPodLogsMessageReader()))
    """

    def __init__(self, reader: PipesMessageReader) -> None:
        self._reader = reader
        self._tell: Callable[[Mapping[str, Any]], None] | None = None

    @contextmanager
    def telling(self, tell: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
        """Hand messages to ``tell``, as long as this lasts."""
        self._tell = tell
        try:
            yield
        finally:
            self._tell = None

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[Any]:
        """See ``PipesMessageReader``."""
        pass_on = handler.handle_message

        def handle(message: Any) -> None:
            told = message.get("params", {}).get("payload") if _is_custom(message) else None
            if (
                self._tell is not None
                and isinstance(told, Mapping)
                and isinstance(told.get(MESSAGE), Mapping)
            ):
                self._tell(told[MESSAGE])
            else:
                pass_on(message)

        # The handler is Pipes' own, and its public method is what all readers call.
        handler.handle_message = handle  # type: ignore[method-assign]
        with self._reader.read_messages(handler) as params:
            yield params

    def on_opened(self, opened_payload: Any) -> None:
        """See ``PipesMessageReader``."""
        self._reader.on_opened(opened_payload)

    def on_launched(self, launched_payload: Any) -> None:
        """See ``PipesMessageReader``."""
        self._reader.on_launched(launched_payload)

    def no_messages_debug_text(self) -> str:
        """See ``PipesMessageReader``."""
        return self._reader.no_messages_debug_text()


def _is_custom(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("method") == "report_custom_message"


class _StepContext(AssetExecutionContext):
    """A step's context as Pipes' clients get it.

    Opening Pipes makes Dagster want a result of every asset of the step, for the clients that leave results behind.
    Ours come as events, and a pipe that is skipped, or that an earlier run has done, has none.
    """

    @classmethod
    def of(cls, context: AssetExecutionContext) -> AssetExecutionContext:
        """The context of a run's step for a client; one of a direct call stays as it is."""
        return cls(context.op_execution_context) if type(context) is AssetExecutionContext else context

    def set_requires_typed_event_stream(self, *, error_message: str | None = None) -> None:
        """Leave the step as it is."""


class PipesRunner:
    """The engine of one step: its client runs on a thread of its own, while this one hands on what it is told.

    Args:
        client: The Pipes client; its ``message_reader`` is a ``KindlingMessages``.
        setup: The step, the app.
        there: Arguments of the project that differ on the driver.
        run_arguments: Further arguments of the client's ``run``.

    Raises:
        RunError: The client has another message reader.
    """

    def __init__(
        self,
        client: PipesClient,
        setup: EngineSetup,
        there: Mapping[str, Any],
        run_arguments: Mapping[str, Any],
    ) -> None:
        messages = getattr(client, "message_reader", None)
        if not isinstance(messages, KindlingMessages):
            raise RunError(
                f"The message reader of {type(client).__name__} does not tell of pipes as they commit.",
                "Give the client message_reader=KindlingMessages(…) around its own reader.",
            )
        self._client = client
        self._messages = messages
        self._setup = setup
        self._project = {**json.loads(setup.project.to_json()), **there}
        self._run_arguments = run_arguments

    def run(self, request: RunRequest) -> Iterator[RunEvent]:
        """Run the request; see ``Engine.run``.

        Raises:
            KindlingDagsterError: As on the driver, or the driver or its messages were lost.
        """
        told: queue.SimpleQueue[Mapping[str, Any] | _Ended] = queue.SimpleQueue()
        with tempfile.NamedTemporaryFile("w", prefix="kindling-alive-") as alive:
            fcntl.flock(alive, fcntl.LOCK_EX)
            order = Order(__version__, self._project, request, alive.name)
            thread = threading.Thread(
                target=self._work, args=(order, told), daemon=True, name="kindling pipes"
            )
            thread.start()
            try:
                yield from self._events(request, told)
            finally:
                if thread.is_alive():
                    self._end(thread)

    def close(self) -> None:
        """Nothing to let go of: a job ends with its run."""

    def _work(self, order: Order, told: queue.SimpleQueue[Mapping[str, Any] | _Ended]) -> None:
        try:
            with self._messages.telling(told.put):
                self._client.run(
                    context=_StepContext.of(self._setup.context),
                    extras={EXTRA: order.to_json()},
                    **self._run_arguments,
                )
            told.put(_Ended(None))
        except BaseException as error:
            told.put(_Ended(error))

    def _events(
        self, request: RunRequest, told: queue.SimpleQueue[Mapping[str, Any] | _Ended]
    ) -> Iterator[RunEvent]:
        seen: set[int] = set()
        finished: set[str] = set()
        end: Mapping[str, Any] | None = None
        while not isinstance(message := told.get(), _Ended):
            if int(message.get("n", -1)) in seen:
                # Some readers bring what they have read once more after an error.
                continue
            seen.add(int(message.get("n", -1)))
            if "hello" in message:
                hello = message["hello"]
                yield LogLine("info", f"Spark's driver is process {hello['pid']} on {hello['host']}.")
            elif "end" in message:
                end = message
            elif "event" in message:
                event = event_from_json(message["event"])
                if isinstance(event, PipeFinished):
                    finished.add(event.result.pipe_id)
                yield event
        if end is not None and end["end"] is not None:
            raise error_from_json(end["end"])
        if end is None or len(seen) <= max(seen, default=0):
            yield from self._recovered(request, finished, message.error, end is not None)

    def _recovered(
        self, request: RunRequest, finished: set[str], error: BaseException | None, ended: bool
    ) -> Iterator[RunEvent]:
        """Tell what the tables' logs know, and fail where that is not all.

        Raises:
            RunError: Not all pipes have committed.
        """
        missing = [pipe_id for pipe_id in request.pipe_ids if pipe_id not in finished]
        project = self._setup.project
        found = list(
            committed_by(
                project.manifest, project.working_dir, request.run_id, missing, self._setup.storage_options
            )
        )
        yield from found
        left = sorted(set(missing) - {event.result.pipe_id for event in found})
        if left or not ended:
            what = "ended without a word" if not ended else "was not heard of in full"
            raise RunError(
                f"The job on Spark's driver {what}{f' ({error})' if error else ''}; told by their tables, "
                f"{len(found)} of the pipes not heard of have committed. Not known to have: "
                f"{', '.join(left) or 'none'}.",
                "See the job's own log; re-execute from failure to run the rest.",
            ) from error

    def _end(self, thread: threading.Thread) -> None:
        """Have the client end its job, and wait for it.

        Raises:
            RunError: It does not.
        """
        terminate = getattr(self._client, "terminate", None)
        if callable(terminate):
            terminate()
        elif thread.ident is not None:
            # As if the step's own thread ran the client: clients end their jobs on Dagster's interrupt.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(DagsterExecutionInterruptedError)
            )
        thread.join(_TERMINATE_SECONDS)
        if thread.is_alive():
            raise RunError(
                f"{type(self._client).__name__} did not end its job within {_TERMINATE_SECONDS:.0f} seconds.",
                "End the job on its platform; what it still commits is not reported.",
            )


class _Ended:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error
