"""Connections of a dynamic forward: a SOCKS handshake here, then a pipe to where the client wants to go."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh

from tunneld.profile import TcpAddress
from tunneld.ssh.forward.channel import join, open_channel
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.forward.pipe import PipeEnd
from tunneld.ssh.forward.socks import FAILURE, NOT_ALLOWED, REFUSED, SUCCEEDED, SocksError, read_request

# Seconds for a client to say where to; browsers do in one round trip on loopback.
HANDSHAKE_TIMEOUT = 15.0
# Bytes kept of a client that sends before it is answered; beyond, it has to wait.
MOST_EARLY = 65536


class EarlyReader(asyncio.Protocol):
    """Reads exact pieces from a connection, and keeps what came after them."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self._news = asyncio.Event()
        self.ended = False
        self.lost = False
        self._transport: Any = None

    def take(self, transport: Any) -> None:
        """Read from a transport that another protocol has paused."""
        self._transport = transport
        transport.set_protocol(self)
        transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.rest += data
        self._news.set()
        if len(self.rest) > MOST_EARLY:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        self._news.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.lost = True
        self._news.set()

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises EOFError."""
        while len(self.rest) < size:
            if self.ended:
                raise EOFError
            self._news.clear()
            await self._news.wait()
        piece = bytes(self.rest[:size])
        del self.rest[:size]
        return piece


async def serve_socks(connection: asyncssh.SSHClientConnection, opened: OpenForward, end: PipeEnd) -> None:
    transport = end.transport
    if transport is None:
        return  # the forward was closed in this very moment
    early = EarlyReader()
    early.take(transport)
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            request = await read_request(early.read, transport.write)
        transport.pause_reading()
        there = await open_channel(connection, TcpAddress(request.host, request.port))
    except (SocksError, TimeoutError, EOFError) as error:
        transport.write(getattr(error, "reply", b""))
        end.close()
    except asyncssh.ChannelOpenError as error:
        opened.failed += 1  # a place that a client chose, not the forward's own target: nothing to log
        transport.write(request.answer(_code(error)))
        end.close()
    except BaseException:
        end.abort()
        raise
    else:
        transport.write(request.answer(SUCCEEDED))
        transport.set_protocol(end)
        join(there, end)
        _catch_up(early, end)


def _catch_up(early: EarlyReader, end: PipeEnd) -> None:
    """Give the pipe what its client sent, and how it ended, before there was a pipe."""
    end.data_received(bytes(early.rest))
    if early.lost:
        end.close()
    elif early.ended:
        end.eof_received()


def _code(error: asyncssh.ChannelOpenError) -> int:
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return NOT_ALLOWED
    return REFUSED if error.code == asyncssh.OPEN_CONNECT_FAILED else FAILURE
