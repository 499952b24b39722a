"""Dialling a second session beside one that lives: patiently, since the first may still be the better one."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator

import asyncssh

from tunneld.core.backoff import Backoff, Limits
from tunneld.interrupt import Interruptible
from tunneld.ssh.failure import SessionError
from tunneld.timing import Timing

Dial = Callable[[float], Awaitable[asyncssh.SSHClientConnection]]


class Beside:
    """`dial` makes a connection, given for how many seconds the relay has been out of reach."""

    def __init__(self, dial: Dial, *, limits: Limits, timing: Timing) -> None:
        self._dial = dial
        self._limits = limits
        self._timing = timing
        self._waits: set[Interruptible] = set()  # each for a dial, or until the next

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

        with self._nudgeable() as wait:
            while not done:
                dialled = self._timing.clock()
                try:
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
                    await wait.wait_for(self._timing.sleep(pause))

    def nudge(self) -> None:
        """The network is another one now: what was sent the old way will not be answered."""
        for wait in self._waits:
            wait.interrupt()

    @contextlib.contextmanager
    def _nudgeable(self) -> Iterator[Interruptible]:
        wait = Interruptible()
        self._waits.add(wait)
        try:
            yield wait
        finally:
            self._waits.discard(wait)
