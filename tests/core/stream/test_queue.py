"""The queue before the send window: what is dropped, in which order, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunneld.core.stream.queue import (
    DATAGRAM_COST,
    INSTRUCTION_SPREAD,
    MAX_AGE,
    MAX_BYTES,
    SUPERSEDED_AGE,
    DatagramQueue,
    Waiting,
)


class Filled:
    """A queue, and numbers that tell the datagrams apart."""

    def __init__(self) -> None:
        self.queue = DatagramQueue()
        self.numbers = 0

    def push(self, *sizes: int, flow: int = 1, at: float = 0.0, stranger: bool = False) -> None:
        for size in sizes:
            self.queue.push(Waiting(flow, self.numbers, bytes(size), at, stranger))
            self.numbers += 1

    def pop_all(self, at: float = 0.0) -> list[int]:
        return [waiting.number for waiting in iter(lambda: self.queue.pop(at), None)]


def test_what_is_fresh_comes_out_in_order() -> None:
    """Within a flow, what came first leaves first."""
    filled = Filled()
    filled.push(70, 1252, 80, 0)
    assert filled.pop_all() == [0, 1, 2, 3]
    assert filled.queue.pop(0.0) is None
    assert filled.queue.dropped == 0


def test_flows_take_turns() -> None:
    """A flood of output in one terminal does not delay a keystroke in another."""
    filled = Filled()
    filled.push(*[1252] * 4, flow=1)
    filled.push(70, 70, flow=2)
    assert filled.pop_all() == [0, 4, 1, 5, 2, 3]


def test_strangers_wait_for_people() -> None:
    """Flows that mosh-server has not answered, however many, come after those that it has."""
    filled = Filled()
    for flow in range(100, 110):
        filled.push(70, flow=flow, stranger=True)
    filled.push(70, 70, flow=1)
    assert filled.pop_all()[:3] == [10, 11, 0]


def test_a_stranger_that_was_answered_is_none_any_more() -> None:
    """The first answer moves a flow up."""
    filled = Filled()
    filled.push(70, flow=1, stranger=True)
    filled.push(70, flow=2, stranger=True)
    filled.push(70, flow=2)
    assert filled.pop_all() == [1, 2, 0]


def test_what_is_too_old_is_dropped() -> None:
    """After 1.1 s mosh has sent its state anew."""
    filled = Filled()
    filled.push(70, at=0.0)
    filled.push(70, at=0.5)
    assert filled.pop_all(at=MAX_AGE + 0.2) == [1]
    assert filled.queue.dropped == 1


def test_an_old_instruction_is_dropped_as_a_whole() -> None:
    """Full-size datagrams and the shorter one after them are one instruction, though some came later than others."""
    filled = Filled()
    filled.push(1252, at=0.0)
    filled.push(1252, 300, 70, at=0.01)
    assert filled.pop_all(at=MAX_AGE + 0.005) == [3]
    assert filled.queue.dropped == 3


def test_what_is_newer_supersedes_what_has_waited() -> None:
    """On a line that is too slow, an older state makes room for the present one."""
    filled = Filled()
    filled.push(500, at=0.0)
    filled.push(1252, 500, at=0.2)
    filled.push(500, at=0.4)
    assert filled.pop_all(at=0.2 + SUPERSEDED_AGE + 0.01) == [3]
    assert filled.queue.dropped == 3


def test_what_nothing_newer_supersedes_may_wait() -> None:
    """The last state is good until mosh sends it again."""
    filled = Filled()
    filled.push(500, at=0.0)
    assert filled.pop_all(at=MAX_AGE - 0.01) == [0]


def test_an_instruction_that_has_begun_to_leave_is_let_finish() -> None:
    """On a slow line a large screen takes seconds, and its first part is worthless without the rest."""
    filled = Filled()
    filled.push(*[1252] * 9, 300, at=0.0)
    filled.push(70, at=1.0)
    left = []
    for step in range(10):
        waiting = filled.queue.pop(step * 0.5)
        assert waiting
        left.append(waiting.number)
    assert left == list(range(10))
    assert filled.pop_all(at=5.0) == []
    assert filled.queue.dropped == 1


def test_an_instruction_that_was_stalled_is_dropped() -> None:
    """After a stall the present state leaves at once, not the rest of an old one."""
    filled = Filled()
    filled.push(*[1252] * 9, 300, at=0.0)
    assert filled.queue.pop(0.0)
    filled.push(70, at=3.0)
    assert filled.pop_all(at=3.0) == [10]


@pytest.mark.parametrize(("pause", "left"), [(MAX_AGE - 0.01, [1, 2]), (MAX_AGE + 0.01, [])])
def test_an_instruction_that_has_begun_must_move(pause: float, left: list[int]) -> None:
    """It may take as long as it likes, if some of it leaves at least each 1.1 s."""
    filled = Filled()
    filled.push(1252, 1252, 300)
    assert filled.queue.pop(1.0)
    assert filled.pop_all(at=1.0 + pause) == left


def test_too_much_does_not_cost_what_has_begun_to_leave() -> None:
    """Otherwise a large screen, which mosh sends again each second, would never get through."""
    filled = Filled()
    filled.push(*[1252] * 20, 300, at=0.0)
    assert filled.queue.pop(0.0)
    filled.push(*[1252] * 20, 301, at=1.0)
    filled.push(70, at=1.1)
    assert filled.pop_all(at=1.1) == [*range(1, 21), 42]
    assert filled.queue.dropped == 21


def test_the_rest_of_a_dropped_instruction_is_dropped_as_well() -> None:
    """Half an instruction would only take up time."""
    filled = Filled()
    filled.push(1252, at=0.0)
    assert filled.pop_all(at=MAX_AGE + 0.01) == []
    filled.push(1252, 300, 70, at=INSTRUCTION_SPREAD / 2)
    assert filled.pop_all(at=INSTRUCTION_SPREAD / 2) == [3]
    assert filled.queue.dropped == 3


def test_what_comes_much_later_is_not_the_rest() -> None:
    """A keystroke is not dropped for a full-size datagram of a minute ago."""
    filled = Filled()
    filled.push(1252, at=0.0)
    assert filled.pop_all(at=60.0) == []
    filled.push(70, at=60.0)
    assert filled.pop_all(at=60.0) == [1]


def test_too_much_costs_the_oldest_instruction() -> None:
    """Nothing of the next one is dropped with it."""
    filled = Filled()
    filled.push(1252, 1252, 300)
    filled.push(1252, 500)
    while not filled.queue.dropped:
        filled.push(900)
    assert filled.queue.dropped == 3
    assert filled.pop_all()[:2] == [3, 4]


def test_too_much_costs_the_flow_that_has_most() -> None:
    """One flow's flood pushes out no keystroke of another flow, however old that is."""
    filled = Filled()
    filled.push(70, flow=1, at=0.0)
    filled.push(*[1000, 900] * 100, flow=2, at=0.5)
    assert filled.queue.dropped > 100
    assert 0 in filled.pop_all(at=0.5)


