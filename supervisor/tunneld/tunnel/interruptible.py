"""Ending an await early from outside its task, without ending the task: for stop() and apply()."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


class Interruptible:
    """One await at a time. It is built on asyncio.timeout(), which tells our own cancellation from anybody else's."""

    def __init__(self) -> None:
        self._limit: asyncio.Timeout | None = None

    async def wait_for(self, work: Awaitable[None]) -> None:
        """Await `work`; if interrupted, it is cancelled, and this returns once it has ended."""
        limit = self._limit = asyncio.timeout(None)
        try:
            async with limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._limit = None

    def interrupt(self, after: float = 0.0) -> None:
        """End the await that is under way, if there is one, `after` so many seconds at most."""
        if self._limit is not None and self._limit.when() is None:
            self._limit.reschedule(asyncio.get_running_loop().time() + after)
