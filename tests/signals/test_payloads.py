from __future__ import annotations

import dataclasses
import json
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kindling.signaling import BlinkerSignalProvider, SignalPayload

from kindling_dagster.signals import payloads as p
from kindling_dagster.signals.errors import PayloadError
from kindling_dagster.signals.plain import scrub_text

ALL_SIGNALS = sorted(p.PAYLOAD_BY_SIGNAL)


class LiveFrame:
    """Stands for a DataFrame: any look at it is a call to Spark."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"asked Spark for {name}")


class Explosive:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.datetimes(),
        st.timedeltas(),
        st.decimals(),
        st.uuids(),
        st.builds(ValueError, st.text()),
        st.builds(LiveFrame),
        st.builds(Explosive),
        st.just(object()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=12), inner, max_size=4),
    ),
    max_leaves=6,
)
field_names = st.sampled_from(
    [
        *sorted({name for cls in p.PAYLOAD_CLASSES for name in p.field_types(cls)}),
        *("operation_id", "timestamp", "signal", "extra", "missing", "self", "sender", "password"),
    ]
)
keywords = st.dictionaries(st.one_of(field_names, st.text(max_size=20)), values, max_size=10)


@settings(max_examples=150, deadline=None)
@given(signal=st.one_of(st.sampled_from(ALL_SIGNALS), st.text(max_size=30)), kwargs=keywords)
def test_decoding_is_total_and_round_trips(signal: str, kwargs: dict[str, Any]) -> None:
    payload = p.decode(signal, kwargs)

    required = p.wire_fields(type(payload), signal).required
    assert payload.signal == signal
    derived = {"error_type"} if isinstance(kwargs.get("error"), Exception) else set()
    assert payload.missing == tuple(name for name in required if name not in {*kwargs, *derived})
    names = {*p.field_types(type(payload)), "operation_id", "timestamp"}
    unknown = {scrub_text(name) for name in kwargs if name not in names}
    assert set(payload.extra) - {"timestamp"} == unknown - {"timestamp"}
    text = payload.to_json()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    again = p.from_json(text)
    assert again == payload
    assert again.to_json() == text


@settings(max_examples=50, deadline=None)
@given(signal=st.sampled_from(ALL_SIGNALS), kwargs=keywords)
def test_keywords_of_a_decoded_payload_decode_to_the_same(signal: str, kwargs: dict[str, Any]) -> None:
    payload = p.decode(signal, kwargs)
    assert p.decode(signal, payload.to_kwargs()).to_data()["fields"] == payload.to_data()["fields"]


@pytest.mark.parametrize("signal", ALL_SIGNALS)
def test_each_signal_sends_its_fields(signal: str) -> None:
    cls = p.payload_class(signal)
    required, optional = p.wire_fields(cls, signal)
    known = {*p.field_types(cls), "timestamp", "operation_id"}

    assert set(required) | set(optional) <= known
    assert len({*required, *optional}) == len(required) + len(optional)
    kwargs = cls(signal=signal).to_kwargs()
    assert set(kwargs) == {*required, "timestamp"}
    full = {name: f"v-{name}" for name in (*required, *optional) if name != "timestamp"}
    assert {k: v for k, v in cls(signal=signal, **full).to_kwargs().items() if k != "timestamp"} == full
    decoded = p.decode(signal, full)
    assert decoded.missing == (("timestamp",) if "timestamp" in required else ())
    assert decoded.extra == {}


@pytest.mark.parametrize("cls", p.PAYLOAD_CLASSES)
def test_each_class_is_a_kindling_payload_and_documented(cls: type[p.Payload]) -> None:
    assert issubclass(cls, SignalPayload)
    assert dataclasses.is_dataclass(cls)
    assert not (cls.__doc__ or "").startswith(f"{cls.__name__}("), "dataclass wrote this text, not a person"
    assert cls.SIGNALS
    used = {name for signal in cls.SIGNALS for group in p.wire_fields(cls, signal) for name in group}
    own = set(p.field_types(cls)) - set(p.field_types(p.FailurePayload))
    assert own <= used, "a field no signal of the family carries"


def test_no_signal_has_two_classes() -> None:
    assert len(p.PAYLOAD_BY_SIGNAL) == sum(len(cls.SIGNALS) for cls in p.PAYLOAD_CLASSES)


def test_failed_signals_are_failures() -> None:
    for signal, cls in p.PAYLOAD_BY_SIGNAL.items():
        if signal.endswith("_failed"):
            assert issubclass(cls, p.FailurePayload), signal


def test_a_frame_is_never_held() -> None:
    frame = LiveFrame()
    payload = p.decode("persist.after_persist", {"df": frame, "pipe_id": "p", "other": frame})
    assert payload.df == "LiveFrame"
    assert payload.extra == {"other": "LiveFrame"}


def test_secrets_are_masked() -> None:
    kwargs = {"job_id": "1", "parameters": {"db_password": "hunter2", "n": 1}, "api_key": "hunter2"}
    payload = p.decode("job.before_run", kwargs)
    assert payload.parameters == {"db_password": "***", "n": 1}
    assert payload.extra == {"api_key": "***"}

    own = p.PipeFailedPayload(signal="datapipes.pipe_failed", error="login jdbc:x://u:hunter2@h failed")
    assert own.to_kwargs()["error"] == own.error
    assert "hunter2" not in own.to_json()


def test_whole_settings_are_never_held() -> None:
    payload = p.decode(
        "config.post_reload", {"old_config": {"a": "hunter2"}, "new_config": {}, "changes": {"a": (1, 2)}}
    )
    assert (payload.old_config, payload.new_config, payload.changes) == ("dict", "dict", {"a": [1, 2]})
    assert payload.missing == ("version",)


def test_an_exception_as_error_is_split() -> None:
    payload = p.decode("config.reload_failed", {"error": KeyError("x"), "old_config": None})
    assert isinstance(payload, p.FailurePayload)
    assert (payload.error, payload.error_type) == ("'x'", "KeyError")
    assert payload.missing == ()
    assert p.decode("job.run_failed", {"error": OSError("x")}).missing == ("job_id", "parameters")


@pytest.mark.parametrize(
    ("signal", "kwargs", "expected"),
    [
        ("streaming.query_exception", {"exception": "boom"}, "boom"),
        ("streaming.recovery_exhausted", {"failure_reason": "boom"}, "boom"),
        ("streaming.query_failed", {"error": "boom"}, "boom"),
        ("streaming.query_failed", {}, ""),
    ],
)
def test_error_text(signal: str, kwargs: dict[str, Any], expected: str) -> None:
    payload = p.decode(signal, kwargs)
    assert isinstance(payload, p.FailurePayload)
    assert payload.error_text == expected


@pytest.mark.parametrize(
    ("sent", "timestamp", "extra"),
    [
        (12.5, 12.5, {}),
        ("1970-01-01T00:01:00", 60.0, {}),
        ("1970-01-01T00:01:00+00:00", 60.0, {}),
        ("1970-01-01T00:01:00Z", 60.0, {}),
        (datetime(1970, 1, 1, 0, 1, tzinfo=timezone.utc), 60.0, {}),
        ("soon", None, {"timestamp": "soon"}),
        (float("nan"), None, {"timestamp": "nan"}),
        (None, None, {}),
    ],
)
def test_timestamps(sent: Any, timestamp: float | None, extra: dict[str, Any]) -> None:
    before = time.time()
    payload = p.decode("datapipes.before_run", {"timestamp": sent})
    assert payload.extra == extra
    if timestamp is None:
        assert before <= payload.timestamp <= time.time()
    else:
        assert payload.timestamp == timestamp


def test_a_kindling_subscriber_gets_the_keywords_it_expects() -> None:
    got: list[tuple[Any, ...]] = []

    def subscriber(sender: Any, pipe_id: str, pipe_name: str, duration_seconds: float, **more: Any) -> None:
        got.append((pipe_id, pipe_name, duration_seconds, sorted(more)))

    signal = BlinkerSignalProvider().create_signal("datapipes.after_pipe")
    signal.connect(subscriber)
    payload = p.PipeExecutePayload(signal="datapipes.after_pipe", pipe_id="p", duration_seconds=1.0)
    signal.send(None, **payload.to_kwargs())
    assert got == [("p", None, 1.0, ["run_id", "timestamp"])]
    assert payload.to_dict() == payload.to_kwargs()


def test_unknown_signals_keep_everything() -> None:
    payload = p.decode("mine.done", {"a": 1, "signal": "x", "extra": 2, "missing": 3})
    assert isinstance(payload, p.UnknownPayload)
    assert payload.extra == {"a": 1, "signal": "x", "extra": 2, "missing": 3}
    assert payload.namespace == "mine"


def test_fields_of_a_newer_version_are_kept() -> None:
    data = p.decode("datapipes.before_pipe", {"pipe_id": "p"}).to_data()
    data["fields"]["shard"] = 3
    assert p.from_data(data).extra == {"shard": 3}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "nonsense", '{"signal": 3}', '{"signal": "a.b", "fields": []}',
     '{"signal": "a.b", "missing": "x"}', '{"signal": "a.b", "extra": 1}', "[" * 100_000],
)  # fmt: skip
def test_what_is_no_payload_is_refused(text: str) -> None:
    with pytest.raises(PayloadError, match="payload"):
        p.from_json(text)
