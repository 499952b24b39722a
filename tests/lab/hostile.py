"""Hostile datagrams: random bytes, empty ones, oversized ones, and ones that look like mosh's."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from tests.lab.net import Host
from tests.lab.udp import udp_socket

LARGEST = 65_507  # bytes of payload in an IPv4 datagram
MOSH_HEAD = (b"\x00", b"\x80")  # the direction bit above a small sequence number


def payloads(chance: random.Random) -> Iterator[bytes]:
    """Yield payloads without end, one of each kind in turn."""
    kinds: Sequence[Callable[[], bytes]] = (
        lambda: chance.randbytes(chance.randrange(1, 200)),
        lambda: b"",
        lambda: chance.randbytes(1),
        lambda: chance.choice(MOSH_HEAD) + bytes(6) + chance.randbytes(chance.randrange(1, 120)),
        lambda: chance.choice(MOSH_HEAD) + bytes(7) + chance.randbytes(16),
        lambda: chance.randbytes(chance.choice((1252, 1253, 1400, 1472))),
        lambda: chance.randbytes(chance.choice((1473, 4000, LARGEST))),
        lambda: bytes(chance.choice((8, 24, 1252))),
    )
    while True:
        for kind in kinds:
            yield kind()


def assail(
    host: Host,
    address: str,
    ports: Sequence[int],
    *,
    count: int,
    rate: float,
    sources: Sequence[str],
    sockets: int,
    seed: int,
) -> int:
    """Send `count` hostile datagrams, `rate` a second, from `sockets` ports over the `sources` addresses.

    Returns:
        How many went out.
    """
    chance = random.Random(seed)
    sent = 0
    with contextlib.ExitStack() as stack:
        senders: list[socket.socket] = [
            stack.enter_context(udp_socket(host, address=sources[number % len(sources)])) for number in range(sockets)
        ]
        noise = payloads(chance)
        started = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
            # While our own kernel's queue is full, no datagram is sent.
            with contextlib.suppress(BlockingIOError):
                senders[number % sockets].sendto(next(noise), (address, chance.choice(ports)))
                sent += 1
    return sent
