"""A tunnel's log, read by a program as it is written."""

from __future__ import annotations

import asyncio

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger


class Events:
    """Give `log` to a tunnel, and read what it does with `next`; debug events included."""

    def __init__(self) -> None:
        self._unread: asyncio.Queue[tuple[float, EventDict]] = asyncio.Queue()
        self.log: FilteringBoundLogger = structlog.wrap_logger(
            None, processors=[self._keep], wrapper_class=structlog.make_filtering_bound_logger(0)
        )

    async def next(self) -> tuple[float, EventDict]:
        """When (on the loop's clock, s) and what."""
        return await self._unread.get()

    def _keep(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        self._unread.put_nowait((asyncio.get_running_loop().time(), {**event, "level": level}))
        raise structlog.DropEvent
