"""How long it takes until a new connection through a forward hears its target. The question must not change the answer.

An sshd may still hold the port for a client that is dead. Each connection to that port makes sshd put off its next
keepalive to the client, so whoever connects again and again keeps sshd from noticing. Therefore this module opens one
connection to each listener, and waits. It opens another one only when the relay has closed the first one, or when the
listener is a new one.

Tested in tests/bench/test_recovery.py.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import closing
from typing import Final

from bench.listening import listener
from tests.lab.machine import Machine

LOOK_INTERVAL: Final = 0.02  # seconds between two looks at who listens; a look disturbs nobody
MAX_RECONNECT_PAUSE: Final = 1.0  # seconds between two connections to a listener that closes them
BANNER: Final = b"SSH-2.0-"  # the target is an sshd


def seconds_until_banner(
    machine: Machine, port: int, *, since: float, patience: float, stale: int | None = None
) -> float | None:
    """Seconds from `since` (time.monotonic()) until the banner comes. None: it did not come within `patience` seconds.

    `stale` is the inode of a listener to which no connection is opened.
    """
    with closing(_Asking(machine, port)) as asking:
        while time.monotonic() - since < patience:
            found = listener(machine, port)
            if asking.hears(None if found == stale else found):
                return time.monotonic() - since
    return None


class _Asking:
    """At most one connection, to the listener that has the port now."""

    def __init__(self, machine: Machine, port: int) -> None:
        self._machine = machine
        self._port = port
        self._listener: int | None = None
        self._peer: socket.socket | None = None
        self._pause, self._connect_at = LOOK_INTERVAL, 0.0

    def hears(self, found: int | None) -> bool:
        """Whether the listener `found` (an inode) sends the banner within LOOK_INTERVAL seconds."""
        if found != self._listener:
            self.close()
            self._listener, self._pause, self._connect_at = found, LOOK_INTERVAL, 0.0
        if self._peer is None and found is not None and time.monotonic() >= self._connect_at:
            self._connect()
        if self._peer is None:
            time.sleep(LOOK_INTERVAL)
            return False
        return bool(select.select([self._peer], [], [], LOOK_INTERVAL)[0]) and self._read(self._peer)

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
            self._turned_away()  # the listener has just gone

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
        self._connect_at, self._pause = time.monotonic() + self._pause, min(2 * self._pause, MAX_RECONNECT_PAUSE)
