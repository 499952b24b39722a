"""Time that moves when a test says so, and a log that a test waits on."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger


class VirtualTime:
    """`clock` and `sleep` for a tunnel. A sleeper wakes when a test calls `advance`; a sleep of 0 s ends by itself."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[float] = []  # the length of every sleep so far, in seconds
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
            asyncio.get_running_loop().call_soon(_wake, sleeper[1])  # other tasks run first, as with asyncio.sleep(0)
        try:
            await sleeper[1]
        finally:
            self._sleepers.remove(sleeper)

    @property
    def sleepers(self) -> int:
        return len(self._sleepers)

    async def slept_on(self, sleepers: int) -> None:
        """Wait until at least so many tasks sleep."""
        async with asyncio.timeout(20):
            while len(self._sleepers) < sleepers:
                self._more.clear()
                await self._more.wait()

    def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds`, and wake each task whose sleep is over."""
        self.now += seconds
        for due, waking in self._sleepers:
            if due <= self.now + 1e-9:
                _wake(waking)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class Journal:
    """Keeps every event of its own logger, and remembers for each question (see `says`) how far a test has read."""

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
        """Wait for an event with this name and these values; each call with the same arguments finds a later event."""
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
        """The names of all events so far; those of level debug only with `debug`."""
        return [str(event["event"]) for event in self.events if debug or event["level"] != "debug"]
