"""A forwarded connection: a socket on this host and a channel of the SSH connection, each writing to the other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from tunneld.ssh.pressure import SHARE, Pressure, pressure_on


class End(asyncio.Protocol):
    """One end of a pipe. A socket's protocol and a channel's session alike: asyncssh calls back as asyncio does.

    An end that has no other yet reads nothing, so nothing is lost or piled up while the other is being opened. Each
    direction ends by itself (half close); an error or a close of one end closes the other.
    """

    def __init__(self, ended: Callable[[], None] | None = None) -> None:
        self._transport: Any = None
        self._other: End | None = None
        self._ended = ended
        self._finished = False  # our side has sent its end of file
        self._is_full = False  # this end has enough to write for now
        self._pressure: Pressure | None = None  # of the connection whose channel this is
        self._written = 0  # bytes, since that pressure was last low
        self.is_closed = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        plain = transport.get_extra_info("socket") if isinstance(transport, asyncio.Transport) else None
        if plain is not None and plain.family != socket.AF_UNIX:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pressure = pressure_on(transport)
        if self._pressure is not None:
            self._pressure.add(self)
        if self._other is not None and self._other._transport is not None:
            self.balance()
            self._other.balance()
        elif plain is None:
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
        """asyncssh's word for a channel that is open; `connection_made` has done the work."""

    def join(self, other: End) -> None:
        """Become one pipe with `other`, whose transport may come later."""
        self._other, other._other = other, self
        if self._transport is not None and other._transport is not None:
            self.balance()
            other.balance()

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        other = self._other
        if other is not None and other._transport is not None:
            try:
                other.write(data)
            except OSError:  # a channel that the relay has just closed; `connection_lost` is on its way
                self.close()

    def write(self, data: bytes) -> None:
        self._transport.write(data)
        if self._pressure is not None:
            self._written += len(data)
            if self._pressure.is_high:
                self.balance()

    def eof_received(self) -> bool:
        """Pass the end of file on; this end stays open for what still comes the other way, and both close after it."""
        self._finished = True
        other = self._other
        if other is None or other._transport is None:
            return False
        try:
            other._transport.write_eof()
        except OSError:  # its peer has reset it, which a socket does not notice while it is not read
            self.close()
            return False
        if other._finished:
            asyncio.get_running_loop().call_soon(self.close)  # nobody else does it when both ends are asyncssh's
        return True

    def pause_writing(self) -> None:
        self._is_full = True
        self.balance()

    def resume_writing(self) -> None:
        self._is_full = False
        self.balance()

    def balance(self) -> None:
        """Have the other end read for as long as this one can write."""
        under_pressure = self._pressure is not None and self._pressure.is_high
        if not under_pressure:
            self._written = 0
        if self._other is None or self._other._transport is None:
            return
        if self._is_full or (under_pressure and self._written >= SHARE):
            self._other._transport.pause_reading()
        else:
            self._other._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()

    def close(self) -> None:
        """Close both ends; what was received is still delivered."""
        self._leave("close")

    def abort(self) -> None:
        """Close both ends at once."""
        self._leave("abort")

    def _leave(self, how: str) -> None:
        self.is_closed = True
        if self._pressure is not None:
            self._pressure.remove(self)
        transport, self._transport = self._transport, None
        other, self._other = self._other, None
        ended, self._ended = self._ended, None
        if transport is not None:
            getattr(transport, how)()
        if other is not None:
            other._leave(how)
        if ended is not None:
            ended()
