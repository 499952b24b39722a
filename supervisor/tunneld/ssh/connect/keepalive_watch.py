"""Watch one session: ask the relay for signs of life, and say when it is worth dialling a second session."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import asyncssh

from tunneld.core.supervise.liveness import Liveness
from tunneld.ssh.connect.alive import round_trip

# struct tcp_info of linux/tcp.h: tcpi_bytes_acked, there since Linux 4.1.
BYTES_ACKED = struct.Struct("@120xQ")


class KeepaliveWatch:
    """Watches a connection that `dial` made. All times are seconds of the event loop's clock.

    When to ask, and when to doubt, is Liveness's to say; this class asks, and passes on what comes of it.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, interval: float) -> None:
        """
        Args:
            interval: seconds from an answer to the next question (the profile's keepalive.interval).
        """
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._liveness = Liveness(interval, self._loop.time())
        self._moved = asyncio.Event()  # the deadline may be another by now
        self._doubted, self._trusted = asyncio.Event(), asyncio.Event()
        self._trusted.set()

    @property
    def rtt(self) -> float | None:
        """Seconds from a question to its answer, smoothed; None before the first answer."""
        return self._liveness.rtt

    @property
    def silence(self) -> float | None:
        """Seconds since the last answer, while the session is doubtful; None while it is not."""
        return self._loop.time() - self._liveness.heard if self._liveness.doubted else None

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as questions:
            while True:
                if self._liveness.tick(self._loop.time(), self._acknowledged()):
                    questions.create_task(self._ask())
                if self._liveness.doubted:
                    self._trusted.clear()
                    self._doubted.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._liveness.deadline()):
                        await self._moved.wait()
                self._moved.clear()

    async def doubted(self) -> None:
        """Return as soon as the session is doubtful."""
        await self._doubted.wait()

    async def trusted(self) -> None:
        """Return as soon as the session is not doubtful."""
        await self._trusted.wait()

    def nudge(self) -> None:
        """Ask at once, because something happened that may have ended the session."""
        self._liveness.nudge(self._loop.time(), self._acknowledged())
        self._moved.set()

    async def _ask(self) -> None:
        await round_trip(self._connection)
        if self._connection.is_closed():
            return  # the round trip ended with the connection, not with an answer
        self._liveness.answered(self._loop.time())
        self._doubted.clear()
        self._trusted.set()
        self._moved.set()

    def _acknowledged(self) -> int | None:
        """Bytes of ours that the relay's kernel has acknowledged; None through a jump host, where nobody can tell."""
        plain = self._connection.get_extra_info("socket")
        if plain is None or plain.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        try:
            info = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED.size)
        except OSError:
            return None  # the socket is being closed
        return int(BYTES_ACKED.unpack(info)[0]) if len(info) == BYTES_ACKED.size else None
