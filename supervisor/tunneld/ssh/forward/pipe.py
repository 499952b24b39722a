"""A forwarded connection: a socket on this host and a channel of the SSH connection, which write to one another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class PipeEnd(asyncio.Protocol):
    """One end of a pipe. It is a socket's protocol or a channel's session: asyncssh calls back as asyncio does.

    While the other end is being opened, this end reads nothing, so that nothing is lost or piles up. Each direction
    ends by itself (half close). An error or a close of one end closes the other.
    """

    def __init__(self, ended: Callable[[], None] | None = None) -> None:
        """
        Args:
            ended: is called once, when this end has closed.
        """
        self._transport: Any = None
        self._other: PipeEnd | None = None
        self._ended = ended
        self._finished = False  # an end of file has come in here
        self.is_closed = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()
        elif not isinstance(transport, asyncio.Transport):
            transport.pause_reading()
        else:
            # Before Python 3.11.4 (gh-103607) asyncio reads all the same from a socket that was paused in here.
            asyncio.get_running_loop().call_soon(self._wait_for_other)

    def _wait_for_other(self) -> None:
        if self._transport is not None and (self._other is None or self._other._transport is None):
            self._transport.pause_reading()

    @property
    def transport(self) -> Any:
        """The socket's transport or the channel; None before it is made and after the close."""
        return self._transport

    def session_started(self) -> None:
        """asyncssh says so that a channel is open; `connection_made` has done the work."""

    def join(self, other: PipeEnd) -> None:
        """Become one pipe with `other`. The transport of either may come later."""
        self._other, other._other = other, self
        if self._transport is not None and other._transport is not None:
            self._transport.resume_reading()
            other._transport.resume_reading()

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        other = self._other
        if other is not None and other._transport is not None:
            try:
                other._transport.write(data)
            except OSError:  # a channel that the relay has just closed; `connection_lost` is on its way
                self.close()

    def eof_received(self) -> bool:
        """Pass the end of file on. This end stays open for what still comes the other way; then both ends close."""
        self._finished = True
        other = self._other
        if other is None or other._transport is None:
            return False
        try:
            other._transport.write_eof()
        except OSError:  # the peer has reset the socket, which nobody notices while it is not read
            self.close()
            return False
        if other._finished:
            asyncio.get_running_loop().call_soon(self.close)  # if both ends are asyncssh's, nobody else closes them
        return True

    def pause_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()

    def close(self) -> None:
        """Close both ends, after they have delivered what was received."""
        self._leave("close")

    def abort(self) -> None:
        """Close both ends at once."""
        self._leave("abort")

    def _leave(self, how: str) -> None:
        self.is_closed = True
        transport, self._transport = self._transport, None
        other, self._other = self._other, None
        ended, self._ended = self._ended, None
        if transport is not None:
            getattr(transport, how)()
        if other is not None:
            other._leave(how)
        if ended is not None:
            ended()
