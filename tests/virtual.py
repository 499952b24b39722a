"""Time that moves when a test says so, and a log that a test waits on."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger


class VirtualTime:
    """`clock` and `sleep` for a tunnel. Nobody wakes before `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[float] = []  # every sleep, in seconds
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._more = asyncio.Event()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        sleeper = (self.now + seconds, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        self._more.set()
        if seconds <= 0:
            asyncio.get_running_loop().call_soon(_wake, sleeper[1])  # others have a turn, as with asyncio.sleep(0)
        try:
            await sleeper[1]
        finally:
            self._sleepers.remove(sleeper)

    @property
    def sleepers(self) -> int:
        return len(self._sleepers)

    async def slept_on(self, sleepers: int) -> None:
        """Wait until so many sleep."""
        async with asyncio.timeout(20):
            while len(self._sleepers) < sleepers:
                self._more.clear()
                await self._more.wait()

    def advance(self, seconds: float) -> None:
        """Let this time pass, and wake whoever is due."""
        self.now += seconds
        for due, waking in self._sleepers:
            if due <= self.now + 1e-9:
                _wake(waking)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class Journal:
    """Every event of a logger of its own, and how far a test has read, for each question that it asks."""

    def __init__(self) -> None:
        self.events: list[EventDict] = []
        self._read: dict[tuple[str, str], int] = {}
        self._more = asyncio.Event()
        self.log: FilteringBoundLogger = structlog.wrap_logger(
            None, processors=[self._keep], wrapper_class=structlog.make_filtering_bound_logger(0)
        )

    def _keep(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        self.events.append({**event, "level": level})
        self._more.set()
        raise structlog.DropEvent

    async def says(self, name: str, **about: Any) -> EventDict:
        """Wait for the next event of this name with these values, after the one that the same question found last."""
        question = (name, repr(sorted(about.items())))
        async with asyncio.timeout(20):
            while True:
                for place in range(self._read.get(question, 0), len(self.events)):
                    event = self.events[place]
                    if event["event"] == name and about.items() <= event.items():
                        self._read[question] = place + 1
                        return event
                self._more.clear()
                await self._more.wait()

    def names(self, *, debug: bool = False) -> list[str]:
        """The events' names so far; those without a line of their own only on request."""
        return [str(event["event"]) for event in self.events if debug or event["level"] != "debug"]
