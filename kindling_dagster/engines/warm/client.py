"""The warm engine as a run sees it: hands its request to the warm process and gives back what happens there."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from kindling_dagster.engines.base import Engine, LogLine, RunEvent, RunRequest
from kindling_dagster.engines.warm.channel import Channel, ChannelClosed
from kindling_dagster.engines.warm.process import connect, ensure
from kindling_dagster.engines.warm.spec import WarmPlace, WarmSpec
from kindling_dagster.engines.wire import error_from_json, event_from_json, request_to_json
from kindling_dagster.errors import RunError

_TRIES = 5
# Longer than the engine over there waits for its own pipes.
_CANCEL_SECONDS = 75.0


class WarmClient:
    """Runs Kindling's pipes in a process that outlives the run.

    Args:
        spec: What the process serves; asked for at each run.
        own_engine: Makes an engine for a run that finds the process busy; None has it wait for its turn.
    """

    def __init__(self, spec: Callable[[], WarmSpec], own_engine: Callable[[], Engine] | None = None) -> None:
        self._spec = spec
        self._own_engine = own_engine

    def run(self, request: RunRequest) -> Iterator[RunEvent]:
        """Run the request; see ``Engine.run``.

        Raises:
            KindlingDagsterError: As in the process, or the process does not start, or ends before the run.
        """
        channel, place, answer = yield from self._ask(request)
        if "busy" in answer and self._own_engine is not None:
            yield LogLine(
                "info", f"The warm process runs {answer['busy']}; this run gets a process of its own."
            )
            engine = self._own_engine()
            try:
                yield from engine.run(request)
            finally:
                engine.close()
            return
        yield from _Conversation(channel, place, answer).events()

    def close(self) -> None:
        """Nothing to let go of: the process stays for the next run."""

    def _ask(
        self, request: RunRequest
    ) -> Generator[RunEvent, None, tuple[Channel, WarmPlace, dict[str, Any]]]:
        """Find or start the process and hand it the request; returns channel, place and first answer."""
        message = {"ask": "run", "request": request_to_json(request), "wait": self._own_engine is None}
        spec = self._spec()
        for _ in range(_TRIES):
            channel, place, started = ensure(spec)
            if started:
                yield LogLine(
                    "info", f"A warm process starts, for this and later runs; its log is {place.log}."
                )
            try:
                channel.send(message)
                answer = channel.receive()
                if "waiting" in answer:
                    yield LogLine("info", f"Waiting for the warm process, which runs {answer['waiting']}.")
                    answer = channel.receive()
            except ChannelClosed:
                answer = {"ending": True}
            except BaseException:
                channel.close()
                raise
            if "ending" not in answer:
                return channel, place, answer
            channel.close()
            # It is about to end, and has the place until it is gone.
            while place.socket.exists() and connect(place) is not None:
                time.sleep(0.2)
        raise RunError(
            f"The warm process of {spec.key} ended {_TRIES} times before it took the run.",
            f"See {place.log}, or run without a warm engine.",
        )


class _Conversation:
    """One run that a process has taken, or will when others are done."""

    def __init__(self, channel: Channel, place: WarmPlace, answer: dict[str, Any]) -> None:
        self._channel = channel
        self._place = place
        # The main thread must be free for signals: an interrupted read would lose the place in a message.
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._answers.put(answer)
        self._printed = _Printed(place)
        threading.Thread(target=self._listen, daemon=True, name="warm engine").start()

    def _listen(self) -> None:
        try:
            while True:
                answer = self._channel.receive()
                self._answers.put(answer)
                if "end" in answer:
                    return
        except ChannelClosed:
            self._answers.put(None)

    def events(self) -> Iterator[RunEvent]:
        ended = False
        try:
            while (answer := self._answers.get()) is not None:
                self._printed.copy()
                if "end" in answer:
                    ended = True
                    if answer["end"] is not None:
                        raise error_from_json(answer["end"])
                    return
                if "event" in answer:
                    yield event_from_json(answer["event"])
                elif "accepted" in answer:
                    self._printed.begin(int(answer["log"]))
            ended = True
            raise RunError(
                "The warm process ended in the middle of the run; what its pipes committed before stands.",
                f"See the end of {self._place.log}. The next run starts another: re-execute from failure.",
            )
        finally:
            if not ended:
                self._cancel()
            self._channel.close()

    def _cancel(self) -> None:
        """Have the run ended over there, and wait until nothing can be committed any more."""
        try:
            self._channel.send({"cancel": "the run was cancelled"})
        except ChannelClosed:
            return
        until = time.monotonic() + _CANCEL_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                answer = self._answers.get(timeout=left)
            except queue.Empty:
                break
            if answer is None or "end" in answer:
                return
        raise RunError(
            f"The warm process did not end the run within {_CANCEL_SECONDS:.0f} seconds of being told to.",
            "End it: kindling-dagster engine stop --now.",
        )


class _Printed:
    """What the process prints while it works for this run, copied into the run's own error output."""

    def __init__(self, place: WarmPlace) -> None:
        self._path = place.log
        self._offset: int | None = None

    def begin(self, offset: int) -> None:
        self._offset = offset

    def copy(self) -> None:
        if self._offset is None:
            return
        with self._path.open("rb") as log:
            log.seek(self._offset)
            text = log.read()
        self._offset += len(text)
        if text:
            sys.stderr.write(text.decode(errors="replace"))
            sys.stderr.flush()
