"""When a session makes another SSH connection, and which it drops."""

from __future__ import annotations

import pytest

from tunneld.mosh.pool_policy import (
    DIALLING,
    LIVED,
    LONGEST_DENIED,
    LONGEST_RETRY,
    MOST_STREAMS,
    SHORTEST_DENIED,
    SHORTEST_RETRY,
    SLOW,
    SUSPECTED,
    PooledStream,
    PoolPolicy,
)


def well(name: str) -> PooledStream:
    return PooledStream(name, is_greeted=True, overdue=0.1, age=60)


def silent(name: str, overdue: float = SUSPECTED + 0.1) -> PooledStream:
    return PooledStream(name, is_greeted=True, overdue=overdue, age=60)


def coming(name: str, age: float = 1) -> PooledStream:
    return PooledStream(name, is_greeted=False, overdue=0, age=age)


@pytest.mark.parametrize(
    ("streams", "dials", "drops"),
    [
        ([], True, ()),
        ([well("a")], True, ()),
        ([well("a"), well("b")], False, ()),
        ([well("a"), coming("b")], False, ()),
        ([coming("a")], False, ()),
        ([well("a"), silent("b")], True, ()),
        ([well("a"), silent("b"), coming("c")], False, ()),
        ([well("a"), silent("b"), well("c")], False, ("b",)),
        ([silent("a"), silent("b")], True, ()),
        ([silent("a"), silent("b"), well("c")], True, ()),
        ([silent("a"), silent("b"), well("c"), well("d")], False, ("a", "b")),
        ([silent(name) for name in "abcd"[:MOST_STREAMS]], False, ()),
        ([well("a"), coming("b", age=SLOW)], True, ()),
        ([well("a"), coming("b", age=SLOW), coming("c")], False, ()),
        ([well("a"), coming("b", age=DIALLING)], True, ("b",)),
        ([well("a"), coming("b", age=SLOW), well("c")], False, ("b",)),
        ([well("a"), silent("b", overdue=SUSPECTED)], True, ()),
        ([well("a"), *(coming(name, age=DIALLING) for name in "bcd")], True, ("b", "c", "d")),
    ],
)
def test_two_streams_are_kept_and_made_before_they_are_broken(
    streams: list[PooledStream], dials: bool, drops: tuple[str, ...]
) -> None:
    """A suspected stream is dropped when two others are well, and never before."""
    assert PoolPolicy(since=0).decide(streams, now=100) == (dials, drops)


def test_the_second_stream_waits_for_the_first_prompt() -> None:
    """Nothing competes with the start of the session."""
    policy = PoolPolicy(since=5)
    assert not policy.decide([well("a")], now=4.9).dials
    assert policy.decide([well("a")], now=5).dials


def test_failed_attempts_come_slower_and_slower() -> None:
    """From one second to half a minute, with half of it left to chance."""
    policy, now, pauses = PoolPolicy(since=0), 0.0, []
    for _ in range(8):
        policy.failed(denied=False, now=now, chance=1)
        pauses.append(next(wait for wait in range(1, 100) if policy.decide([], now + wait).dials))
        now += 100
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    policy.failed(denied=False, now=now, chance=0)
    assert policy.pause(now) == LONGEST_RETRY / 2
    assert policy.decide([], now + LONGEST_RETRY / 2).dials


def test_a_stream_that_lived_is_replaced_at_once() -> None:
    """The first attempt after a loss waits for nothing; a stream that ends again and again does wait."""
    policy = PoolPolicy(since=0)
    assert policy.decide([well("a")], now=10).dials
    policy.lost(lived=LIVED / 2, now=10.1)
    assert not policy.decide([well("a")], now=10.2).dials
    policy.lost(lived=LIVED, now=10.2)
    assert policy.decide([well("a")], now=10.2).dials


def test_an_account_that_refuses_us_is_left_in_peace() -> None:
    """Servers lock out who insists; and a login that needs a password cannot be made without the person."""
    policy = PoolPolicy(since=0)
    policy.failed(denied=True, now=0, chance=0)
    assert not policy.decide([], now=SHORTEST_DENIED / 2 - 1).dials
    assert policy.decide([], now=SHORTEST_DENIED / 2).dials


def test_an_account_that_goes_on_refusing_is_asked_less_and_less() -> None:
    """The pauses grow to half an hour. A stream that works ends that, and so does another network."""
    policy, pauses = PoolPolicy(since=0), []
    for _ in range(5):
        policy.failed(denied=True, now=0, chance=1)
        pauses.append(policy.pause(now=0))
    assert pauses == [SHORTEST_DENIED, 2 * SHORTEST_DENIED, 4 * SHORTEST_DENIED, LONGEST_DENIED, LONGEST_DENIED]
    policy.stranded(now=10)
    assert policy.pause(now=10) == SHORTEST_DENIED
    policy.stranded(now=20)
    assert policy.pause(now=20) == SHORTEST_DENIED - 10
    policy.network_changed(now=30)
    assert policy.decide([], now=30).dials
    policy.failed(denied=True, now=30, chance=1)
    assert policy.pause(now=30) == SHORTEST_DENIED
    policy.failed(denied=True, now=30, chance=1)
    policy.greeted()
    policy.failed(denied=True, now=30, chance=1)
    assert policy.pause(now=30) == SHORTEST_DENIED


def test_refusals_and_other_failures_are_counted_apart() -> None:
    """A refusal is a failure as well, but a machine that was not reached has refused nobody."""
    policy = PoolPolicy(since=0)
    policy.failed(denied=False, now=0, chance=1)
    policy.failed(denied=True, now=0, chance=1)
    assert (policy.failures, policy.pause(now=0)) == (2, SHORTEST_DENIED)
    policy.failed(denied=False, now=0, chance=1)
    assert (policy.failures, policy.pause(now=0)) == (3, 4 * SHORTEST_RETRY)


def test_another_network_is_tried_at_once() -> None:
    """What failed on the other network says nothing about this one."""
    policy = PoolPolicy(since=0)
    for _ in range(5):
        policy.failed(denied=False, now=0, chance=1)
    policy.network_changed(now=1)
    assert policy.decide([], now=1).dials
    policy.failed(denied=False, now=1, chance=1)
    assert policy.decide([], now=1 + SHORTEST_RETRY).dials


def test_a_stream_that_works_ends_the_waiting() -> None:
    """The next failure is the first of its kind again."""
    policy = PoolPolicy(since=0)
    for _ in range(5):
        policy.failed(denied=False, now=0, chance=1)
    policy.greeted()
    policy.failed(denied=False, now=100, chance=1)
    assert policy.decide([], now=100 + SHORTEST_RETRY).dials
