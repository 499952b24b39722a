"""The waits between sessions: what they are, and what they never are."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.backoff import PACE, Backoff, Limits, envelope, floor
from tunneld.core.lifecycle import Failure

LIMITS = Limits(initial=1, maximum=60, stable_after=30)

failures = st.sampled_from(Failure)
chances = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0.05, 3600)
limits = st.builds(
    lambda initial, longer, stable: Limits(initial=initial, maximum=initial + longer, stable_after=stable),
    seconds,
    seconds,
    seconds,
)


# failure: the floor, then the envelopes of the first eight failures in a row, in seconds
GOLDEN = {
    Failure.NETWORK: (0.5, [1, 2, 4, 8, 16, 32, 60, 60]),
    Failure.REFUSED: (1, [2, 4, 8, 16, 32, 60, 60, 60]),
    Failure.PROTOCOL: (2.5, [5, 10, 20, 40, 60, 60, 60, 60]),
    Failure.FORWARD_BUSY: (2.5, [5, 10, 20, 40, 60, 60, 60, 60]),
    Failure.FORWARD_FORBIDDEN: (15, [30, 30, 40, 60, 60, 60, 60, 60]),
    Failure.AUTHENTICATION: (60, [120] * 8),
    Failure.HOST_KEY: (60, [120] * 8),
}


@pytest.mark.parametrize("failure", list(Failure))
def test_the_waits_of_each_class(failure: Failure) -> None:
    """With the default profile, each class waits between its floor and its envelope."""
    low, highs = GOLDEN[failure]
    assert floor(failure, LIMITS) == low
    assert [envelope(failure, n, LIMITS) for n in range(8)] == highs


def test_every_class_has_a_pace() -> None:
    """A new failure class without a pace would end the daemon the first time it happens."""
    assert set(PACE) == set(Failure)


@pytest.mark.parametrize("forward", [Failure.FORWARD_BUSY, Failure.FORWARD_FORBIDDEN])
def test_a_refused_forward_waits_longer_than_the_network(forward: Failure) -> None:
    """A relay that answers and says no is asked less often than one that is away."""
    assert floor(forward, LIMITS) > floor(Failure.NETWORK, LIMITS)
    assert envelope(forward, 0, LIMITS) > envelope(Failure.NETWORK, 0, LIMITS)


@given(st.sampled_from([Failure.AUTHENTICATION, Failure.HOST_KEY]), limits, st.integers(0, 50), chances)
def test_a_refused_login_waits_a_minute_whatever_the_profile_says(
    failure: Failure, limits: Limits, before: int, chance: float
) -> None:
    """A short `maximum` must not get the host's address locked out by the relay."""
    backoff = Backoff(limits)
    for _ in range(before):
        backoff.wait(failure, lived=None, chance=chance)
    assert backoff.wait(failure, lived=None, chance=chance) >= 60


@given(limits, st.lists(st.tuples(failures, st.none() | seconds, chances), max_size=60))
def test_no_wait_leaves_its_bounds(limits: Limits, history: list[tuple[Failure, float | None, float]]) -> None:
    """Whatever happened before, a wait is never below the floor and never above the cap."""
    backoff = Backoff(limits)
    for failure, lived, chance in history:
        wait = backoff.wait(failure, lived=lived, chance=chance)
        assert floor(failure, limits) <= wait <= max(limits.maximum, 2 * PACE[failure].least)


@given(failures, limits)
def test_the_envelope_never_shrinks(failure: Failure, limits: Limits) -> None:
    """More failures never make the longest wait shorter, however many there are."""
    highs = [envelope(failure, n, limits) for n in [*range(40), 10**9]]
    assert all(a <= b for a, b in itertools.pairwise(highs))
    assert floor(failure, limits) <= highs[0]


def test_a_session_that_connects_and_dies_keeps_growing() -> None:
    """A login alone proves nothing: sessions shorter than `stable_after` count as failures in a row."""
    backoff = Backoff(LIMITS)
    waits = [backoff.wait(Failure.NETWORK, lived=29.9, chance=0.999999) for _ in range(7)]
    assert [round(wait) for wait in waits] == [1, 2, 4, 8, 16, 32, 60]


def test_a_stable_session_starts_again_from_the_bottom() -> None:
    """After `stable_after` seconds up, the next loss is the first one again, for every class."""
    backoff = Backoff(LIMITS)
    for failure in (Failure.NETWORK, Failure.FORWARD_BUSY) * 9:
        backoff.wait(failure, lived=None, chance=0.5)
    assert backoff.wait(Failure.NETWORK, lived=30, chance=0) == 0.5
    assert backoff.wait(Failure.NETWORK, lived=30, chance=0.999999) == pytest.approx(1, abs=0.001)
    assert backoff.wait(Failure.FORWARD_BUSY, lived=None, chance=0.999999) == pytest.approx(5, abs=0.001)


def test_a_long_outage_does_not_slow_the_next_class() -> None:
    """After hours without a network, a port that is still held is asked for again after seconds, not a minute."""
    backoff = Backoff(LIMITS)
    for _ in range(100):
        backoff.wait(Failure.NETWORK, lived=None, chance=0.5)
    assert backoff.wait(Failure.FORWARD_BUSY, lived=None, chance=0.999999) < 5.01
