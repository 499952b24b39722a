"""Ending a wait early from outside its task, without ending the task: for stop(), apply() and news."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


class Interruptible:
    """One wait at a time. asyncio.timeout() tells our own cancellation of that wait from anybody else's."""

    def __init__(self) -> None:
        self._limit: asyncio.Timeout | None = None

    async def wait_for(self, work: Awaitable[object]) -> None:
        """Await `work`. If interrupted, `work` is cancelled, and this returns once it has ended."""
        limit = self._limit = asyncio.timeout(None)
        try:
            async with limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._limit = None

    async def wait(self) -> None:
        """Wait until interrupted, or for ever."""
        await self.wait_for(asyncio.Event().wait())

    def interrupt(self, after: float = 0.0) -> None:
        """End the wait that is under way, if there is one, in `after` seconds of the event loop's clock."""
        if self._limit is not None and self._limit.when() is None:
            self._limit.reschedule(asyncio.get_running_loop().time() + after)
