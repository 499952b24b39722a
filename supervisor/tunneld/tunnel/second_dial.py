"""Dialling a second session beside the first, which lives and may still turn out to be the better one."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import asyncssh

from tunneld.core.supervise.backoff import Backoff
from tunneld.ssh.connect.failure import SessionError
from tunneld.tunnel.context import TunnelContext
from tunneld.tunnel.interruptible import Interruptible

# Seconds. A dial that is younger goes on when the network changes again: such changes come several at a time.
SHORTEST_DIAL = 1.0

DialSecond = Callable[[float], Awaitable[asyncssh.SSHClientConnection]]


class SecondDial:
    """Makes second connections with `dial`, which is given for how many seconds the relay has been out of reach."""

    def __init__(self, dial: DialSecond, context: TunnelContext) -> None:
        self._dial = dial
        self._context = context
        self._not_before = -math.inf  # the relay has turned us away, and would count an attempt before this time
        self._nudgeable: dict[Interruptible, float] = {}  # dials and pauses, each with the time from which it may end

    async def connect(self, silence: float, connected: Callable[[asyncssh.SSHClientConnection], None]) -> None:
        """Dial, with the backoff that fits, until there is a connection, and hand it over.

        When this is cancelled, no connection is left behind.

        Args:
            silence: seconds for which the first session has not answered.
            connected: takes the connection, and owns it from then on.
        """
        timing = self._context.timing
        backoff, began = Backoff(self._context.limits), timing.clock() - silence
        done = False

        async def dial_once(outage: float) -> None:
            nonlocal done
            connected(await self._dial(outage))
            done = True

        while not done:
            if (left := self._not_before - timing.clock()) > 0:
                await timing.sleep(left)
            dialled = timing.clock()
            try:
                await self._until_nudged(dial_once(dialled - began), not_before=dialled + SHORTEST_DIAL)
            except SessionError as error:
                now = timing.clock()
                spent, outage = now - dialled, now - began
                pause = backoff.wait(
                    error.failure, lived=None, spent=spent, outage=outage, now=now, chance=timing.chance()
                )
                await self._pause(error, pause)

    def nudge(self) -> None:
        """The network is another one now: what was sent the old way will not be answered."""
        now = self._context.timing.clock()
        for work, not_before in self._nudgeable.items():
            work.interrupt(max(0.0, not_before - now))

    async def _pause(self, error: SessionError, seconds: float) -> None:
        """Wait for the next dial. A changed network ends the wait only where an attempt costs the relay nothing."""
        failure, reason, timing = error.failure, str(error), self._context.timing
        key = ("second_dial_failed", failure, reason)
        self._context.tell(
            "info", "second_dial_failed", key=key, failure=failure.value, reason=reason, retry_in=seconds
        )
        if failure.rule.is_cheap:
            await self._until_nudged(timing.sleep(seconds))
        else:
            self._not_before = timing.clock() + seconds

    async def _until_nudged(self, work: Awaitable[None], *, not_before: float = -math.inf) -> None:
        """Await `work`, which a nudge ends, but for a nudge `not_before` this time."""
        interruptible = Interruptible()
        self._nudgeable[interruptible] = not_before
        try:
            await interruptible.wait_for(work)
        finally:
            del self._nudgeable[interruptible]
