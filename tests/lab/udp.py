"""UDP questions and answers between hosts: the test itself sends them, through sockets in a host's namespace."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator

from tests.lab.machine import Machine
from tests.lab.wire import SO_RCVBUFFORCE

PORT = 7000
SIZE = 2048


def udp_socket(machine: Machine, *, port: int = 0, address: str = "0.0.0.0") -> socket.socket:
    """A non-blocking UDP socket on the machine, bound, with room for a burst."""
    made = machine.listener(socket.SOCK_DGRAM, port=port, address=address)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    made.setblocking(False)
    return made


@contextlib.contextmanager
def reflector(machine: Machine, *, port: int = PORT) -> Iterator[None]:
    """Answer each datagram with `SOURCE PAYLOAD`, the source as seen here (`60.1.1.2:4711`), until the block ends."""
    with udp_socket(machine, port=port) as answering:
        closing = threading.Event()

        def answer() -> None:
            while not closing.is_set():
                if select.select([answering], [], [], 0.05)[0]:
                    payload, (host, source) = answering.recvfrom(SIZE)
                    answering.sendto(f"{host}:{source} ".encode() + payload, (host, source))

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            closing.set()
            thread.join()


def receive(asking: socket.socket, *, timeout: float) -> bytes | None:
    """The next datagram, or None when there is none within `timeout` seconds."""
    if not select.select([asking], [], [], timeout)[0]:
        return None
    return asking.recv(SIZE)


def round_trips(asking: socket.socket, address: tuple[str, int], *, count: int, timeout: float = 1) -> list[float]:
    """Ask `count` times, one after the other, and return the milliseconds that each answer took."""
    taken = []
    for number in range(count):
        asked = time.monotonic()
        asking.sendto(str(number).encode(), address)
        if receive(asking, timeout=timeout) is not None:
            taken.append((time.monotonic() - asked) * 1000)
    return taken


def outside_address(asking: socket.socket, address: tuple[str, int]) -> str | None:
    """How the reflector at `address` sees this socket, or None when nothing comes back within half a second."""
    asking.sendto(b"?", address)
    answer = receive(asking, timeout=0.5)
    return None if answer is None else answer.split()[0].decode()
