"""When which stream restarts because dimensions changed: a pure state machine over batches and cascades.

`advance` takes the state, what happened, and what is; it gives the next state and what to do. Whoever drives
it saves the state first and acts then. A crash in between loses nothing: what was to be done is seen from the
streams' generations, and given again under the same command id, which the store obeys once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from kindling_dagster.dag.graph import PipeGraph, TopologicalSorter
from kindling_dagster.streaming.dependencies import RestartDecision
from kindling_dagster.streaming.model import Desired, StreamingQueryState, StreamStatus

StepStatus = Literal["waiting", "asked", "done", "skipped", "failed"]
CascadePolicy = Literal["never", "schema", "always"]


@dataclass(frozen=True)
class RestartConfig:
    """How restarts are batched. Seconds.

    Args:
        delay: How long to wait for further changes after one.
        max_wait: How long changes that keep coming can put a restart off.
        min_interval: How much time lies at least between two restarts of one stream for changes of its own
            dimensions; a cascade takes a stream along at any time.
        timeout: After which a stream that did not come up counts as failed, and the cascade goes on.
        cascade: Which restarts take the streams with them that read their output: none, those for another
            schema (or table), or all.
    """

    delay: float = 30.0
    max_wait: float = 300.0
    min_interval: float = 60.0
    timeout: float = 300.0
    cascade: CascadePolicy = "schema"


@dataclass(frozen=True)
class StreamView:
    """What is known of a stream at this moment.

    Args:
        wanted: It is meant to run.
        generation: How often a restart of it was asked for (``Desired.generation``).
        up: It runs, at that generation.
        dead: It is a dead letter.
    """

    wanted: bool = True
    generation: int = 0
    up: bool = True
    dead: bool = False


def view_of(desired: Desired | None, status: StreamStatus | None) -> StreamView:
    """A stream's view from what the store holds of it."""
    if desired is None:
        return StreamView(wanted=False, up=False)
    state = None if status is None else status.state
    return StreamView(
        wanted=desired.running,
        generation=desired.generation,
        up=status is not None
        and state is StreamingQueryState.RUNNING
        and status.generation >= desired.generation,
        dead=state is StreamingQueryState.DEAD_LETTER,
    )


@dataclass(frozen=True)
class StreamOrder:
    """Which streams read what others write, and the order that follows.

    Args:
        consumers: Each stream → the streams its data reaches, consumers before producers.
    """

    consumers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @staticmethod
    def of(graph: PipeGraph, stream_ids: Iterable[str]) -> StreamOrder:
        """The order of a graph's streams; batch pipes between two streams count."""
        streams = set(stream_ids)
        order = [id_ for id_ in TopologicalSorter(graph, reverse=True).static_order() if id_ in streams]
        return StreamOrder(
            {id_: tuple(other for other in order if other in set(graph.descendants(id_))) for id_ in order}
        )

    def consumers_first(self, stream_ids: Iterable[str]) -> list[str]:
        """These streams, consumers before producers; those the order does not know come last, by name."""
        wanted = set(stream_ids)
        known = [stream_id for stream_id in self.consumers if stream_id in wanted]
        return [*known, *sorted(wanted.difference(known))]


@dataclass(frozen=True)
class Cause:
    """A change that restarts a stream: of which dimension, what, and why that calls for a restart."""

    entity_id: str
    change_id: str
    change: str
    reason: str
    policy: str = "auto"


@dataclass(frozen=True)
class PendingRestart:
    """A stream that is to restart once its batch is due; when its first and its last change came."""

    stream_id: str
    first_at: float
    last_at: float
    causes: tuple[Cause, ...]


