"""The measuring side of a forward: how fast it copies, and how long an echo takes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.target import ECHO, GIVE, REQUEST, TAKE, give, take
from tests.lab.machine import Machine
from tests.until import wait_until

MEGABYTE = 1e6
SIZE = 100  # bytes of an echo: a keystroke with everything around it


@contextmanager
def asked(machine: Machine, port: int, kind: bytes, count: int = 0) -> Iterator[socket.socket]:
    """Connect to the target through `port` on the machine, and send the request."""
    with machine.entered():
        peer = socket.socket()
    with peer:
        peer.settimeout(60)
        peer.connect(("127.0.0.1", port))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(REQUEST.pack(kind, count))
        yield peer


def await_echo(machine: Machine, port: int, *, timeout: float = 30) -> None:
    """Wait until an echo comes back through the port.

    A connection that is made at the very moment when the relay begins to listen may be refused; the next one is not.
    """

    def comes() -> bool:
        try:
            return bool(echo_times(machine, port, 1))
        except ConnectionError:
            return False

    wait_until(comes, what=f"port {port} leads to the target", timeout=timeout)


def upload_rate(machine: Machine, port: int, count: int) -> float:
    """MB/s of a copy of `count` bytes from the host behind NAT, as the reader at the relay sees it."""
    with asked(machine, port, GIVE, count) as peer:
        began = time.perf_counter()
        take(peer, count)
        return count / MEGABYTE / (time.perf_counter() - began)


def download_rate(machine: Machine, port: int, count: int) -> float:
    """MB/s of a copy of `count` bytes to the host behind NAT, until the host says that it has all of them."""
    with asked(machine, port, TAKE, count) as peer:
        began = time.perf_counter()
        give(peer, count)
        take(peer, 1)
        return count / MEGABYTE / (time.perf_counter() - began)


def echo_times(machine: Machine, port: int, count: int) -> list[float]:
    """How many microseconds each of `count` echoes took, one after the other."""
    message, taken = bytes(SIZE), []
    with asked(machine, port, ECHO) as peer:
        for number in range(count + 1):
            began = time.perf_counter()
            peer.sendall(message)
            take(peer, SIZE)
            # The first echo opens the connection to the target, and does not count.
            taken += [(time.perf_counter() - began) * 1e6] if number else []
    return taken
