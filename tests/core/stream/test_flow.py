"""Flows and their bounds: who is let in, who gives way, and which numbers have come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.stream.flow import (
    EVICTION_GRACE,
    INGRESS_IDLE,
    OUTLET_IDLE,
    REPLAY_WINDOW,
    Bounds,
    Flow,
    FlowTable,
    Rate,
    SeenNumbers,
)

PLENTY = Bounds(new_rate=1e9, new_burst=1e9)


class Table:
    """A table, and a clock that it is asked by."""

    def __init__(self, bounds: Bounds = PLENTY) -> None:
        self.table = FlowTable(bounds)
        self.now = 1000.0
        self.evicted: list[Flow] = []

    def open(self, key: object, *, group: object = None, answered: bool = False) -> Flow | None:
        flow, evicted = self.table.admit(self.table.fresh_number(60001), self.now, key=key, group=group)
        self.evicted += evicted
        if flow:
            flow.answered = answered
        return flow


# SeenNumbers

near = st.integers(0, 3 * REPLAY_WINDOW)


@given(st.lists(st.one_of(near, near.map(lambda ahead: ahead * 7)), max_size=200))
def test_each_number_is_accepted_once(numbers: list[int]) -> None:
    """It behaves as a set does, but a number older than the window counts as seen."""
    seen, model, highest = SeenNumbers(), set[int](), -1
    for number in numbers:
        expected = number not in model and number > highest - REPLAY_WINDOW
        assert seen.accepts(number) is expected
        model.add(number)
        highest = max(highest, number)


@pytest.mark.parametrize("start", [0, 5, 0xFFFFFFFF - 3])
def test_a_replay_of_the_oldest_number_is_refused(start: int) -> None:
    """The last of the numbers that are remembered is refused when seen and accepted when new; older ones never are."""

    def after(steps: int) -> int:
        return (start + steps) & 0xFFFFFFFF

    seen = SeenNumbers()
    for step in range(0, start, 1 << 30):
        assert seen.accepts(step)
    assert seen.accepts(after(0))
    assert seen.accepts(after(REPLAY_WINDOW - 1))
    assert not seen.accepts(after(0))
    assert seen.accepts(after(REPLAY_WINDOW))
    assert not seen.accepts(after(0))
    assert seen.accepts(after(1))
    assert not seen.accepts(after(1))


@given(st.permutations(range(40)), st.integers(0, 0xFFFFFFFF))
def test_numbers_wrap(order: list[int], start: int) -> None:
    """After 2^32 datagrams the count goes on."""
    seen = SeenNumbers()
    for step in range(0, start, 1 << 30):
        seen.accepts(step)
    seen.accepts(start)
    numbers = [(start + 1 + ahead) & 0xFFFFFFFF for ahead in order]
    assert all(seen.accepts(number) for number in numbers)
    assert not any(seen.accepts(number) for number in numbers)


@given(st.lists(st.integers(0, 0xFFFFFFFF), max_size=100))
def test_numbers_from_anywhere_cost_no_memory(numbers: list[int]) -> None:
    """A peer that jumps to the end of the numbers does not make us remember those between."""
    seen = SeenNumbers()
    for number in numbers:
        seen.accepts(number)
        assert not seen.accepts(number)
        assert seen._bits.bit_length() <= REPLAY_WINDOW


def test_a_long_conversation_costs_no_memory() -> None:
    """Numbers that have left the window are forgotten."""
    seen = SeenNumbers()
    assert all(seen.accepts(number) for number in range(3 * REPLAY_WINDOW))
    assert seen._bits.bit_length() == REPLAY_WINDOW


# Rate


def test_a_rate_allows_its_burst_and_then_its_pace() -> None:
    """It allows twenty at once, ten a second after that, and never more than the burst."""
    rate = Rate(10, 20)
    assert sum(rate.allows(500.0) for _ in range(100)) == 20
    assert sum(rate.allows(501.0) for _ in range(100)) == 10
    assert sum(rate.allows(900.0) for _ in range(100)) == 20


@given(st.lists(st.floats(0, 2), min_size=1, max_size=300))
def test_a_rate_is_never_exceeded(pauses: list[float]) -> None:
    """Over any time it allows at most the burst, and the rate times the seconds."""
    rate, now, taken = Rate(10, 20), 1000.0, 0
    for pause in pauses:
        now += pause
        taken += rate.allows(now)
    assert taken <= 20 + 10 * sum(pauses) + 1e-6


@pytest.mark.parametrize(("after", "is_allowed"), [(0.0, False), (0.75, False), (1.0, True)])
def test_a_whole_token_is_needed(after: float, is_allowed: bool) -> None:
    """Looking for a token takes none."""
    rate = Rate(1, 1)
    assert rate.allows(1000.0)
    assert rate.has_token(1000.0 + after) is rate.has_token(1000.0 + after) is is_allowed
    assert rate.allows(1000.0 + after) is is_allowed


def test_an_unanswered_flow_has_a_rate() -> None:
    """It sends twenty datagrams at once, and ten a second after that."""
    flow = Flow(60001 << 16, "key", None, 1000.0)
    assert (flow.next_number, flow.answered, flow.opened, flow.heard) == (0, False, 1000, 1000)
    assert sum(flow.rate.allows(1000.0) for _ in range(100)) == 20
    assert sum(flow.rate.allows(1001.0) for _ in range(100)) == 10


# FlowTable


def test_the_bounds_of_a_tunnel() -> None:
    """256 flows, 64 of one address, a minute of idleness; 32 new flows a second, and 128 at once."""
    assert Bounds() == (256, 64, 60, 32, 128)
    assert (OUTLET_IDLE, REPLAY_WINDOW) == (180, 1024)


def test_flow_numbers_count_up_and_wrap() -> None:
    """The serial has 16 bits below the port."""
    table = FlowTable(PLENTY)
    numbers = [table.fresh_number(60001) for _ in range(0x10001)]
    port = 60001 << 16
    assert numbers[:2] == [port + 1, port + 2]
    assert numbers[-3:] == [port + 0xFFFF, port, port + 1]


@pytest.mark.parametrize(("age", "is_evicted"), [(4.75, False), (5.0, True)])
def test_an_unanswered_flow_has_five_seconds(age: float, is_evicted: bool) -> None:
    """After those it gives way, and each outcome is counted once."""
    here = Table(PLENTY._replace(flows=1))
    here.open("a")
    here.now += age
    assert bool(here.open("b")) is is_evicted
    outcome = {"flows_evicted": 1, "flows_opened": 2} if is_evicted else {"flows_refused_full": 1, "flows_opened": 1}
    assert here.table.counts == outcome


@pytest.mark.parametrize(("idle", "is_expired"), [(60.0, False), (60.25, True)])
def test_a_flow_expires_after_more_than_a_minute(idle: float, is_expired: bool) -> None:
    """A whole minute is still allowed; each flow that expires is counted once."""
    here = Table()
    flow = here.open("a")
    assert here.table.expired(here.now + idle) == ([flow] if is_expired else [])
    assert here.table.counts["flows_expired"] == is_expired


def test_a_flow_is_found_by_key_and_number() -> None:
    """Until it is removed; its number tells the port."""
    here = Table()
    flow = here.open("a")
    assert flow
    assert here.table.find("a") is here.table.get(flow.number) is flow
    assert flow.port == 60001
    here.table.remove(flow)
    assert here.table.find("a") is here.table.get(flow.number) is None
    assert len(here.table) == 0


def test_numbers_in_use_are_not_given_again() -> None:
    """The serial goes round and skips them."""
    here = Table()
    first = here.open("a")
    assert first
    numbers = {here.table.fresh_number(60001) for _ in range(0x10000)}
    assert len(numbers) == 0xFFFF
    assert first.number not in numbers
    assert {number >> 16 for number in numbers} == {60001}


def test_new_flows_are_bounded_in_rate() -> None:
    """A burst is let in, then so many a second; the others are counted."""
    here = Table(Bounds(new_rate=2, new_burst=3))
    assert sum(here.open(n) is not None for n in range(10)) == 3
    here.now += 1
    assert sum(here.open(-n) is not None for n in range(1, 10)) == 2
    assert here.table.counts["flows_refused_rate"] == 14


def test_the_unanswered_give_way_when_the_table_is_full() -> None:
    """The flow that has been silent for longest is evicted, once its grace is over; answered flows stay."""
    here = Table(PLENTY._replace(flows=3))
    person, oldest, younger = here.open("person", answered=True), here.open("oldest"), here.open("younger")
    assert person and oldest and younger
    here.now += EVICTION_GRACE
    younger.heard = person.heard = here.now
    assert here.open("new")
    assert here.evicted == [oldest]
    assert here.table.find("person") is person
    assert here.table.counts["flows_evicted"] == 1
    assert len(here.table) == 3


def test_no_flow_is_evicted_within_its_grace() -> None:
    """A newcomer under attack keeps its flow for long enough to be answered."""
    here = Table(PLENTY._replace(flows=2))
    here.open("a")
    here.open("b")
    here.now += EVICTION_GRACE - 0.1
    assert here.open("c") is None
    assert here.evicted == []
    assert here.table.counts["flows_refused_full"] == 1


def test_a_table_full_of_people_takes_no_more() -> None:
    """An answered flow is never evicted for a stranger."""
    here = Table(PLENTY._replace(flows=2))
    here.open("a", answered=True)
    here.open("b", answered=True)
    here.now += 30
    assert here.open("c") is None
    assert here.table.counts["flows_refused_full"] == 1


def test_a_source_gives_way_to_itself_alone() -> None:
    """An address with many flows costs another address nothing."""
    here = Table(PLENTY._replace(flows=10, flows_of_group=2))
    other = here.open("other", group="B")
    mine = here.open("a", group="A")
    here.open("b", group="A")
    here.now += EVICTION_GRACE
    assert here.open("c", group="A")
    assert here.evicted == [mine]
    assert other and here.table.find("other") is other


def test_a_source_at_its_bound_leaves_the_others_their_rate() -> None:
    """A flow that it is refused takes no token."""
    here = Table(Bounds(flows_of_group=2, new_rate=0.001, new_burst=4))
    for key in range(100):
        here.open(key, group="hostile")
    assert here.open("a", group="person")
    assert here.table.counts["flows_refused_full"] == 98


def test_idle_flows_expire() -> None:
    """They expire a minute after their last datagram, and not before; other flows stay."""
    here = Table()
    silent, speaking = here.open("silent"), here.open("speaking")
    assert silent and speaking
    here.now += INGRESS_IDLE
    assert here.table.expired(here.now) == []
    speaking.heard = here.now
    here.now += 0.1
    assert here.table.expired(here.now) == [silent]
    assert here.table.find("silent") is None
    assert here.table.counts["flows_expired"] == 1


@pytest.mark.parametrize("count", [5000])
def test_a_flood_of_keys_leaves_bounded_state(count: int) -> None:
    """This holds for keys from one address and from many."""
    here = Table(Bounds())
    for number in range(count):
        here.now += 0.01
        here.open(("one", number), group="one")
        here.open(("many", number), group=number)
        assert len(here.table) <= Bounds().flows
    assert sum(flow.group == "one" for flow in here.table._by_key.values()) <= Bounds().flows_of_group
    assert len(here.table._by_key) == len(here.table._by_number) == len(here.table)
