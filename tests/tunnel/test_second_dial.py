"""The dial beside a session that lives: what a changed network speeds up, and what it does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.virtual import Journal, VirtualTime
from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.failure import SessionError
from tunneld.tunnel import second_dial as module
from tunneld.tunnel.context import TunnelContext
from tunneld.tunnel.second_dial import SecondDial
from tunneld.tunnel.timing import Timing


class Relay:
    """A relay that never answers a dial, unless it `answers`; with a `failure`, each dial ends with that."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.answers = False
        self.outages: list[float] = []  # as they were told with each dial
        self.dials = 0
        self.dialled = asyncio.Event()

    async def dial(self, outage: float) -> Any:
        self.dials += 1
        self.outages.append(outage)
        self.dialled.set()
        if self.failure is not None:
            raise SessionError(self.failure, "no")
        if not self.answers:
            await asyncio.Event().wait()
        return self

    async def dialled_again(self) -> None:
        self.dialled.clear()
        async with asyncio.timeout(10):
            await self.dialled.wait()


@pytest.fixture
def relay() -> Relay:
    return Relay()


@pytest.fixture
def second_dial(relay: Relay, journal: Journal, time: VirtualTime) -> SecondDial:
    timing = Timing(time.clock, time.sleep, lambda: 0.5)
    return SecondDial(relay.dial, TunnelContext(journal.log, timing=timing))


@contextlib.asynccontextmanager
async def connecting(second_dial: SecondDial) -> AsyncIterator[None]:
    """While a second session is wanted."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(second_dial.connect(0.0, lambda connection: None))
        try:
            yield
        finally:
            task.cancel()


async def turns() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_dial_is_started_anew_when_the_network_changes(
    second_dial: SecondDial, relay: Relay, time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dial that has just begun is given a moment: changes come in rows, and the relay counts logins that are cut."""
    monkeypatch.setattr(module, "SHORTEST_DIAL", 0.05)
    async with connecting(second_dial):
        await relay.dialled_again()
        second_dial.nudge()
        second_dial.nudge()
        await turns()
        assert relay.dials == 1
        await relay.dialled_again()
        assert relay.dials == 2
        time.advance(1)
        second_dial.nudge()
        await turns()
        assert relay.dials == 3


@pytest.mark.parametrize("failure", [each for each in Failure if each.rule.is_cheap])
async def test_a_changed_network_ends_a_wait_that_costs_the_relay_nothing(
    second_dial: SecondDial, relay: Relay, journal: Journal, time: VirtualTime, failure: Failure
) -> None:
    """The link may be back."""
    relay.failure = failure
    async with connecting(second_dial):
        await time.slept_on(1)
        second_dial.nudge()
        await relay.dialled_again()
        assert time.now == 1000


@pytest.mark.parametrize("failure", [each for each in Failure if not each.rule.is_cheap])
async def test_a_relay_that_turns_us_away_is_not_hammered(
    second_dial: SecondDial, relay: Relay, journal: Journal, time: VirtualTime, failure: Failure
) -> None:
    """Neither a changed network nor the next doubt about the first session ends the wait."""
    relay.failure = failure
    async with connecting(second_dial):
        await time.slept_on(1)
        second_dial.nudge()
        await turns()
        assert relay.dials == 1
    told = await journal.says("second_dial_failed")
    async with connecting(second_dial):
        await time.slept_on(1)
        second_dial.nudge()
        await turns()
        assert relay.dials == 1
        time.advance(told["retry_in"])
        await relay.dialled_again()
        assert relay.dials == 2


async def test_a_connection_is_handed_over_once(
    second_dial: SecondDial, relay: Relay, journal: Journal, time: VirtualTime
) -> None:
    """Then there is nothing left to dial for. Each dial was told for how long nothing has answered."""
    connections: list[Any] = []
    relay.failure = Failure.NETWORK
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(second_dial.connect(5.0, connections.append))
        await time.slept_on(1)
        relay.failure, relay.answers = None, True
        wait = (await journal.says("second_dial_failed"))["retry_in"]
        time.advance(wait)
    assert connections == [relay]
    assert wait == pytest.approx(0.75)  # halfway from the floor to the first envelope
    assert relay.outages == pytest.approx([5, 5 + wait])


async def test_why_there_is_no_second_session_is_told(second_dial: SecondDial, relay: Relay, journal: Journal) -> None:
    """No status says so while the first session lives, so the log does, the first time."""
    relay.failure = Failure.HOST_KEY
    async with connecting(second_dial):
        told = await journal.says("second_dial_failed")
    assert (told["failure"], told["reason"], told["level"]) == ("host key", "no", "info")
