"""Notices that the network changed, or that this machine slept: reasons to ask the relay at once.

The kernel says that something changed; whether it concerns us is decided by looking at the routes (net/routes.py). So
interfaces that come and go elsewhere are no news, nor is a network that is only lost: nothing can be done about it,
and the session finds out for itself. One that comes back is, with the same address as well.
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
from tunneld.net.routes import Signature, signature


class Change(Enum):
    NETWORK = "network"  # another way out, or the same again after it was gone
    RESUME = "resume"  # this process, or the machine, stood still for a while


# Seconds. Changes come in bursts (address, routes, rules); after this silence one is over, and a long one is looked at
# in between.
QUIET: Final = 0.2
LONGEST_BURST: Final = 1.0

# Seconds between two looks without a reason: where the kernel tells us nothing, and in case that it forgot.
POLL: Final = 5.0
SLOW_POLL: Final = 30.0

# Seconds between two looks at the clocks (core/sleep_watch.py).
TICK: Final = 1.0


def monotonic() -> float:
    """Seconds that stand still in suspend. time.monotonic() promises no particular clock."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds that go on in suspend. Neither clock is ever set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WaysOut:
    """Remembers the ways out, and tells what is worth acting on."""

    def __init__(self, before: Signature) -> None:
        self._before = before
        self._interrupted = False

    def lost(self, news: Iterable[Gone]) -> None:
        """Something is no more; if our way led over it, then its coming back counts, however fast."""
        routes = [route for route in self._before.values() if route]
        if any(gone.was_part_of(route) for gone in news for route in routes):
            self._interrupted = True

    def differ(self, now: Signature) -> bool:
        """Whether there is a way out that is new. Targets that were not asked for before say nothing yet."""
        before, self._before = self._before, now
        changed = self._interrupted or any(before[target] != now[target] for target in before.keys() & now.keys())
        if not any(now.values()):
            return False
        self._interrupted = False
        return changed


class NetworkWatch:
    """Calls `changed` for each change, until run() is cancelled.

    `toward` gives addresses beside "anywhere" whose routes matter: the relays', where they are known.
    """

    def __init__(
        self,
        changed: Callable[[Change], None],
        *,
        toward: Callable[[], Iterable[str]] = tuple,
        look: Callable[[Iterable[str]], Signature] = signature,
        listen: Callable[[], NetworkNews] = KernelNews,
        clock: Callable[[], float] = monotonic,
        boottime: Callable[[], float] = boottime,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`look` raises OSError for "not known now", `listen` for "never"; `clock`, `boottime`, `sleep` in seconds."""
        self._changed = changed
        self._toward = toward
        self._look = look
        self._listen = listen
        self._clock = clock
        self._boottime = boottime
        self._sleep = sleep
        self._ways = WaysOut({})
        self.polls = True  # nobody tells us anything: we look every few seconds

    async def run(self) -> None:
        """Until cancelled."""
        with contextlib.ExitStack() as opened:
            news = self._opened(opened)
            self._ways = WaysOut(self._seen() or {})
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
        """The one timer: for the clocks, and for the looks without a reason."""
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
        """Returns if the news end."""
        while await self._burst(news):
            self._compare()
        self.polls = True

    async def _burst(self, news: NetworkNews) -> bool:
        """Wait for the next change and whatever comes with it. False: there will be none."""
        await news.wait()
        ends = self._clock() + LONGEST_BURST
        try:
            while (lost := news.read()) is not None:
                self._ways.lost(lost)
                if self._clock() >= ends:
                    break
                await self._sleep(QUIET)
        except OSError:
            return False
        return True

    def _compare(self) -> None:
        now = self._seen()
        if now is not None and self._ways.differ(now):
            self._changed(Change.NETWORK)

    def _seen(self) -> Signature | None:
        """None when it cannot be known, which is no news."""
        try:
            return self._look(self._toward())
        except OSError:
            return None