def test_too_much_costs_strangers_first() -> None:
    """Nobody can push out a person's screen by sending junk from many addresses."""
    filled = Filled()
    filled.push(*[1252] * 20, 300, flow=1)
    for flow in range(100, 200):
        filled.push(1472, flow=flow, stranger=True)
    assert filled.pop_all()[:21] == list(range(21))


def test_an_instruction_larger_than_the_queue_is_dropped_as_a_whole() -> None:
    """It could not cross anyway; the instruction after it does."""
    filled = Filled()
    filled.push(*[1252] * 60, 300)
    filled.push(70)
    assert filled.pop_all() == [61]


def test_empty_datagrams_are_not_free() -> None:
    """The queue is bounded in number as well."""
    filled = Filled()
    filled.push(*[0] * 10_000)
    assert len(filled.queue) <= MAX_BYTES // DATAGRAM_COST


def test_a_flow_that_ended_leaves_nothing() -> None:
    """Its datagrams and its half instruction are forgotten, and nothing is counted as dropped."""
    filled = Filled()
    filled.push(*[1252] * 10, flow=1)
    filled.push(70, flow=2)
    filled.queue.forget(1)
    filled.queue.forget(3)
    assert (len(filled.queue), filled.queue.cost) == (1, 70 + DATAGRAM_COST)
    assert filled.queue.dropped == 0


def test_a_datagram_at_the_bound_of_its_age_is_fresh() -> None:
    """It may be 1.1 s old, and 0.25 s where a newer one of its flow waits."""
    for sizes, age in (([500], 1.1), ([500, 501], 0.25)):
        filled = Filled()
        filled.push(*sizes)
        assert filled.pop_all(at=age) == list(range(len(sizes)))
        filled.push(*sizes)
        filled.pop_all(at=age + 0.01)
        assert filled.queue.dropped == 1


