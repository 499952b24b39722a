"""What the daemon tells systemd while it runs: that its loop turns, and in one line how the tunnels are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from tunneld.systemd.notify import NotifySocket

# Seconds between two lines when nothing happens: durations and delays in them age.
BEAT = 10.0

# Seconds from a change to the next line: what a session brings with it (mosh, an optional forward) follows it soon.
SETTLING = 1.0


class SystemdLine:
    """`say` gives the line. It runs in the loop that moves the tunnels' bytes, so a loop that hangs gives no sign."""

    def __init__(self, notify: NotifySocket, say: Callable[[], str]) -> None:
        self._notify = notify
        self._say = say
        self._news = asyncio.Event()

    def moved(self) -> None:
        """Something changed: tell it now."""
        self._news.set()

    async def run(self) -> None:
        if not self._notify.is_heard:
            return
        # Half of the time that systemd waits, as sd_watchdog_enabled(3) advises.
        beat = min(BEAT, self._notify.watchdog / 2) if self._notify.watchdog else BEAT
        while True:
            news = self._news.is_set()
            self._news.clear()
            self._notify.status(self._say())
            self._notify.alive()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(beat, SETTLING) if news else beat):
                    await self._news.wait()
