"""Seconds from the first packet of a takeover until the relay's port is free, and until the host knows.

    python -m bench.takeover [--json] [--quick]

A session holds a port on a real sshd. A second session, which has already logged in, takes the port over. The bench
asks the relay's kernel every half a millisecond who listens.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import asyncssh

from bench.listening import listener
from bench.numbers import median, quantile
from bench.report import Arguments, Column, Table, begin, emit, progress
from bench.start import WAYS
from tests.lab.client import person
from tests.lab.net import Lab
from tests.lab.sshd import Sshd
from tunneld.profile import Keepalive, Relay, TcpAddress
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.remote.takeover import Holder, Mark

PORT: Final = 7000
EVERY: Final = 0.0005  # seconds between two questions to the kernel
LONGEST: Final = 10.0  # seconds: a takeover that lasts longer has failed
MARK: Final = Mark("0" * 32, "bench", displaces=False)


def measure(folder: Path, delay: float, rounds: int) -> list[tuple[float, float]]:
    """For each round: seconds until the port was free, and until the host knew. The first round only fills caches."""
    with Lab(folder) as lab:
        lab.home_link.set(delay=delay)
        keeper = person(lab.pi, "keeper")
        address = lab.relay.address
        with Sshd(lab.relay, (keeper.key.public,)) as sshd:
            keeper.trust(sshd.known_hosts(address))
            relay = Relay(
                host=address,
                user="root",
                identity=(keeper.key.path,),
                known_hosts=keeper.known_hosts,
                ssh_config=False,
            )
            with lab.pi.entered():
                return [asyncio.run(take_over(lab, relay)) for _ in range(rounds + 1)][1:]


async def take_over(lab: Lab, relay: Relay) -> tuple[float, float]:
    stale, new = await dial(relay, Keepalive()), await dial(relay, Keepalive())
    try:
        await hold_port(stale)
        await stale.create_server(lambda *_: asyncssh.SSHTCPSession(), "127.0.0.1", PORT, encoding=None)
        with watching(lab) as freed:
            began = time.perf_counter()
            await hold_port(new)
            known = time.perf_counter()
        return freed[0] - began, known - began
    finally:
        for connection in (stale, new):
            connection.abort()


async def hold_port(connection: asyncssh.SSHClientConnection) -> None:
    await Holder(connection, MARK, [TcpAddress("127.0.0.1", PORT)]).start()


@contextmanager
def watching(lab: Lab) -> Iterator[list[float]]:
    """Put the moment at which the port is free into the list. The block ends after that, or after LONGEST seconds."""
    freed: list[float] = []
    until = time.perf_counter() + LONGEST

    def watch() -> None:
        while listener(lab.relay, PORT) and time.perf_counter() < until:
            time.sleep(EVERY)
        freed.append(time.perf_counter())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield freed
    finally:
        watcher.join()


def run(given: Arguments) -> list[Table]:
    rounds, rows = 3 if given.quick else 25, []
    for way, delay in WAYS.items():
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            times = measure(Path(folder), delay, rounds)
        for what, found in zip(("the port is free", "the host knows"), zip(*times, strict=True), strict=True):
            rows.append((f"{way}, until {what}", 1000 * median(found), 1000 * quantile(found, 0.95)))
        progress(f"takeover: {way} measured")
    columns = (Column("from the first packet"), Column("median, ms", ".0f"), Column("p95, ms", ".0f"))
    return [Table("Takeover", columns, tuple(rows))]


def main() -> None:
    given = begin(__doc__ or "")
    emit("takeover", run(given), given)


if __name__ == "__main__":
    main()
