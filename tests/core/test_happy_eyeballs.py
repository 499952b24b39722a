"""Which address is tried when: a conversation with the schedule, in seconds that the test says."""

from __future__ import annotations

import math
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.happy_eyeballs import ATTEMPT_DELAY, AttemptSchedule, SocketAddress, interleaved

A4, B4, C4 = (SocketAddress(socket.AF_INET, (f"192.0.2.{number}", 22)) for number in (1, 2, 3))
A6, B6, C6 = (SocketAddress(socket.AF_INET6, (f"2001:db8::{number}", 22, 0, 0)) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ([], []),
        ([A6, B6, C6, A4, B4], [A6, A4, B6, B4, C6]),
        ([A4, A6, B6, C6], [A4, A6, B6, C6]),
        ([B4, A4], [B4, A4]),
        ([A6, A6, A4, A6, A4], [A6, A4]),
    ],
)
def test_families_take_turns(found: list[SocketAddress], order: list[SocketAddress]) -> None:
    """The resolver says which family is first, and the order within each; an address counts once."""
    assert interleaved(found) == order


@given(st.lists(st.sampled_from([A4, B4, C4, A6, B6, C6])))
def test_no_address_gets_lost_between_the_families(found: list[SocketAddress]) -> None:
    """Each that was found is there once, in its family's own order."""
    order = interleaved(found)
    assert sorted(order) == sorted(set(found))
    for family in (socket.AF_INET, socket.AF_INET6):
        own = [address for address in order if address.family == family]
        assert own == list(dict.fromkeys(address for address in found if address.family == family))


def test_the_attempt_delay_is_the_rfcs() -> None:
    """250 ms (RFC 8305, section 8)."""
    assert ATTEMPT_DELAY == 0.25


def test_the_next_attempt_starts_after_the_delay_and_not_before() -> None:
    """The first starts at once; the bound itself is late enough."""
    schedule = AttemptSchedule([A6, B6, A4])
    assert schedule.deadline() == -math.inf
    assert schedule.start(10.0) == A6
    assert schedule.deadline() == 10.25
    assert schedule.start(10.249) is None
    assert schedule.start(10.25) == A4
    assert schedule.start(10.3) is None
    assert schedule.start(10.5) == B6


def test_a_late_caller_does_not_start_two_attempts_together() -> None:
    """The delay counts from the start of the attempt, not from when it was due."""
    schedule = AttemptSchedule([A6, A4, B6])
    schedule.start(0)
    assert schedule.start(1.0) == A4
    assert schedule.start(1.1) is None
    assert schedule.deadline() == 1.25


def test_each_address_is_tried_once() -> None:
    """Afterwards nothing is due, whatever fails."""
    schedule = AttemptSchedule([A6, A4])
    assert [schedule.start(now) for now in (0, 1, 2)] == [A6, A4, None]
    schedule.failed(A6)
    schedule.failed(A4)
    assert schedule.deadline() == math.inf
    assert schedule.start(1e9) is None


def test_without_addresses_there_is_nothing_to_try() -> None:
    """Neither now nor later."""
    schedule = AttemptSchedule([], retry_delay=lambda _: 1.0)
    assert schedule.start(0) is None
    assert schedule.deadline() == math.inf


def test_the_failure_of_the_latest_attempt_brings_the_next_forward() -> None:
    """There is nothing left to wait for."""
    schedule = AttemptSchedule([A6, A4, B6])
    schedule.start(0)
    schedule.failed(A6)
    assert schedule.start(0.04) == A4
    assert schedule.deadline() == 0.29


def test_the_failure_of_an_earlier_attempt_changes_nothing() -> None:
    """The latest one still has its time to answer."""
    schedule = AttemptSchedule([A6, A4, B6])
    schedule.start(0)
    schedule.start(0.25)
    schedule.failed(A6)
    assert schedule.start(0.3) is None
    assert schedule.deadline() == 0.5


def test_once_every_address_was_tried_the_turns_are_the_callers() -> None:
    """They begin anew with the first address; the delay may follow from how many addresses there are."""
    schedule = AttemptSchedule([A6, A4], retry_delay=lambda count: 8.0 / count)
    assert [schedule.start(now) for now in (0, 0.25)] == [A6, A4]
    assert schedule.deadline() == 4.25
    assert [schedule.start(now) for now in (4.25, 8.25, 12.25)] == [A6, A4, A6]


def test_a_failure_among_later_attempts_hurries_nobody() -> None:
    """Each address has had its chance, and refuses: asking it in a row would be rude."""
    schedule = AttemptSchedule([A4], retry_delay=lambda _: 1.0)
    schedule.start(0)
    schedule.failed(A4)
    assert schedule.start(0.9) is None
    assert schedule.start(1.0) == A4


def test_an_address_that_comes_to_light_is_due_at_once() -> None:
    """Before the turn of any other, and the known ones do not count again."""
    schedule = AttemptSchedule([A4], retry_delay=lambda _: 15.0)
    schedule.start(0)
    schedule.add([A4, A6, B6, B4])
    assert schedule.addresses == [A4, A6, B4, B6]
    assert schedule.start(2.0) == A6
    assert schedule.deadline() == 2.25
    assert [schedule.start(now) for now in (2.25, 2.5, 17.5)] == [B4, B6, A4]


def test_addresses_that_are_known_change_nothing() -> None:
    """An answer that says the same again starts no attempt."""
    schedule = AttemptSchedule([A6, A4])
    schedule.start(0)
    schedule.add([A4, A6])
    assert schedule.deadline() == 0.25
