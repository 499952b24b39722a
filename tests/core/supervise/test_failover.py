"""Which relay serves, as a conversation with a clock that the test holds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunneld.core.supervise.failover import HEAD_START as DRAWN
from tunneld.core.supervise.failover import MAX_RETURN_DELAY, SETTLED_AFTER, Failover

RETURN_AFTER = 60.0
CHANCE = 0.25
HEAD_START = DRAWN[0] + CHANCE * (DRAWN[1] - DRAWN[0])
FIRST, SECOND, THIRD = range(3)


class Relays:
    """Some relays, a clock, and what the failover decides about them."""

    def __init__(self, count: int = 2) -> None:
        self.failover = Failover(count, RETURN_AFTER)
        self.well = [False] * count
        self.now = 1000.0
        self.failover.look(self.well, self.now, CHANCE)

    def after(self, seconds: float, **changed: bool) -> tuple[int, int]:
        """Let time pass, with a look at each deadline; then change these relays.

        Returns which relay serves, and the last one that is dialled.
        """
        end = self.now + seconds
        while (deadline := self.failover.deadline) is not None and deadline <= end:
            self.now = deadline
            self.failover.look(self.well, self.now, CHANCE)
            assert self.failover.deadline is None or self.failover.deadline > self.now
        self.now = end
        for name, is_well in changed.items():
            self.well[("first", "second", "third").index(name)] = is_well
        self.failover.look(self.well, self.now, CHANCE)
        return self.failover.serving, self.failover.last


def on_the_second(count: int = 2) -> Relays:
    """The first relay was lost, and the second one has served for a while."""
    relays = Relays(count)
    relays.after(0, first=True)
    relays.after(500, first=False)
    relays.after(HEAD_START)
    assert relays.after(1, second=True) == (SECOND, SECOND)
    relays.after(100)
    return relays


def test_one_relay_is_all_there_is() -> None:
    """A single relay serves, or none does, and there is nothing to wait for."""
    relays = Relays(1)
    assert relays.after(1000) == (FIRST, FIRST)
    assert relays.after(0, first=True) == (FIRST, FIRST)
    assert relays.failover.deadline is None


def test_the_first_has_a_head_start() -> None:
    """A dial takes its time, and the second relay is not dialled when the first one comes up."""
    relays = Relays()
    assert relays.after(HEAD_START - 0.1) == (FIRST, FIRST)
    assert relays.after(0, first=True) == (FIRST, FIRST)
    assert relays.after(10_000) == (FIRST, FIRST)


def test_the_others_follow_one_by_one() -> None:
    """Each relay is dialled beside the relays before it, which are never given up."""
    relays = Relays(3)
    assert relays.after(HEAD_START) == (FIRST, SECOND)
    assert relays.after(HEAD_START - 0.1) == (FIRST, SECOND)
    assert relays.after(0.1) == (FIRST, THIRD)
    assert relays.after(HEAD_START) == (FIRST, THIRD)
    assert relays.failover.deadline is None


def test_a_lost_session_is_made_anew_on_its_own_relay() -> None:
    """In most cases the session broke, not the relay."""
    relays = Relays()
    relays.after(0, first=True)
    relays.after(500, first=False)
    assert relays.after(HEAD_START - 0.1, first=True) == (FIRST, FIRST)


def test_the_second_serves_as_soon_as_it_is_well() -> None:
    """The third relay is then no longer dialled."""
    relays = Relays(3)
    assert relays.after(2 * HEAD_START) == (FIRST, THIRD)
    assert relays.after(1, second=True) == (SECOND, SECOND)
    assert relays.after(10_000) == (SECOND, SECOND)


def test_an_earlier_relay_is_well_for_a_while_before_it_serves_again() -> None:
    """Until then the other relay keeps the tunnel; afterwards that one is left alone."""
    relays = on_the_second()
    assert relays.after(0, first=True) == (SECOND, SECOND)
    assert relays.failover.deadline == relays.now + RETURN_AFTER
    assert relays.after(RETURN_AFTER - 0.1) == (SECOND, SECOND)
    assert relays.after(0.1) == (FIRST, FIRST)


def test_an_earlier_relay_that_fails_meanwhile_begins_anew() -> None:
    """It has to be well for the whole delay without a break."""
    relays = on_the_second()
    relays.after(0, first=True)
    relays.after(RETURN_AFTER - 1, first=False)
    relays.after(1, first=True)
    assert relays.after(RETURN_AFTER - 1) == (SECOND, SECOND)
    assert relays.after(1) == (FIRST, FIRST)


def test_an_earlier_relay_serves_at_once_when_the_other_fails() -> None:
    """It has a session already, so nothing is gained by waiting."""
    relays = on_the_second()
    relays.after(0, first=True)
    assert relays.after(10, second=False) == (FIRST, FIRST)


def test_relays_that_come_up_together_leave_it_to_the_first() -> None:
    """After an outage on our side the order of preference decides, not which relay was a moment faster."""
    for seconds, serving in ((SETTLED_AFTER - 0.1, FIRST), (SETTLED_AFTER, SECOND)):
        relays = Relays()
        relays.after(HEAD_START)
        assert relays.after(50, second=True) == (SECOND, SECOND)
        assert relays.after(seconds, first=True) == (serving, serving)


def test_a_relay_that_takes_the_tunnel_back_and_loses_it_waits_longer() -> None:
    """Every return breaks the connections through the other relay, so each failed one doubles the delay."""
    relays = on_the_second()
    delays = []
    for _ in range(8):
        relays.after(0, first=True)
        assert relays.failover.deadline is not None
        delays.append(relays.failover.deadline - relays.now)
        assert relays.after(delays[-1]) == (FIRST, FIRST)
        relays.after(1, first=False, second=False)
        relays.after(HEAD_START, second=True)
        relays.after(100)
    assert delays == [60, 120, 240, 480, 960, 1920, MAX_RETURN_DELAY, MAX_RETURN_DELAY]


def test_a_relay_that_kept_the_tunnel_is_forgiven() -> None:
    """What happened before no longer counts."""
    relays = on_the_second()
    for seconds in (1, 500):
        relays.after(0, first=True)
        relays.after(2 * RETURN_AFTER)
        relays.after(seconds, first=False, second=False)
        relays.after(HEAD_START, second=True)
        relays.after(100)
    relays.after(0, first=True)
    assert relays.after(RETURN_AFTER) == (FIRST, FIRST)


def test_when_the_second_fails_too_the_third_has_its_turn() -> None:
    """The third relay is dialled after a head start for the second."""
    relays = on_the_second(3)
    assert relays.after(0, second=False) == (SECOND, SECOND)
    assert relays.after(HEAD_START) == (SECOND, THIRD)
    assert relays.after(1, third=True) == (THIRD, THIRD)
    assert relays.after(RETURN_AFTER, second=True) == (THIRD, THIRD)
    assert relays.after(RETURN_AFTER) == (SECOND, SECOND)


def test_a_fleet_does_not_fall_upon_the_second_in_step() -> None:
    """A thousand hosts that lose their relay at one moment dial the next one over some seconds."""
    dues = []
    for host in range(1000):
        failover = Failover(2, RETURN_AFTER)
        failover.look([False, False], 0, host / 1000)
        assert failover.deadline is not None
        dues.append(failover.deadline)
    assert max(sum(second <= due < second + 1 for due in dues) for second in range(10)) <= 250


changes = st.lists(st.tuples(st.floats(0, 200), st.integers(0, 2), st.booleans()), max_size=60)


@given(changes)
def test_whoever_serves_is_well_if_anybody_is(changes: list[tuple[float, int, bool]]) -> None:
    """Later relays are dialled only while no relay is well."""
    relays = Relays(3)
    for seconds, relay, is_well in changes:
        serving, last = relays.after(seconds, **{("first", "second", "third")[relay]: is_well})
        assert relays.well[serving] or not any(relays.well)
        assert last == serving if any(relays.well) else serving <= last


@given(changes)
@example([(0.0, 1, True), (0.0, 1, False), (4.0, 1, True), (0.0, 0, True)])
def test_nobody_loses_the_tunnel_to_a_later_one_while_it_is_well(changes: list[tuple[float, int, bool]]) -> None:
    """An earlier relay takes it only after its return delay, or when the relay that serves has only just come up."""
    relays = Relays(3)
    since = [0.0] * 3
    for seconds, relay, is_well in changes:
        before = relays.after(seconds)[0]
        if is_well and not relays.well[relay]:
            since[relay] = relays.now
        after = relays.after(0, **{("first", "second", "third")[relay]: is_well})[0]
        if after != before and relays.well[before]:
            assert after < before
            assert relays.now - since[after] >= RETURN_AFTER or relays.now - since[before] < SETTLED_AFTER


@given(changes, st.floats(0, 0.99))
def test_nothing_happens_before_the_deadline(changes: list[tuple[float, int, bool]], part: float) -> None:
    """A look before the deadline changes nothing."""
    relays = Relays(3)
    for seconds, relay, is_well in changes:
        decided = relays.after(seconds, **{("first", "second", "third")[relay]: is_well})
        deadline = relays.failover.deadline
        assert deadline is None or deadline > relays.now
        early = 100.0 if deadline is None else deadline - relays.now
        relays.now += early * part
        relays.failover.look(relays.well, relays.now, CHANCE)
        assert (relays.failover.serving, relays.failover.last) == decided
        assert relays.failover.deadline == (None if deadline is None else pytest.approx(deadline))


def test_when_an_earlier_relay_serves_again_is_known() -> None:
    """While it proves itself; of a relay that serves, is unwell, or comes later there is nothing to say."""
    relays = on_the_second(3)
    assert [relays.failover.returns_at(each) for each in (FIRST, SECOND, THIRD)] == [None, None, None]
    relays.after(5, first=True, third=True)
    due = relays.now + RETURN_AFTER
    assert [relays.failover.returns_at(each) for each in (FIRST, SECOND, THIRD)] == [due, None, None]
    relays.after(RETURN_AFTER)
    assert relays.failover.serving == FIRST
    assert relays.failover.returns_at(FIRST) is None


def test_the_seconds_of_a_failover() -> None:
    """A head start of 2 to 6 s, 3 s until somebody relies on a relay, and an hour as the longest return delay."""
    assert (DRAWN, SETTLED_AFTER, MAX_RETURN_DELAY) == ((2, 6), 3, 3600)


@pytest.mark.parametrize(("served", "serving"), [(2.9, FIRST), (3.0, SECOND)])
def test_an_earlier_relay_replaces_one_that_has_just_begun(served: float, serving: int) -> None:
    """After 3 s somebody relies on the relay that serves, and the earlier one has to wait for its return delay."""
    relays = Relays()
    relays.after(HEAD_START)
    relays.after(0, second=True)
    assert relays.after(served, first=True)[0] == serving
