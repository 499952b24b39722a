"""The log of a tunnel, as the demo reads it: event by event, as the tunnel writes them.

Tested in tests/cli/test_demo.py.
"""

from __future__ import annotations

import asyncio

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger


class Events:
    """Give `log` to a tunnel, and read its events with `next`, those of the level `debug` included."""

    def __init__(self) -> None:
        self._unread: asyncio.Queue[tuple[float, EventDict]] = asyncio.Queue()
        self.log: FilteringBoundLogger = structlog.wrap_logger(
            None, processors=[self._keep], wrapper_class=structlog.make_filtering_bound_logger(0)
        )

    async def next(self) -> tuple[float, EventDict]:
        """The next event, and when it happened, in seconds of the event loop's clock."""
        return await self._unread.get()

    def _keep(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        self._unread.put_nowait((asyncio.get_running_loop().time(), {**event, "level": level}))
        raise structlog.DropEvent
