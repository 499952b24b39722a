"""A forward's counters, its bound and its visits. What crosses a forward is tested in test_forward.py."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from tunneld.core.supervise.canary import Step, Visit
from tunneld.profile import Forward, TcpAddress
from tunneld.ssh.forward import opened as opened_module
from tunneld.ssh.forward.opened import OpenForward


@pytest.fixture
def opened() -> OpenForward:
    return OpenForward(Forward(TcpAddress("127.0.0.1", 2222), TcpAddress("127.0.0.1", 22)), structlog.get_logger())


def visit(origin: str | None = "127.0.0.1") -> Visit:
    return Visit(origin, lambda: None)


def test_a_place_that_becomes_free_is_given_again(opened: OpenForward, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound counts what runs, not what came."""
    monkeypatch.setattr(opened_module, "MOST_CONNECTIONS", 2)
    first, second = opened.admit(), opened.admit()
    assert opened.admit() is None
    assert (opened.total, opened.refused, opened.connections) == (3, 1, 2)
    assert first is not None and second is not None
    first.close()
    assert opened.admit() is not None
    assert (opened.total, opened.refused, opened.connections) == (4, 1, 2)


def test_a_row_of_connections_that_are_turned_away_is_one_line(opened: OpenForward, events: list[Any]) -> None:
    """512 run at once; who comes after those is counted, and the log tells of the first."""
    for _ in range(514):
        opened.admit()
    assert (opened.connections, opened.refused) == (512, 2)
    assert [(each["event"], each["limit"]) for each in events] == [("connections_refused", 512)]


def test_a_canary_that_finds_it_full_is_told_and_not_counted(
    opened: OpenForward, monkeypatch: pytest.MonkeyPatch, events: list[Any]
) -> None:
    """People hold all its connections, and the log has nothing to say about that."""
    monkeypatch.setattr(opened_module, "MOST_CONNECTIONS", 0)
    canary = visit()
    assert opened.admit(canary) is None
    assert Step.FORBIDDEN in canary.steps
    assert (opened.total, opened.refused, events) == (0, 0, [])


async def test_nobody_is_admitted_to_a_closed_forward(opened: OpenForward) -> None:
    """Whoever arrives in that moment counts as arrived, and is turned away without a line in the log."""
    here = opened.admit()
    await opened.close()
    assert here is not None and here.is_closed
    assert opened.admit() is None
    assert (opened.is_closed, opened.total, opened.refused, opened.connections) == (True, 2, 0, 0)


@pytest.mark.parametrize(
    ("origin", "expected", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.9", "127.0.0.1", True),
        ("::1", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "::1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8:0::1", True),
        ("192.0.2.7", "127.0.0.1", False),
        ("127.0.0.1", "192.0.2.1", False),
        ("::ffff:192.0.2.7", "192.0.2.1", False),
        ("relay.example", "127.0.0.1", True),
        ("UNKNOWN", "192.0.2.1", True),
        (None, "127.0.0.1", True),
        ("192.0.2.7", None, True),
    ],
)
def test_a_visit_is_known_by_where_it_comes_from(
    origin: str | None, expected: str | None, same: bool, opened: OpenForward
) -> None:
    """A relay may use any of its loopback addresses; what is no address could be any."""
    canary = visit(expected)
    with opened.visited_by(canary):
        assert (opened.visit_of(origin) is canary) is same
    assert (Step.ARRIVED in canary.steps) is same


def test_a_second_connection_from_there_mixes_them_up(opened: OpenForward) -> None:
    """Nobody knows which of the two is the canary's, so the first may stay, and counts as somebody's afterwards."""
    canary = visit()
    with opened.visited_by(canary):
        here = opened.admit(opened.visit_of("127.0.0.1"))
        assert here is not None
        assert opened.connections == 0
        assert opened.visit_of("127.0.0.1") is None
        assert canary.is_mixed_up
    assert not here.is_closed
    assert opened.connections == 1


def test_a_canary_s_connection_is_closed_with_its_visit(opened: OpenForward) -> None:
    """Whatever its target says; it is never counted."""
    with opened.visited_by(visit()) as _:
        here = opened.admit(opened.visit_of("127.0.0.1"))
        assert here is not None
    assert here.is_closed
    assert (opened.total, opened.connections) == (0, 0)
    assert opened.visit_of("127.0.0.1") is None


def test_nothing_is_known_of_a_forward_that_has_just_opened(opened: OpenForward) -> None:
    """Nobody has come, and no canary has asked."""
    assert (opened.total, opened.failed, opened.refused, opened.connections) == (0, 0, 0, 0)
    assert (opened.target_error, opened.finding) == (None, None)
    assert not (opened.heard or opened.speaks_first or opened.takes_program or opened.is_closed)


def test_a_row_of_failures_is_one_line_for_each_reason(opened: OpenForward, events: list[Any]) -> None:
    """And one line when the target answers again; a canary's failures are logged but not counted."""
    opened.target_answered()
    assert events == []
    for reason in ("refused", "refused", "no route", "no route"):
        opened.target_failed(reason)
    canary = visit()
    opened.target_failed("no route", canary)
    opened.target_answered()
    told = [
        ("target_failed", "127.0.0.1:22", "refused"),
        ("target_failed", "127.0.0.1:22", "no route"),
        ("target_answers", "127.0.0.1:22", None),
    ]
    assert [(each["event"], each["to"], each.get("reason")) for each in events] == told
    opened.target_answered()
    assert len(events) == len(told)
    assert (opened.failed, opened.target_error) == (4, None)
    assert Step.FAILED in canary.steps
