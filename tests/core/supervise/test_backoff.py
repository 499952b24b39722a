"""The waits between sessions: what they are, and what they never are."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.supervise.backoff import SHORTEST_WAIT, Backoff, Limits, envelope, floor, outage_envelope
from tunneld.core.supervise.failures import Failure

LIMITS = Limits(initial=1, maximum=60, stable_after=30)

CHEAP = [each for each in Failure if each.rule.is_cheap]

failures = st.sampled_from(Failure)
chances = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0.05, 3600)
limits = st.builds(
    lambda initial, longer, stable: Limits(initial=initial, maximum=initial + longer, stable_after=stable),
    seconds,
    seconds,
    seconds,
)


def waited(
    backoff: Backoff,
    failure: Failure,
    *,
    lived: float | None = None,
    spent: float = 0,
    outage: float = 0,
    now: float = 0,
    chance: float = 0.999999,
) -> float:
    return backoff.wait(failure, lived=lived, spent=spent, outage=outage, now=now, chance=chance)


# failure: the floor, then the envelopes of the first eight failures in a row, in seconds
GOLDEN = {
    Failure.NETWORK: (0.5, [1, 2, 4, 8, 16, 32, 60, 60]),
    Failure.CLOSED: (0.5, [1, 2, 4, 8, 16, 32, 60, 60]),
    Failure.REFUSED: (1, [4, 8, 16, 32, 60, 60, 60, 60]),
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


@pytest.mark.parametrize("forward", [Failure.FORWARD_BUSY, Failure.FORWARD_FORBIDDEN])
def test_a_refused_forward_waits_longer_than_the_network(forward: Failure) -> None:
    """A relay that answers and says no is asked less often than one that is away."""
    assert floor(forward, LIMITS) > floor(Failure.NETWORK, LIMITS)
    assert envelope(forward, 0, LIMITS) > envelope(Failure.NETWORK, 0, LIMITS)


# failure: the longest waits after 0 s, 5 s, 1 min, 10 min and a day without a session
OUTAGES = {
    Failure.NETWORK: [1, 1, 1, 10, 15],
    Failure.CLOSED: [1, 1, 12, 60, 60],
}


@pytest.mark.parametrize("failure", CHEAP)
def test_the_waits_grow_with_the_outage_where_an_attempt_costs_nothing(failure: Failure) -> None:
    """A short outage is over within a second; a long one is made longer by a fixed share, up to a cap."""
    backoff = Backoff(LIMITS)
    outages = [0, 5, 60, 600, 86400]
    assert [outage_envelope(failure, outage, LIMITS) for outage in outages] == OUTAGES[failure]
    for outage, high in zip(outages, OUTAGES[failure], strict=True):
        for _ in range(20):  # however often it failed before
            assert waited(backoff, failure, outage=outage) == pytest.approx(high, abs=0.001)
            assert waited(backoff, failure, outage=outage, chance=0) == 0.5


def test_a_wait_counts_from_the_start_of_the_attempt() -> None:
    """Fifteen seconds that went by without an answer are wait enough, but for SHORTEST_WAIT."""
    backoff = Backoff(LIMITS)
    assert waited(backoff, Failure.NETWORK, spent=0.4) == pytest.approx(0.6, abs=0.001)
    assert waited(backoff, Failure.NETWORK, spent=15) == 0.3
    assert waited(backoff, Failure.CLOSED, outage=60, spent=2) == pytest.approx(10, abs=0.001)


@pytest.mark.parametrize("failure", [each for each in Failure if each not in CHEAP])
def test_a_relay_that_took_its_time_to_refuse_is_not_asked_sooner(failure: Failure) -> None:
    """The wait counts from the end of the attempt: a slow relay is a busy one."""
    assert waited(Backoff(LIMITS), failure, spent=15, chance=0) == floor(failure, LIMITS)


def test_the_first_loss_is_dialled_at_once() -> None:
    """A relay that is still there has the tunnel back before anyone notices; the second loss has to wait."""
    backoff = Backoff(LIMITS)
    assert waited(backoff, Failure.NETWORK, lived=1, now=100) == 0
    assert waited(backoff, Failure.NETWORK, lived=1, now=102) == pytest.approx(1, abs=0.001)
    assert waited(backoff, Failure.NETWORK, lived=30, now=140) == 0


def test_a_dial_at_once_is_not_given_twice_in_a_row() -> None:
    """Neither by a profile that calls every session stable, nor by a network that keeps changing."""
    backoff = Backoff(Limits(initial=1, maximum=60, stable_after=0))
    assert waited(backoff, Failure.NETWORK, lived=0, now=100) == 0
    assert waited(backoff, Failure.NETWORK, lived=0, now=100.9) == pytest.approx(1, abs=0.001)
    backoff = Backoff(LIMITS)
    assert waited(backoff, Failure.NETWORK, lived=5, now=100) == 0
    backoff.clear(Failure.NETWORK)
    assert waited(backoff, Failure.NETWORK, lived=5, now=129) == pytest.approx(1, abs=0.001)


def test_a_dial_at_once_is_due_again_after_the_last_one_not_after_the_last_loss() -> None:
    """Losses that had to wait do not put it off: a network that changes all day gets one each half minute."""
    backoff = Backoff(LIMITS)
    waits = []
    for now in (100, 120, 129.9, 130):
        waits.append(waited(backoff, Failure.NETWORK, lived=5, now=now))
        backoff.clear(Failure.NETWORK)
    assert waits == pytest.approx([0, 1, 1, 0], abs=0.001)


def test_the_default_limits() -> None:
    """The figures that docs/profile.md promises."""
    assert Limits() == Limits(initial=1, maximum=60, stable_after=30, return_after=60)


def test_a_login_that_comes_to_nothing_is_a_lost_session() -> None:
    """A relay that lets us in and hangs up before a port listens has had work, so the waits grow."""
    for limits in (LIMITS, Limits(stable_after=0)):
        backoff = Backoff(limits)
        assert [round(waited(backoff, Failure.NETWORK, lived=0)) for _ in range(8)] == [0, 1, 2, 4, 8, 16, 32, 60]


def test_what_is_over_is_forgotten() -> None:
    """A network that comes back clears its own class, and no other."""
    backoff = Backoff(LIMITS)
    for failure in (Failure.NETWORK, Failure.REFUSED) * 5:
        waited(backoff, failure, lived=0)
    backoff.clear(Failure.NETWORK)
    assert waited(backoff, Failure.NETWORK, lived=0) == pytest.approx(1, abs=0.001)
    assert waited(backoff, Failure.REFUSED) == pytest.approx(60, abs=0.001)


@given(st.sampled_from([Failure.AUTHENTICATION, Failure.HOST_KEY]), limits, st.integers(0, 50), chances, seconds)
def test_a_refused_login_waits_a_minute_whatever_the_profile_says(
    failure: Failure, limits: Limits, before: int, chance: float, spent: float
) -> None:
    """A short `maximum` must not get the host's address locked out by the relay."""
    backoff = Backoff(limits)
    for _ in range(before):
        waited(backoff, failure, chance=chance)
    assert waited(backoff, failure, spent=spent, chance=chance) >= 60


