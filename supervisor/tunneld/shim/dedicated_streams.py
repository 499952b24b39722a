"""The dedicated streams: two further SSH connections that carry datagrams and nothing else, while there are flows.

With them neither a bulk copy through a forward nor one lost segment delays a keystroke.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncssh
from structlog.typing import FilteringBoundLogger

from tunneld.core.stream.endpoint import Outlet
from tunneld.core.supervise.backoff import Limits, floor
from tunneld.shim.agent_streams import AgentError, AgentStreams
from tunneld.shipped import pack
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.remote.remote import RemoteProgram

DEDICATED_STREAMS = ("stream-1", "stream-2")

STREAM_CHECK_INTERVAL = 0.5
"""Seconds between two looks at the streams while there are flows: the granularity of the timeouts below."""

STALLED_AFTER = 3.0
"""Seconds without an answer after which a dedicated stream is opened anew, if another stream was heard meanwhile."""

UNUSED_AFTER = 60.0
"""Seconds without a flow after which the dedicated streams are closed."""

FIRST_STREAM_PAUSE = 1.0
MAX_STREAM_PAUSE = 60.0
"""Seconds between two attempts to open a dedicated stream: the pause doubles with each failure. A stream that held for
longer than MAX_STREAM_PAUSE begins with the first pause again."""

Dial = Callable[[], Awaitable[asyncssh.SSHClientConnection]]


class DedicatedStreams:
    """Opens the dedicated streams when there are flows, opens them anew when they fail, and closes them when unused."""

    def __init__(
        self, streams: AgentStreams, outlet: Outlet, *, dial: Dial, limits: Limits, log: FilteringBoundLogger
    ) -> None:
        """`dial` opens one more SSH connection to the relay; `limits` are the profile's [backoff]."""
        self._streams = streams
        self._outlet = outlet
        self._dial = dial
        self._limits = limits
        self._log = log
        self._now = asyncio.get_running_loop().time
        self._last_flow = self._now() - UNUSED_AFTER
        self._wanted = asyncio.Event()

    @property
    def are_wanted(self) -> bool:
        return self._wanted.is_set()

    def want(self) -> None:
        """A flow has a datagram: open the streams if they are not open."""
        self._wanted.set()

    def check(self) -> None:
        """Close the streams when there has been no flow for UNUSED_AFTER; to be called from time to time."""
        if len(self._outlet.flows):
            self._last_flow = self._now()
        elif self._now() - self._last_flow >= UNUSED_AFTER:
            self._wanted.clear()

    async def keep(self, join: str) -> None:
        """Keep the streams open while they are wanted, until cancelled; `join` is where they find the agent."""
        async with asyncio.TaskGroup() as group:
            for name in DEDICATED_STREAMS:
                group.create_task(self._keep_one(name, pack.join_program(join, name)))

    async def _keep_one(self, name: str, program: bytes) -> None:
        pause, logged = FIRST_STREAM_PAUSE, ""
        while True:
            await self._wanted.wait()
            opened, error = self._now(), None
            try:
                await self._hold(name, program)
            except (SessionError, AgentError, asyncssh.Error) as failed:
                error = failed
            if self._now() - opened > MAX_STREAM_PAUSE:
                pause, logged = FIRST_STREAM_PAUSE, ""
            wait = max(pause, self._least_pause(error))
            if error is not None and str(error) != logged:
                logged = str(error)
                self._log.info("stream_failed", stream=name, reason=logged, retry_in=wait)
            await asyncio.sleep(wait)
            pause = min(2 * pause, MAX_STREAM_PAUSE)

    def _least_pause(self, error: Exception | None) -> float:
        """Seconds: without this floor, two streams that are refused at every attempt would have us locked out."""
        return floor(error.failure, self._limits) if isinstance(error, SessionError) else 0.0

    async def _hold(self, name: str, program: bytes) -> None:
        """One life of a dedicated stream, on an SSH connection of its own."""
        connection = None
        try:
            connection = await self._dial()
            stream = await self._streams.open(connection, name, program)
            self._log.debug("stream_opened", stream=name)
            await self._watch(name, stream)
        finally:
            self._streams.drop(name)
            if connection:
                connection.abort()

    async def _watch(self, name: str, stream: RemoteProgram) -> None:
        """Return when the stream has ended, has stalled, or is no longer wanted."""
        carrier = self._outlet.carriers[name]
        while self._wanted.is_set():
            try:
                async with asyncio.timeout(STREAM_CHECK_INTERVAL):
                    await stream.ended.wait()
                return
            except TimeoutError:
                waited = carrier.waited(now := self._now())
                others = (other for other in self._outlet.carriers.values() if other is not carrier)
                if waited > STALLED_AFTER and any(other.heard > now - waited for other in others):
                    return