@dataclass(frozen=True)
class CascadeStep:
    """One stream's restart in a cascade.

    Args:
        stream_id: The stream.
        causes: The changes it restarts for.
        after: The streams of the cascade that have to be up, or given up, before.
        status: How far it is.
        command_id: The id under which the restart is asked for.
        generation: The stream's generation before.
        asked_at: When it was first asked for.
        ended_at: When it was up again, or given up.
        detail: Why it was skipped or failed.
    """

    stream_id: str
    causes: tuple[Cause, ...]
    after: tuple[str, ...] = ()
    status: StepStatus = "waiting"
    command_id: str = ""
    generation: int = 0
    asked_at: float | None = None
    ended_at: float | None = None
    detail: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done for it."""
        return self.status in ("done", "skipped", "failed")

    @property
    def reason(self) -> str:
        """All its causes in words."""
        return "; ".join(dict.fromkeys(cause.reason for cause in self.causes))

    @property
    def down_seconds(self) -> float | None:
        """From asking to being up again."""
        if self.status != "done" or self.asked_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.asked_at


@dataclass(frozen=True)
class Cascade:
    """Restarts that belong together: one batch of changes, all streams they concern, consumers first."""

    id: str
    started_at: float
    steps: tuple[CascadeStep, ...]

    @property
    def entity_ids(self) -> tuple[str, ...]:
        """The dimensions whose changes it is about."""
        return tuple(dict.fromkeys(cause.entity_id for step in self.steps for cause in step.causes))

    @property
    def stream_ids(self) -> tuple[str, ...]:
        """Its streams, in their order."""
        return tuple(step.stream_id for step in self.steps)

    def count(self, status: StepStatus) -> int:
        """How many of its steps have a status."""
        return sum(step.status == status for step in self.steps)


@dataclass(frozen=True)
class News:
    """A signal that the stream host is to tell the app's subscribers, once.

    Args:
        id: Which.
        signal: The signal's name.
        arguments: Its arguments, plain data.
    """

    id: str
    signal: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class RestartState:
    """All that is remembered; as JSON it survives a crash.

    Args:
        pending: What waits for its batch.
        cascade: The cascade under way.
        last: The last one that was completed: a crash may have kept its end from being told.
        restarted: Each stream → when it was last asked to restart.
        handled: Stream and dimension → the change of it that was last taken in: found again after a crash,
            it does nothing. Only the last, since contents may change to and fro.
        number: How many cascades there were.
        told: Dimension → its change that was last news.
        news: What no host has told yet, oldest first.
    """

    pending: tuple[PendingRestart, ...] = ()
    cascade: Cascade | None = None
    last: Cascade | None = None
    restarted: Mapping[str, float] = field(default_factory=dict)
    handled: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    told: Mapping[str, str] = field(default_factory=dict)
    news: tuple[News, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any] | None) -> RestartState:
        """What ``to_json`` gave, also after a trip through JSON; a fresh state for None.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is there that there should not be.
        """
        if data is None:
            return RestartState()
        return RestartState(
            pending=tuple(
                PendingRestart(**{**item, "causes": _causes(item["causes"])}) for item in data["pending"]
            ),
            cascade=_cascade(data["cascade"]),
            last=_cascade(data["last"]),
            restarted=dict(data["restarted"]),
            handled=dict(data["handled"]),
            number=data["number"],
            told=dict(data["told"]),
            news=tuple(News(**item) for item in data["news"]),
        )


@dataclass(frozen=True)
class AskRestart:
    """Do: ask the store for this restart. ``again``: it was asked for before, and did not arrive."""

    cascade_id: str
    step: CascadeStep
    again: bool = False


@dataclass(frozen=True)
class CascadeStarted:
    """Tell: a cascade begins."""

    cascade: Cascade


@dataclass(frozen=True)
class CascadeCompleted:
    """Tell: every stream of a cascade is up again or given up; after ``seconds``."""

    cascade: Cascade
    seconds: float


Action = AskRestart | CascadeStarted | CascadeCompleted


def advance(
    state: RestartState,
    decisions: Sequence[RestartDecision],
    views: Mapping[str, StreamView],
    order: StreamOrder,
    config: RestartConfig,
    now: float,
) -> tuple[RestartState, tuple[Action, ...]]:
    """One step: take in changes, see how far the cascade is, begin the next when it is due.

    Args:
        state: As the last step left it.
        decisions: What was decided since, also what restarts nothing.
        views: All streams as they are now; one that is missing is not meant to run.
        order: Which stream reads what another writes.
        config: How restarts are batched.
        now: Unix seconds. A clock that was set back delays, and repeats nothing.

    Returns:
        The next state, to be saved first; and what to do, in order.
    """
    state = _taken_in(state, decisions, now)
    actions: list[Action] = []
    if state.cascade is None:
        state = _begun(state, order, config, now)
        if state.cascade is not None:
            actions.append(CascadeStarted(state.cascade))
    if state.cascade is not None:
        state, further = _driven(state, state.cascade, views, config, now)
        actions += further
    return state, tuple(actions)


def next_at(state: RestartState, config: RestartConfig) -> float | None:
    """When a batch can be due; None when nothing waits, or a cascade is under way (look again soon)."""
    if state.cascade is not None:
        return None
    return min((_due_at(item, state, config) for item in state.pending), default=None)


def _taken_in(state: RestartState, decisions: Sequence[RestartDecision], now: float) -> RestartState:
    handled = dict(state.handled)
    pending = {
        # After the clock was set back, a change would otherwise wait for the old time to come again.
        item.stream_id: replace(item, first_at=min(item.first_at, now), last_at=min(item.last_at, now))
        for item in state.pending
    }
    steps = {step.stream_id: step for step in state.cascade.steps} if state.cascade else {}
    for decision in decisions:
        key = f"{decision.stream_id} {decision.entity_id}"
        if not decision.restart or handled.get(key) == decision.change_id:
            continue
        handled[key] = decision.change_id
        cause = Cause(
            decision.entity_id, decision.change_id, decision.change, decision.reason, decision.policy
        )
        step = steps.get(decision.stream_id)
        if step is not None and step.status == "waiting":  # its restart is still to come
            steps[step.stream_id] = replace(step, causes=(*step.causes, cause))
            continue
        known = pending.get(decision.stream_id)
        pending[decision.stream_id] = PendingRestart(
            decision.stream_id,
            known.first_at if known else now,
            now,
            (*(known.causes if known else ()), cause),
        )
    cascade = replace(state.cascade, steps=tuple(steps.values())) if state.cascade else None
    return replace(state, pending=tuple(pending.values()), cascade=cascade, handled=handled)


def _due_at(item: PendingRestart, state: RestartState, config: RestartConfig) -> float:
    settled = min(item.last_at + config.delay, item.first_at + config.max_wait)
    last = state.restarted.get(item.stream_id)
    return settled if last is None else max(settled, last + config.min_interval)


def _begun(state: RestartState, order: StreamOrder, config: RestartConfig, now: float) -> RestartState:
    """With the next cascade, once a batch is due.

    One batch: whatever may restart now goes with the first that is due, unless its own changes have just
    begun to come in and it can wait.
    """
    state = replace(state, restarted={stream_id: min(at, now) for stream_id, at in state.restarted.items()})
    ready = [
        item
        for item in state.pending
        if now >= state.restarted.get(item.stream_id, float("-inf")) + config.min_interval
    ]
    if not ready:
        return state
    first = min(item.first_at for item in ready)
    last = max(item.last_at for item in ready)
    if now < min(last + config.delay, first + config.max_wait):
        return state
    waiting = {item.stream_id: item.causes for item in state.pending}
    causes = {item.stream_id: item.causes for item in ready}
    for stream_id, consumer, cause in _dependents(ready, order, config):
        note = f"{stream_id}, whose output it reads, restarts ({cause.reason})"
        causes[consumer] = (*causes.get(consumer, waiting.get(consumer, ())), replace(cause, reason=note))
    number = state.number + 1
    streams = order.consumers_first(causes)
    cascade_id = f"cascade-{number}"
    steps = tuple(
        CascadeStep(
            stream_id,
            causes[stream_id],
            after=tuple(other for other in order.consumers.get(stream_id, ()) if other in causes),
            command_id=f"{cascade_id}:{int(now)}:{stream_id}",
        )
        for stream_id in streams
    )
    return replace(
        state,
        pending=tuple(item for item in state.pending if item.stream_id not in causes),
        cascade=Cascade(cascade_id, now, steps),
        number=number,
    )


def _dependents(
    ready: Sequence[PendingRestart], order: StreamOrder, config: RestartConfig
) -> list[tuple[str, str, Cause]]:
    """Streams that restart with those whose output they read."""
    found = []
    for item in ready:
        for cause in item.causes:
            if config.cascade == "never" or (config.cascade == "schema" and cause.change == "data"):
                continue
            found += [
                (item.stream_id, consumer, cause) for consumer in order.consumers.get(item.stream_id, ())
            ]
    return found


def _driven(
    state: RestartState,
    cascade: Cascade,
    views: Mapping[str, StreamView],
    config: RestartConfig,
    now: float,
) -> tuple[RestartState, list[Action]]:
    """The cascade one step further: what has ended is marked, what may begin is asked for."""
    steps: dict[str, CascadeStep] = {}
    actions: list[Action] = []
    restarted = dict(state.restarted)
    for step in cascade.steps:  # consumers come first, so what a step waits for is decided before it
        view = views.get(step.stream_id, StreamView(wanted=False, up=False))
        was = step.status
        if was == "waiting" and all(steps[other].ended for other in step.after):
            step = _begun_step(step, view, now)
        elif was == "asked":
            step = _followed(step, view, config, now)
        if step.status == "asked" and (was == "waiting" or view.generation <= step.generation):
            actions.append(AskRestart(cascade.id, step, again=was == "asked"))
            restarted[step.stream_id] = step.asked_at if step.asked_at is not None else now
        steps[step.stream_id] = step
    cascade = replace(cascade, steps=tuple(steps.values()))
    if all(step.ended for step in cascade.steps):
        actions.append(CascadeCompleted(cascade, max(0.0, now - cascade.started_at)))
        return replace(state, cascade=None, last=cascade, restarted=restarted), actions
    return replace(state, cascade=cascade, restarted=restarted), actions


def _begun_step(step: CascadeStep, view: StreamView, now: float) -> CascadeStep:
    if view.dead:
        return replace(step, status="skipped", ended_at=now, detail="it is a dead letter: revive it")
    if not view.wanted:
        return replace(step, status="skipped", ended_at=now, detail="it is not meant to run")
    return replace(step, status="asked", asked_at=now, generation=view.generation)


def _followed(step: CascadeStep, view: StreamView, config: RestartConfig, now: float) -> CascadeStep:
    if view.up and view.generation > step.generation:
        return replace(step, status="done", ended_at=now)
    if view.dead:
        return replace(step, status="failed", ended_at=now, detail="it became a dead letter")
    if not view.wanted:
        return replace(step, status="skipped", ended_at=now, detail="it was stopped meanwhile")
    if step.asked_at is not None and now - step.asked_at >= config.timeout:
        return replace(
            step, status="failed", ended_at=now, detail=f"it was not up after {config.timeout:.0f} s"
        )
    return step


def _cascade(data: Mapping[str, Any] | None) -> Cascade | None:
    if data is None:
        return None
    return Cascade(data["id"], data["started_at"], tuple(_step(step) for step in data["steps"]))


def _step(data: Mapping[str, Any]) -> CascadeStep:
    return CascadeStep(**{**data, "causes": _causes(data["causes"]), "after": tuple(data["after"])})


def _causes(data: Iterable[Mapping[str, Any]]) -> tuple[Cause, ...]:
    return tuple(Cause(**item) for item in data)
