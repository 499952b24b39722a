"""Notices that the network changed, or that this machine slept: reasons to ask the relay for a sign of life at once.

The kernel reports that something changed, and a look at the routes (net/routes.py) decides whether that concerns us.
Interfaces that come and go elsewhere do not. A network that is lost does not either: nothing can be done about it, and
the session notices by itself. A network that comes back does, even with the same address.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import Final

from tunneld.core.sleep_watch import SleepWatch
from tunneld.net.kernel_news import KernelNews, NetworkNews
from tunneld.net.netlink import Gone
from tunneld.net.routes import Routes, current_routes


class Change(Enum):
    NETWORK = "network"  # there is another route, or the same again after it was gone
    RESUME = "resume"  # the machine was suspended, or this process stopped


# Seconds. Reports come in bursts (address, routes, rules). A burst is over after BURST_SILENCE without a report; one
# that lasts for LONGEST_BURST is interrupted for a look at the routes.
BURST_SILENCE: Final = 0.2
LONGEST_BURST: Final = 1.0

# Seconds between two looks at the routes without a report: where the kernel sends no reports, and where it does but
# may have dropped some.
POLL: Final = 5.0
SLOW_POLL: Final = 30.0

# Seconds between two looks at the clocks (core/sleep_watch.py).
TICK: Final = 1.0


def monotonic() -> float:
    """Seconds on a clock that stands still during a suspend. time.monotonic() does not promise which clock it reads."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds on a clock that goes on during a suspend. Nobody can set either clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WaysOut:
    """Remembers the routes out of this machine, and decides which change is worth acting on."""

    def __init__(self, before: Routes) -> None:
        self._before = before
        self._interrupted = False  # a route of ours was gone meanwhile

    def lost(self, gone: Iterable[Gone]) -> None:
        """Note what is gone. Where a route of ours led over it, its return counts as a change, however fast it is."""
        routes = [route for route in self._before.values() if route]
        if any(each.was_part_of(route) for each in gone for route in routes):
            self._interrupted = True

    def differ(self, now: Routes) -> bool:
        """Whether to act: a route changed, or was gone, since the last call, and there is some route now.

        A target that was not looked up before does not count yet.
        """
        before, self._before = self._before, now
        changed = self._interrupted or any(before[target] != now[target] for target in before.keys() & now.keys())
        if not any(now.values()):
            return False
        self._interrupted = False
        return changed


class NetworkWatch:
    """Calls `changed` for each change, until run() is cancelled.

    `toward` returns addresses whose routes matter beside those to the Internet: the relays' addresses, once known.
    """

    def __init__(
        self,
        changed: Callable[[Change], None],
        *,
        toward: Callable[[], Iterable[str]] = tuple,
        look: Callable[[Iterable[str]], Routes] = current_routes,
        listen: Callable[[], NetworkNews] = KernelNews,
        clock: Callable[[], float] = monotonic,
        boottime: Callable[[], float] = boottime,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """
        Args:
            look: the routes now, to the Internet and to some addresses; OSError where they cannot be known now.
            listen: opens the source of reports; OSError where there is none.
            clock: seconds, standing still during a suspend; `boottime`: seconds, going on meanwhile.
            sleep: waits for so many seconds.
        """
        self._changed = changed
        self._toward = toward
        self._look = look
        self._listen = listen
        self._clock = clock
        self._boottime = boottime
        self._sleep = sleep
        self._routes = WaysOut({})
        self.polls = True  # there are no reports, so we look at the routes every few seconds

    async def run(self) -> None:
        """Watch until cancelled."""
        with contextlib.ExitStack() as opened:
            news = self._opened(opened)
            self._routes = WaysOut(self._seen() or {})
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_clocks())
                if news:
                    tasks.create_task(self._watch_network(news))

    def _opened(self, opened: contextlib.ExitStack) -> NetworkNews | None:
        try:
            news = opened.enter_context(contextlib.closing(self._listen()))
        except OSError:
            return None
        self.polls = False
        return news

    async def _watch_clocks(self) -> None:
        """The one timer: it reads the clocks, and looks at the routes now and then without a report."""
        sleeps = SleepWatch(TICK, self._clock(), self._asleep())
        looked = self._clock()
        while True:
            await self._sleep(TICK)
            missed_time = sleeps.missed_time(self._clock(), self._asleep())
            if missed_time:
                self._changed(Change.RESUME)
            if missed_time or self._clock() - looked >= (POLL if self.polls else SLOW_POLL):
                looked = self._clock()
                self._compare()

    def _asleep(self) -> float:
        """Seconds, of any origin, for which the machine was suspended."""
        return self._boottime() - self._clock()

    async def _watch_network(self, news: NetworkNews) -> None:
        """Look at the routes after each burst of reports; return when there will be no more reports."""
        while await self._burst(news):
            self._compare()
        self.polls = True

    async def _burst(self, news: NetworkNews) -> bool:
        """Wait for the next report, and until its burst is over. False: there will be no more reports."""
        await news.wait()
        ends = self._clock() + LONGEST_BURST
        try:
            while (lost := news.read()) is not None:
                self._routes.lost(lost)
                if self._clock() >= ends:
                    break
                await self._sleep(BURST_SILENCE)
        except OSError:
            return False
        return True

    def _compare(self) -> None:
        now = self._seen()
        if now is not None and self._routes.differ(now):
            self._changed(Change.NETWORK)

    def _seen(self) -> Routes | None:
        """The routes now; None where they cannot be known, which is no reason to act."""
        try:
            return self._look(self._toward())
        except OSError:
            return None
