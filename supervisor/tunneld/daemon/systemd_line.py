"""What the daemon tells systemd while it runs: that its event loop turns, and in one line how the tunnels are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from tunneld.systemd.notify import NotifySocket

# Seconds between two lines when nothing happens. The durations in a line become old.
LINE_INTERVAL = 10.0

# Seconds from a change to one more line: what a session brings with it (mosh, an optional forward) comes a bit later.
SECOND_LINE_DELAY = 1.0


class SystemdLine:
    """Sends the line that `say` returns, and signs of life for systemd's watchdog.

    It runs in the event loop that moves the tunnels' bytes. So if that loop hangs, the signs of life end.
    """

    def __init__(self, notify: NotifySocket, say: Callable[[], str]) -> None:
        self._notify = notify
        self._say = say
        self._news = asyncio.Event()

    def moved(self) -> None:
        """Something has changed: send a line now."""
        self._news.set()

    async def run(self) -> None:
        """Send lines until cancelled. Return at once where systemd does not listen."""
        if not self._notify.is_heard:
            return
        # At least twice in the time that systemd waits, as sd_watchdog_enabled(3) advises.
        interval = min(LINE_INTERVAL, self._notify.watchdog / 2) if self._notify.watchdog else LINE_INTERVAL
        while True:
            news = self._news.is_set()
            self._news.clear()
            self._notify.status(self._say())
            self._notify.alive()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(interval, SECOND_LINE_DELAY) if news else interval):
                    await self._news.wait()
