"""Acknowledge at once while a session begins.

Nagle's algorithm holds a second small packet back until the first one is acknowledged. sshd leaves it on until a
session's first program starts (with the first channel it sets TCP_NODELAY); and Linux delays an acknowledgement by
40 ms when it expects that its program has something to say. So the first request after a login waited 40 ms for nothing
(measured with OpenSSH 9.2 on loopback: 50 ms, and 6 ms with this).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

BEGINNING = 10.0
"""Seconds after connecting: login, forwards and the first program have been asked for by then."""


class QuickAck(asyncio.Protocol):
    """Stands between a transport and the protocol that it is given, and leaves after BEGINNING."""

    def __init__(self, protocol: Any, plain: socket.socket) -> None:
        """
        Args:
            protocol: hears everything that the transport says.
            plain: the transport's own socket.
        """
        self._protocol = protocol
        self._plain = plain
        self._leaving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._leaving = asyncio.get_running_loop().call_later(BEGINNING, transport.set_protocol, self._protocol)
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        # Not a switch: the kernel goes back to its own judgement with the next packet (tcp(7)).
        with contextlib.suppress(OSError):
            self._plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return bool(self._protocol.eof_received())

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self._protocol.connection_lost(exc)
