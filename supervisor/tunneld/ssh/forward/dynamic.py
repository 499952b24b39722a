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

# Seconds for a client to say where it wants to go. A browser does so in one round trip on loopback.
HANDSHAKE_TIMEOUT = 15.0
# Bytes kept of a client that sends more before its request is answered. Beyond that we stop reading from it.
MOST_EARLY = 65536


class EarlyReader(asyncio.Protocol):
    """Reads pieces of an exact size from a connection, and keeps the bytes that came after them."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self.ended = False  # the client sends no more
        self.lost = False  # the connection is gone
        self._news = asyncio.Event()
        self._transport: Any = None

    def take(self, transport: Any) -> None:
        """Become the protocol of a transport, and read from it."""
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
        """Exactly `size` bytes.

        Raises:
            EOFError: the client has ended before it sent so many.
        """
        while len(self.rest) < size:
            if self.ended:
                raise EOFError
            self._news.clear()
            await self._news.wait()
        piece = bytes(self.rest[:size])
        del self.rest[:size]
        return piece


async def serve_socks(connection: asyncssh.SSHClientConnection, opened: OpenForward, here: PipeEnd) -> None:
    """Serve a client that has just connected to a dynamic forward: `here` is its end of the pipe to be.

    The client hears about every failure in SOCKS's own words, and is let go; nothing is raised but a cancellation.
    """
    transport = here.transport
    if transport is None:
        return  # the forward has just been closed
    early = EarlyReader()
    early.take(transport)
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            request = await read_request(early.read, transport.write)
        transport.pause_reading()
        there = await open_channel(connection, TcpAddress(request.host, request.port))
    except (SocksError, TimeoutError, EOFError) as error:
        transport.write(getattr(error, "reply", b""))
        here.close()
    except asyncssh.ChannelOpenError as error:
        opened.failed += 1  # counted, not logged: the client chose that target, not the profile
        transport.write(request.answer(_code(error)))
        here.close()
    except BaseException:
        here.abort()
        raise
    else:
        transport.write(request.answer(SUCCEEDED))
        transport.set_protocol(here)
        join(there, here)
        _catch_up(early, here)


def _catch_up(early: EarlyReader, here: PipeEnd) -> None:
    """Tell the pipe what its client sent before there was a pipe, and whether the client has ended since."""
    here.data_received(bytes(early.rest))
    if early.lost:
        here.close()
    elif early.ended:
        here.eof_received()


def _code(error: asyncssh.ChannelOpenError) -> int:
    """The relay's refusal as a code of RFC 1928, section 6."""
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return NOT_ALLOWED
    return REFUSED if error.code == asyncssh.OPEN_CONNECT_FAILED else FAILURE
