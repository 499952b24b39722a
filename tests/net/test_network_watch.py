"""When the watch calls for a change. The kernel's reports and both clocks are the test's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from tests.virtual import VirtualTime
from tunneld.net.netlink import Gone, KernelRoute
from tunneld.net.network_watch import Change, NetworkWatch, WaysOut
from tunneld.net.routes import FAR_AWAY, Routes

FOUR, SIX = FAR_AWAY
HOME = KernelRoute(4, b"\xc0\xa8\x01\x01", ip_address("192.168.1.2"))
AWAY = KernelRoute(4, b"\x0a\x00\x00\x01", ip_address("10.0.0.7"))
HOME_6 = KernelRoute(4, b"\xfe\x80" + bytes(13) + b"\x01", ip_address("2001:db8:1::2"))


def routes(four: KernelRoute | None = None, six: KernelRoute | None = None) -> Routes:
    return {FOUR: four, SIX: six}


NOTHING, AT_HOME, OUT, BOTH = routes(), routes(HOME), routes(AWAY), routes(HOME, HOME_6)


# What is worth acting on


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ([AT_HOME, AT_HOME], [False]),
        ([AT_HOME, OUT], [True]),
        ([AT_HOME, NOTHING], [False]),
        ([AT_HOME, NOTHING, AT_HOME], [False, True]),
        ([NOTHING, AT_HOME], [True]),
        ([NOTHING, NOTHING], [False]),
        ([AT_HOME, BOTH], [True]),
        ([BOTH, AT_HOME], [True]),
        ([AT_HOME, OUT, OUT], [True, False]),
    ],
)
def test_a_route_that_is_new_counts(seen: list[Routes], told: list[bool]) -> None:
    """Another route counts, or the same that comes back; a route that is only lost does not."""
    remembered = WaysOut(seen[0])
    assert [remembered.differ(now) for now in seen[1:]] == told


def test_a_route_that_was_gone_between_two_looks_counts() -> None:
    """A cable pulled out and in again leaves everything as it was, and the old flows dead."""
    remembered = WaysOut(AT_HOME)
    remembered.lost([Gone(HOME.interface)])
    assert [remembered.differ(AT_HOME), remembered.differ(AT_HOME)] == [True, False]


def test_what_is_gone_elsewhere_does_not_count() -> None:
    """A container's interface, or another address of this machine."""
    remembered = WaysOut(AT_HOME)
    remembered.lost([Gone(9), Gone(HOME.interface, source=ip_address("192.168.1.77"))])
    assert not remembered.differ(AT_HOME)


def test_a_new_target_does_not_count_yet() -> None:
    """A session came up: from now on the route to its relay is looked at."""
    relay = ip_address("192.0.2.9")
    remembered = WaysOut(AT_HOME)
    assert not remembered.differ({**AT_HOME, relay: HOME})
    assert remembered.differ({**AT_HOME, relay: AWAY})
    assert not remembered.differ(AT_HOME)


# The whole watch


class Told:
    """Reports that a test makes."""

    def __init__(self) -> None:
        self.news: list[list[Gone]] = []
        self.broken = self.closed = False
        self._more = asyncio.Event()

    def say(self, *lost: Gone) -> None:
        self.news.append(list(lost))
        self._more.set()

    def end(self) -> None:
        self.broken = True
        self._more.set()

    async def wait(self) -> None:
        await self._more.wait()

    def read(self) -> list[Gone] | None:
        if self.broken:
            raise OSError(errno.EBADF, "broken")
        self._more.clear()
        told, self.news = self.news, []
        return list(itertools.chain(*told)) if told else None

    def close(self) -> None:
        self.closed = True


