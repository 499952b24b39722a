"""Back-pressure from an SSH connection's socket to the forwards that fill it.

asyncssh has none: each channel writes as much as the relay's window allows, 2 MiB, whatever the socket takes. Behind a
home's uplink of 20 Mbit/s a copy through a forward so put 0.8 s of queue before every keystroke through another one.
Measured with this, at 80 ms round trip: 230 ms instead of 900 beside the copy (OpenSSH's own client: 490), and a copy
without delay is as fast as before.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol

import asyncssh

UNSENT = 128 * 1024
"""Bytes that the kernel may hold and not have sent. Less costs throughput on fast links; see tcp(7) and the kernel's
ip-sysctl text on tcp_notsent_lowat, which is this for a whole machine."""

SHARE = 32 * 1024
"""Bytes that each forwarded connection may still add while the pressure is high: what a person types is read at once,
and of two copies none starves, for a reader that the loop has just woken is not put off by whoever came before it."""

_KEY = "tunneld_pressure"


class Follower(Protocol):
    """Somebody who fills a connection."""

    def balance(self) -> None:
        """The pressure has changed: stop or go on."""


class Pressure:
    """Whether what a connection was given waits before its socket: `is_high` until most of it is gone.

    A connection through a jump host is under the jump host's pressure too.
    """

    def __init__(self, via: Pressure | None = None) -> None:
        self.is_high = False
        self._is_full = False
        self._via = via
        self._followers: set[Follower] = set()

    def add(self, follower: Follower) -> None:
        self._followers.add(follower)

    def remove(self, follower: Follower) -> None:
        self._followers.discard(follower)

    def rise(self) -> None:
        self._is_full = True
        self.balance()

    def fall(self) -> None:
        self._is_full = False
        self.balance()

    def balance(self) -> None:
        is_high = self._is_full or (self._via is not None and self._via.is_high)
        if is_high != self.is_high:
            self.is_high = is_high
            for follower in tuple(self._followers):
                follower.balance()


def watch_pressure(connection: asyncssh.SSHClientConnection, via: asyncssh.SSHClientConnection | None) -> None:
    """Have `pressure_on` answer for this connection's channels. `via` is the jump host's connection."""
    above = None if via is None else pressure_on(via)
    pressure = Pressure(above)
    if above is not None:
        above.add(pressure)
    plain = connection.get_extra_info("socket")
    if plain is not None and plain.family in (socket.AF_INET, socket.AF_INET6):
        # Else the kernel takes megabytes, and says that there is no pressure. On Linux and macOS, not everywhere.
        plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25), UNSENT)
    connection.set_extra_info(**{_KEY: pressure})
    # asyncssh's own do nothing; its transport calls them as asyncio says (Protocol.pause_writing).
    connection.pause_writing = pressure.rise  # type: ignore[method-assign]
    connection.resume_writing = pressure.fall  # type: ignore[method-assign]


def pressure_on(place: Any) -> Pressure | None:
    """That of a connection, or of a channel's; None for a socket, which is its own."""
    pressure = place.get_extra_info(_KEY)
    return pressure if isinstance(pressure, Pressure) else None
