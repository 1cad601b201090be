"""The end of a host's right to write."""

from __future__ import annotations

import pytest
from stream_fakes import FakeClock

from kindling_dagster.streaming.fencing import HostFencedError, LeaseFence


def test_before_a_lease_nothing_may_be_written() -> None:
    with pytest.raises(HostFencedError, match="clean must not write"):
        LeaseFence(FakeClock()).check("clean")


def test_a_lease_counts_from_before_it_was_asked_for() -> None:
    clock = FakeClock(100.0)
    fence = LeaseFence(clock)
    asked_at = fence.now()
    clock.now += 3  # the store took its time
    fence.extend(asked_at, 10)
    assert fence.seconds_left == 7
    clock.now += 6.9
    fence.check("clean")
    clock.now += 0.2
    with pytest.raises(HostFencedError):
        fence.check("clean")


def test_an_older_answer_does_not_shorten_it() -> None:
    clock = FakeClock(100.0)
    fence = LeaseFence(clock)
    fence.extend(100.0, 10)
    fence.extend(95.0, 10)
    assert fence.seconds_left == 10


def test_closed_is_closed_for_ever() -> None:
    clock = FakeClock(100.0)
    fence = LeaseFence(clock)
    fence.extend(100.0, 10)
    fence.close("taken by host b")
    fence.extend(101.0, 1000)
    clock.now += 2
    assert fence.seconds_left == 0
    with pytest.raises(HostFencedError, match="taken by host b"):
        fence.check("clean")
