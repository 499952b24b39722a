"""When a relay's name has left the address that we are connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.virtual import Journal, VirtualTime
from tunneld.net.name_watch import NameVerdict, NameWatch, Whereabouts, comparable, resolve

OLD, NEW, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
OLD_6 = "2001:db8::1"

STAYS, AGAIN, MOVED, ROTATES = NameVerdict.STAYS, NameVerdict.ASK_AGAIN, NameVerdict.MOVED, NameVerdict.ROTATES


def of(*found: str) -> frozenset[str]:
    return frozenset(found)


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ([of(OLD)], [STAYS]),
        ([of(OLD, NEW)], [STAYS]),
        ([of()], [STAYS]),  # DNS down is no news
        ([of(OLD_6)], [STAYS]),  # one family's name server is
        ([of(NEW)] * 4, [AGAIN, AGAIN, AGAIN, MOVED]),
        ([of(NEW)] * 3 + [of(OLD)], [AGAIN, AGAIN, AGAIN, STAYS]),
        ([of(NEW), of(), of(NEW)], [AGAIN, STAYS, AGAIN]),
        ([of(NEW)] * 6, [AGAIN, AGAIN, AGAIN, MOVED, STAYS, STAYS]),  # said once
        ([of(NEW)] * 4 + [of(OLD), of(NEW)], [AGAIN, AGAIN, AGAIN, MOVED, ROTATES, ROTATES]),
    ],
)
def test_what_answers_mean(answers: list[frozenset[str]], verdicts: list[NameVerdict]) -> None:
    """For a session that is connected to OLD."""
    known = Whereabouts()
    assert [known.heard(OLD, answer) for answer in answers] == verdicts


def test_an_address_that_comes_back_is_a_round_robin() -> None:
    """We followed the name once, and it leads back: to follow it again would be no use."""
    known = Whereabouts()
    for _ in range(4):
        known.heard(OLD, of(NEW))
    assert known.heard(NEW, of(NEW)) is STAYS
    assert known.heard(NEW, of(OLD)) is ROTATES


def test_a_name_that_moves_for_years_does_not_rotate() -> None:
    """A dynamic address: always another, and once, much later, an address from long ago."""
    known = Whereabouts()
    for number in range(1, 20):
        assert [known.heard(f"198.51.100.{number}", of(f"198.51.100.{number + 1}")) for _ in range(4)][-1] is MOVED
    assert known.heard("198.51.100.20", of("198.51.100.20", "198.51.100.1")) is STAYS


@pytest.mark.parametrize(
    ("address", "same"),
    [("fe80::1%eth0", "fe80::1"), ("::ffff:192.0.2.1", OLD), (OLD, OLD), ("2001:DB8:0::1", OLD_6)],
)
def test_addresses_are_compared_in_one_form(address: str, same: str) -> None:
    """A zone, capitals and IPv4 inside IPv6 make no difference."""
    assert comparable(address) == same


# The watch


class Served:
    """A name server's answers, until a test changes them."""

    def __init__(self, *now: str) -> None:
        self.now = of(*now)
        self.asked = 0

    async def ask(self, host: str) -> frozenset[str]:
        self.asked += 1
        return self.now


@pytest.fixture
async def time() -> AsyncIterator[VirtualTime]:
    yield VirtualTime()


async def passes(time: VirtualTime, seconds: int) -> None:
    for _ in range(seconds):
        time.advance(1)
        for _ in range(5):
            await asyncio.sleep(0)


def watching(served: Served, time: VirtualTime, journal: Journal, host: str = "relay.example.net") -> NameWatch:
    return NameWatch(host, log=journal.log, ask=served.ask, sleep=time.sleep)


async def test_a_moved_relay_is_told(time: VirtualTime) -> None:
    """Half a minute and three more questions after the change; the log says from where to where."""
    served, journal = Served(OLD), Journal()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(watching(served, time, journal).moved(OLD))
        await time.slept_on(1)
        await passes(time, 60)
        assert not waiting.done()
        served.now = of(NEW)
        await passes(time, 33)
        assert waiting.done()
    assert waiting.result() == of(NEW)
    assert served.asked == 2 + 4
    assert journal.events == [
        {"event": "relay_moved", "name": "relay.example.net", "left": OLD, "now": NEW, "level": "info"}
    ]


async def test_a_round_robin_is_asked_no_more(time: VirtualTime) -> None:
    """It is said once, and holds for later sessions as well."""
    served, journal = Served(NEW), Journal()
    watch = watching(served, time, journal)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(watch.moved(OLD))
        await time.slept_on(1)
        await passes(time, 33)
        assert first.done()
        later = tasks.create_task(watch.moved(NEW))
        await time.slept_on(1)
        served.now = of(OLD)
        await passes(time, 31)
        assert later.done()
    assert later.result() == frozenset()
    asked = served.asked
    assert await watch.moved(OTHER) == frozenset()
    assert served.asked == asked
    assert journal.names() == ["relay_moved", "relay_name_rotates"]


@pytest.mark.parametrize(("host", "connected"), [(OLD, OLD), ("::1", OLD), ("relay.example.net", "")])
async def test_without_a_name_or_an_address_nobody_is_asked(time: VirtualTime, host: str, connected: str) -> None:
    """An address cannot move; a session through a program leads to no address."""
    served = Served(NEW)
    assert await watching(served, time, Journal(), host).moved(connected) == frozenset()
    assert served.asked == 0


# The resolver


async def test_a_name_leads_to_addresses() -> None:
    """By the machine's own resolver; an address leads to itself."""
    assert of("127.0.0.1") <= await resolve("localhost") <= of("127.0.0.1", "::1")
    assert await resolve("::ffff:127.0.0.1") == of("127.0.0.1")


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_AGAIN, "again"), UnicodeError("too long"), TimeoutError()]
)
async def test_a_name_server_that_fails_gives_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """It is down, silent, or was asked for something that is no name."""

    async def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fails)
    assert await resolve("relay.example.net") == of()
