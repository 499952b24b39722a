"""One session: the attempt that is retried. Dial, open every forward, hear an answer, live, give everything back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import asyncssh
from structlog.typing import FilteringBoundLogger

from tunneld.core.backoff import Limits
from tunneld.forwards import Forwards, waiting
from tunneld.log import Repeats
from tunneld.profile import Forward, Profile
from tunneld.ssh.alive import hear_from
from tunneld.ssh.client import why_ended
from tunneld.ssh.dial import dial
from tunneld.ssh.failure import SessionError
from tunneld.status import ForwardStatus
from tunneld.timing import Timing

# Seconds for a clean close. A relay that still answers takes a few milliseconds; one that does not is left to find out.
CLOSE_TIME = 3.0

# Seconds without a fault until what was not logged is summed up, and the next fault is news again. Longer than any
# backoff: a link that flaps every minute is one piece of news, not sixty an hour.
CALM = 600.0

Companion = Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, None]]


def limits(profile: Profile) -> Limits:
    backoff = profile.backoff
    return Limits(initial=backoff.initial, maximum=backoff.maximum, stable_after=backoff.stable_after)


class Session:
    """Runs once. `companion` lives beside the forwards for as long as the connection does (the shim, or a holder)."""

    def __init__(
        self,
        profile: Profile,
        *,
        companion: Companion,
        timing: Timing,
        log: FilteringBoundLogger,
        repeats: Repeats,
    ) -> None:
        self._profile = profile
        self._companion = companion
        self._timing = timing
        self._log = log
        self._repeats = repeats
        self._forwards: Forwards | None = None
        self._ended = asyncio.Event()
        self._error: SessionError | None = None
        self._leave_now: asyncio.TimerHandle | None = None

    async def run(self, *, established: Callable[[], None], stable: Callable[[], None]) -> NoReturn:
        """Until the session ends; then everything it had open is closed, also when it is cancelled.

        `established` is called once it is up, `stable` after it has lived CALM seconds (or `stable_after`, if longer).

        Raises:
            SessionError: why it never came up, or why it ended.
        """
        connection = await dial(self._profile.relay, self._profile.keepalive)
        try:
            await self._open(connection)
            established()
            raise await self._live(connection, stable)
        finally:
            await self._close(connection)

    async def change(self, wanted: tuple[Forward, ...]) -> None:
        """Have these forwards instead; those in both lists are not touched. Ends the session if one is refused."""
        if self._forwards is None:
            return
        try:
            await self._forwards.change(wanted)
        except SessionError as error:
            self._end(error)

    def forwards(self) -> tuple[ForwardStatus, ...]:
        if self._forwards is None:
            return tuple(map(waiting, self._profile.forward))
        return self._forwards.status()

    async def _open(self, connection: asyncssh.SSHClientConnection) -> None:
        self._forwards = Forwards(
            connection,
            self._profile.forward,
            limits=limits(self._profile),
            timing=self._timing,
            log=self._log,
            repeats=self._repeats,
        )
        await self._forwards.open()
        if not self._forwards.answered:
            await hear_from(connection)

    async def _live(self, connection: asyncssh.SSHClientConnection, stable: Callable[[], None]) -> SessionError:
        """Until the connection or a required forward is gone; the reason."""
        assert self._forwards is not None
        async with asyncio.TaskGroup() as beside:
            tasks = [
                beside.create_task(self._watch(connection)),
                beside.create_task(self._forwards.retry()),
                beside.create_task(self._companion(connection)),
                beside.create_task(self._settle(stable)),
            ]
            try:
                await self._ended.wait()
            finally:
                self._hurry(connection)
                for task in tasks:
                    task.cancel()
        assert self._error is not None
        return self._error

    async def _watch(self, connection: asyncssh.SSHClientConnection) -> None:
        await connection.wait_closed()
        self._end(why_ended(connection))

    async def _settle(self, stable: Callable[[], None]) -> None:
        await self._timing.sleep(max(CALM, self._profile.backoff.stable_after))
        stable()

    def _end(self, error: SessionError) -> None:
        self._error = self._error or error
        self._ended.set()

    async def _close(self, connection: asyncssh.SSHClientConnection) -> None:
        """Give the relay its ports back and leave."""
        self._hurry(connection)
        try:
            if self._forwards is not None:
                await self._forwards.close()
            connection.close()
            await connection.wait_closed()
        finally:
            connection.abort()
            if self._leave_now is not None:
                self._leave_now.cancel()

    def _hurry(self, connection: asyncssh.SSHClientConnection) -> None:
        """From now on, a relay that does not answer is waited for no longer than CLOSE_TIME."""
        if self._leave_now is None:
            self._leave_now = asyncio.get_running_loop().call_later(CLOSE_TIME, connection.abort)