def test_an_instruction_that_last_moved_at_the_bound_goes_on() -> None:
    """1.1 s after its last datagram left, the next one still does."""
    filled = Filled()
    filled.push(1252, 300)
    assert filled.queue.pop(0.0)
    assert filled.pop_all(at=1.1) == [1]


@pytest.mark.parametrize(
    ("size", "pause", "is_the_rest"),
    [(1199, 0.0, False), (1200, 0.0, True), (1200, 0.2, True), (1200, 0.25, False)],
)
def test_what_is_the_rest_of_an_instruction(size: int, pause: float, is_the_rest: bool) -> None:
    """What follows a datagram of at least 1200 bytes within less than 0.25 s; it is dropped if that one was."""
    filled = Filled()
    filled.push(size, at=0.0)
    assert filled.pop_all(at=MAX_AGE + 0.01) == []
    filled.push(70, at=pause)
    assert filled.pop_all(at=pause) == ([] if is_the_rest else [1])


@pytest.mark.parametrize(("last", "dropped"), [(960, 0), (961, 1)])
def test_48_kib_may_wait_and_no_byte_more(last: int, dropped: int) -> None:
    """Each datagram counts 64 bytes beyond its own."""
    filled = Filled()
    filled.push(*[960] * 47, last)
    assert filled.queue.dropped == dropped


def test_a_stranger_of_whom_nothing_waits_loses_nothing() -> None:
    """Then it is the flow with most bytes that does."""
    filled = Filled()
    filled.push(70, flow=100, stranger=True)
    assert filled.pop_all() == [0]
    filled.push(*[960] * 49, flow=1)
    assert filled.queue.dropped == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([24, 70, 300, 500, 1252, 1472])), max_size=300))
def test_without_time_or_excess_nothing_is_dropped(pushed: list[tuple[int, int]]) -> None:
    """Each flow's datagrams come out complete and in order unless the queue was over its bound."""
    filled = Filled()
    for flow, size in pushed:
        filled.push(size, flow=flow)
    total = sum(size + DATAGRAM_COST for _, size in pushed)
    out = filled.pop_all()
    assert len(out) + filled.queue.dropped == len(pushed)
    if total <= MAX_BYTES:
        assert filled.queue.dropped == 0
    for flow in range(4):
        of_flow = [number for number in out if pushed[number][0] == flow]
        assert of_flow == sorted(of_flow)


class QueueModel(RuleBasedStateMachine):
    """Everything pushed is popped once, dropped and counted, or forgotten; the bounds hold throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = DatagramQueue()
        self.now = 100.0
        self.pushed: dict[int, Waiting] = {}
        self.popped: dict[int, float] = {}  # when, by flow: what has begun to leave may grow old while it moves
        self.gone = 0
        self.forgotten = 0

    @rule(
        flow=st.integers(1, 5),
        sizes=st.lists(st.sampled_from([0, 24, 1252, 1252, 1472]), max_size=40),
        known=st.booleans(),
    )
    def push(self, flow: int, sizes: list[int], known: bool) -> None:
        for size in sizes:
            waiting = Waiting(flow, len(self.pushed), bytes(size), self.now, not known)
            self.pushed[waiting.number] = waiting
            self.queue.push(waiting)

    @rule(count=st.integers(1, 30))
    def pop(self, count: int) -> None:
        for _ in range(count):
            waiting = self.queue.pop(self.now)
            if waiting is None:
                assert len(self.queue) == 0
                return
            assert self.pushed[waiting.number] is waiting
            self.pushed[waiting.number] = waiting._replace(number=-1)
            assert self.now - max(waiting.since, self.popped.get(waiting.flow, 0.0)) <= MAX_AGE
            self.popped[waiting.flow] = self.now
            self.gone += 1

    @rule(seconds=st.floats(0, 1.5))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: len(self.queue) > 0)
    @rule(flow=st.integers(1, 5))
    def forget(self, flow: int) -> None:
        before = len(self.queue)
        self.queue.forget(flow)
        self.forgotten += before - len(self.queue)

    @invariant()
    def nothing_is_lost_uncounted(self) -> None:
        assert len(self.pushed) == len(self.queue) + self.queue.dropped + self.gone + self.forgotten

    @invariant()
    def bytes_are_exact_and_bounded(self) -> None:
        waiting = [one for lane in self.queue._lanes.values() for each in lane.instructions for one in each.parts]
        assert self.queue.cost == sum(len(one.datagram) + DATAGRAM_COST for one in waiting) <= MAX_BYTES
        assert len(self.queue) == len(waiting)


TestQueueModel = QueueModel.TestCase
TestQueueModel.settings = settings(max_examples=50)
