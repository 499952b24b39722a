"""A vigil over one session: ask the relay for signs of life, and say when it is worth dialling a second session."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import asyncssh

from tunneld.core.supervise.liveness import Liveness
from tunneld.ssh.connect.alive import ask

# struct tcp_info of linux/tcp.h: tcpi_bytes_acked, there since Linux 4.1.
BYTES_ACKED = struct.Struct("@120xQ")


class KeepaliveWatch:
    """Over a connection that `dial` made. Seconds are those of the event loop's clock."""

    def __init__(self, connection: asyncssh.SSHClientConnection, interval: float) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._pulse = Liveness(interval, self._loop.time())
        self._due = asyncio.Event()
        self._doubted, self._trusted = asyncio.Event(), asyncio.Event()
        self._trusted.set()

    @property
    def rtt(self) -> float | None:
        """Seconds for a question and its answer, smoothed; None before the first."""
        return self._pulse.rtt

    @property
    def silence(self) -> float | None:
        """Seconds since the last answer, while the session is doubtful; else None."""
        return self._loop.time() - self._pulse.heard if self._pulse.doubted else None

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as questions:
            while True:
                if self._pulse.tick(self._loop.time(), self._acknowledged()):
                    questions.create_task(self._ask())
                if self._pulse.doubted:
                    self._trusted.clear()
                    self._doubted.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._pulse.deadline()):
                        await self._due.wait()
                self._due.clear()

    async def doubted(self) -> None:
        """Return when the session is doubtful."""
        await self._doubted.wait()

    async def trusted(self) -> None:
        """Return when it is not, or not any more."""
        await self._trusted.wait()

    def nudge(self) -> None:
        """Something happened that may have ended the session: find out at once."""
        self._pulse.nudge(self._loop.time(), self._acknowledged())
        self._due.set()

    async def _ask(self) -> None:
        await ask(self._connection)
        if self._connection.is_closed():
            return  # no answer, but the end of all questions
        self._pulse.answered(self._loop.time())
        self._doubted.clear()
        self._trusted.set()
        self._due.set()

    def _acknowledged(self) -> int | None:
        """Bytes of ours that the other kernel has acknowledged; None through a jump host, where nobody can tell."""
        plain = self._connection.get_extra_info("socket")
        if plain is None or plain.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        try:
            told = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED.size)
        except OSError:
            return None  # it is being closed
        return int(BYTES_ACKED.unpack(told)[0]) if len(told) == BYTES_ACKED.size else None