@dataclass
class Machine:
    """A machine whose network and sleep are the test's."""

    time: VirtualTime = field(default_factory=VirtualTime)
    told: Told | None = field(default_factory=Told)
    now: Routes = field(default_factory=lambda: AT_HOME)
    knowable: bool = True
    suspended: float = 0.0
    changes: list[Change] = field(default_factory=list)
    looks: int = 0

    def look(self, _: Iterable[str]) -> Routes:
        self.looks += 1
        if not self.knowable:
            raise OSError(errno.EMFILE, "too many open files")
        return self.now

    def listen(self) -> Told:
        if self.told is None:
            raise OSError(errno.EAFNOSUPPORT, "forbidden")
        return self.told

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[NetworkWatch]:
        watch = NetworkWatch(
            self.changes.append,
            look=self.look,
            listen=self.listen,
            clock=self.time.clock,
            boottime=lambda: self.time.now + self.suspended,
            sleep=self.time.sleep,
        )
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(watch.run())
            await self.time.slept_on(1)
            yield watch
            running.cancel()

    async def passes(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass in steps, after each of which every task has its turn."""
        for _ in range(round(seconds / step)):
            self.time.advance(step)
            await turns()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def machine() -> Machine:
    return Machine()


def said(machine: Machine) -> Told:
    assert machine.told is not None
    return machine.told


async def test_a_change_is_told_after_its_burst(machine: Machine) -> None:
    """A new address comes with routes and rules; one change is told, a fifth of a second after the last of them."""
    async with machine.watched():
        machine.now = OUT
        for _ in range(3):
            said(machine).say()
            await turns()
            assert not machine.changes
            await machine.passes(0.1)
        await machine.passes(0.3)
        assert machine.changes == [Change.NETWORK]
        await machine.passes(2)
    assert machine.changes == [Change.NETWORK]


async def test_a_burst_without_an_end_is_looked_at(machine: Machine) -> None:
    """A router whose tables never rest does not keep us from our own change for more than about a second."""
    async with machine.watched():
        machine.now = OUT
        for _ in range(13):
            said(machine).say()
            await turns()
            await machine.passes(0.1)
        assert machine.changes == [Change.NETWORK]
        assert machine.looks <= 3


async def test_a_report_about_others_is_not_told(machine: Machine) -> None:
    """Something changed, and our routes did not."""
    async with machine.watched():
        said(machine).say(Gone(99))
        await machine.passes(2)
    assert not machine.changes


async def test_a_replug_within_a_burst_is_told(machine: Machine) -> None:
    """The look at the routes comes too late and finds nothing new, but the reports tell."""
    async with machine.watched():
        said(machine).say(Gone(HOME.interface))
        await machine.passes(2)
    assert machine.changes == [Change.NETWORK]


async def test_a_missed_change_is_found_by_polling(machine: Machine) -> None:
    """The routes are looked at twice a minute even where the kernel reports."""
    async with machine.watched() as watch:
        assert not watch.polls
        machine.now = OUT
        await machine.passes(29, step=1)
        assert not machine.changes
        await machine.passes(2, step=1)
        assert machine.changes == [Change.NETWORK]


async def test_without_netlink_it_polls() -> None:
    """Every five seconds, in a sandbox that forbids it."""
    machine = Machine(told=None)
    async with machine.watched() as watch:
        assert watch.polls
        machine.now = OUT
        await machine.passes(5, step=1)
        assert machine.changes == [Change.NETWORK]


async def test_without_further_reports_it_polls(machine: Machine) -> None:
    """A socket that breaks ends the reports, never the watch."""
    async with machine.watched() as watch:
        said(machine).end()
        await turns()
        assert watch.polls
        machine.now = OUT
        await machine.passes(5, step=1)
    assert machine.changes == [Change.NETWORK]
    assert said(machine).closed


async def test_routes_that_cannot_be_looked_up_are_no_change(machine: Machine) -> None:
    """Out of descriptors for a while: the routes count neither as gone nor as back."""
    async with machine.watched():
        machine.knowable = False
        said(machine).say()
        await machine.passes(1)
        machine.knowable = True
        said(machine).say()
        await machine.passes(1)
    assert not machine.changes


async def test_a_resume_is_told_once(machine: Machine) -> None:
    """The lid was closed for an hour: CLOCK_BOOTTIME went on, CLOCK_MONOTONIC did not."""
    async with machine.watched():
        await machine.passes(3)
        machine.suspended = 3600.0
        await machine.passes(3)
    assert machine.changes == [Change.RESUME]


async def test_a_stopped_process_has_resumed_too(machine: Machine) -> None:
    """SIGSTOP, or a paused virtual machine: its tick comes late."""
    async with machine.watched():
        await machine.passes(3)
        await machine.passes(60, step=60)
        await machine.passes(3)
    assert machine.changes == [Change.RESUME]


async def test_a_resume_in_another_network_is_both(machine: Machine) -> None:
    """Opened again in another network, before the kernel could report it."""
    async with machine.watched():
        machine.suspended, machine.now = 60.0, OUT
        await machine.passes(1)
    assert machine.changes == [Change.RESUME, Change.NETWORK]


async def test_cancelled_in_the_middle_of_a_burst(machine: Machine) -> None:
    """Nothing is left open, and nobody sleeps on."""
    async with machine.watched():
        said(machine).say()
        await machine.time.slept_on(2)
    assert said(machine).closed
    assert machine.time.sleepers == 0