histories = st.lists(st.tuples(failures, st.none() | seconds, seconds, seconds, chances), max_size=60)


@given(limits, histories)
def test_no_wait_leaves_its_bounds(
    limits: Limits, history: list[tuple[Failure, float | None, float, float, float]]
) -> None:
    """Whatever happened before, a wait is never above the cap, and without one only after a session was lost."""
    backoff, now = Backoff(limits), 0.0
    for failure, lived, spent, outage, chance in history:
        now += spent
        wait = waited(backoff, failure, lived=lived, spent=spent, outage=outage, now=now, chance=chance)
        now += wait
        assert wait <= max(limits.maximum, 2 * failure.rule.pace.least, SHORTEST_WAIT)
        if lived is None or failure is not Failure.NETWORK:
            assert wait >= (SHORTEST_WAIT if failure in CHEAP and lived is None else floor(failure, limits))


@given(failures, limits)
def test_the_envelope_never_shrinks(failure: Failure, limits: Limits) -> None:
    """More failures never make the longest wait shorter, however many there are."""
    highs = [envelope(failure, n, limits) for n in [*range(40), 10**9]]
    assert all(a <= b for a, b in itertools.pairwise(highs))
    assert floor(failure, limits) <= highs[0]


def test_a_session_that_connects_and_dies_keeps_growing() -> None:
    """A login alone proves nothing: sessions shorter than `stable_after` count as failures in a row."""
    backoff = Backoff(LIMITS)
    waits = [waited(backoff, Failure.NETWORK, lived=29.9, now=100.0 * n) for n in range(8)]
    assert [round(wait) for wait in waits] == [0, 1, 2, 4, 8, 16, 32, 60]


def test_a_stable_session_starts_again_from_the_bottom() -> None:
    """After `stable_after` seconds up, the next loss is the first one again, for every class."""
    backoff = Backoff(LIMITS)
    for failure in (Failure.NETWORK, Failure.FORWARD_BUSY) * 9:
        waited(backoff, failure, lived=0)
    assert waited(backoff, Failure.NETWORK, lived=30, now=100) == 0
    assert waited(backoff, Failure.NETWORK, lived=29, now=130) == pytest.approx(1, abs=0.001)
    assert waited(backoff, Failure.FORWARD_BUSY) == pytest.approx(5, abs=0.001)


def test_a_long_outage_does_not_slow_the_next_class() -> None:
    """After hours without a network, a port that is still held is asked for again after seconds, not a minute."""
    backoff = Backoff(LIMITS)
    for number in range(100):
        waited(backoff, Failure.NETWORK, outage=60.0 * number)
    assert waited(backoff, Failure.FORWARD_BUSY) < 5.01
