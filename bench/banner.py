"""How long it takes until a new connection through a forward hears its target, asked without waking a dead listener.

An sshd that still holds the port for a dead client does not notice while somebody keeps connecting to it, since each
connection postpones its own question to the client. So one connection waits at each listener, and another one is made
only when the relay closed that one, or when the listener is a new one.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import closing
from typing import Final

from bench.listening import listener
from tests.lab.machine import Machine

EVERY: Final = 0.02  # seconds between two looks at who listens, which costs nobody anything
LONGEST_PAUSE: Final = 1.0  # seconds between two connections to one listener that closes them
BANNER: Final = b"SSH-2.0-"  # the target is an sshd


def seconds_until_banner(
    machine: Machine, port: int, *, since: float, patience: float, stale: int | None = None
) -> float | None:
    """From `since` (monotonic) to the banner; None after `patience` seconds. The listener `stale` is not asked."""
    with closing(_Asking(machine, port)) as asking:
        while time.monotonic() - since < patience:
            found = listener(machine, port)
            if asking.hears(None if found == stale else found):
                return time.monotonic() - since
    return None


class _Asking:
    """At most one connection, to the listener of now."""

    def __init__(self, machine: Machine, port: int) -> None:
        self._machine = machine
        self._port = port
        self._of: int | None = None
        self._peer: socket.socket | None = None
        self._pause, self._again = EVERY, 0.0

    def hears(self, found: int | None) -> bool:
        """Whether the banner comes within EVERY seconds from the listener `found`."""
        if found != self._of:
            self.close()
            self._of, self._pause, self._again = found, EVERY, 0.0
        if self._peer is None and found is not None and time.monotonic() >= self._again:
            self._connect()
        if self._peer is None:
            time.sleep(EVERY)
            return False
        return bool(select.select([self._peer], [], [], EVERY)[0]) and self._read(self._peer)

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def _connect(self) -> None:
        with self._machine.entered():
            self._peer = socket.socket()
        try:
            self._peer.connect(("127.0.0.1", self._port))
        except OSError:
            self._turned_away()  # the listener went in this moment

    def _read(self, peer: socket.socket) -> bool:
        try:
            said = peer.recv(len(BANNER))
        except OSError:
            said = b""
        if not said:
            self._turned_away()
        return said == BANNER

    def _turned_away(self) -> None:
        self.close()
        self._again, self._pause = time.monotonic() + self._pause, min(2 * self._pause, LONGEST_PAUSE)
