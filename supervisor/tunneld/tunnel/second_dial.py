"""Dialling a second session beside one that lives: patiently, since the first may still be the better one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator

import asyncssh
from structlog.typing import FilteringBoundLogger

from tunneld.core.supervise.backoff import CHEAP, Backoff, Limits
from tunneld.ssh.connect.failure import SessionError
from tunneld.tunnel.interruptible import Interruptible
from tunneld.tunnel.repeats import Repeats
from tunneld.tunnel.timing import Timing

# Seconds that a dial is given when the network changes once more: changes come in rows.
SHORTEST_DIAL = 1.0

Dial = Callable[[float], Awaitable[asyncssh.SSHClientConnection]]


class SecondDial:
    """`dial` makes a connection, given for how many seconds the relay has been out of reach."""

    def __init__(
        self, dial: Dial, *, limits: Limits, timing: Timing, log: FilteringBoundLogger, repeats: Repeats
    ) -> None:
        self._dial = dial
        self._limits = limits
        self._timing = timing
        self._log = log
        self._repeats = repeats
        self._not_before = -math.inf  # the relay has turned us away, and would count another attempt
        self._waits: dict[Interruptible, float] = {}  # each for a dial or the next, and from when on it may be ended

    async def connect(self, silence: float, connected: Callable[[asyncssh.SSHClientConnection], None]) -> None:
        """Dial, with the backoff that fits, until there is a connection, and hand it over.

        `silence` is for how many seconds the first session has not answered. When this is cancelled, no connection is
        left behind.
        """
        backoff, began = Backoff(self._limits), self._timing.clock() - silence
        done = False

        async def dial_once(outage: float) -> None:
            nonlocal done
            connected(await self._dial(outage))
            done = True

        while not done:
            if (penance := self._not_before - self._timing.clock()) > 0:
                await self._timing.sleep(penance)
            dialled = self._timing.clock()
            try:
                with self._nudgeable(dialled + SHORTEST_DIAL) as wait:
                    await wait.wait_for(dial_once(dialled - began))
            except SessionError as error:
                now = self._timing.clock()
                pause = backoff.wait(
                    error.failure,
                    lived=None,
                    spent=now - dialled,
                    outage=now - began,
                    now=now,
                    chance=self._timing.chance(),
                )
                await self._pause(error, pause)

    def nudge(self) -> None:
        """The network is another one now: what was sent the old way will not be answered."""
        for wait, due in self._waits.items():
            wait.interrupt(max(0.0, due - self._timing.clock()))

    async def _pause(self, error: SessionError, seconds: float) -> None:
        """Until the next dial. A changed network ends it only where an attempt costs the relay nothing."""
        times = self._repeats.count(("second_dial_failed", error.failure, str(error)))
        say = self._log.info if times else self._log.debug
        say("second_dial_failed", failure=error.failure.value, reason=str(error), retry_in=seconds, times=times)
        if error.failure not in CHEAP:
            self._not_before = self._timing.clock() + seconds
            return
        with self._nudgeable() as wait:
            await wait.wait_for(self._timing.sleep(seconds))

    @contextlib.contextmanager
    def _nudgeable(self, due: float = -math.inf) -> Iterator[Interruptible]:
        wait = Interruptible()
        self._waits[wait] = due
        try:
            yield wait
        finally:
            del self._waits[wait]
