"""Watching a session: in virtual time where the relay is played, and once over a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.leaping import Leaping, run
from tests.ssh.peers import dialled, to_sshd
from tests.sshd import Sshd
from tests.until import until
from tunneld.ssh.connect.alive import round_trip
from tunneld.ssh.connect.keepalive_watch import BYTES_ACKED, KeepaliveWatch

INTERVAL = 10.0
ROUND_TRIP = 0.05


class PlayedRelay:
    """A connection whose relay answers each question after `answers_in` seconds, or not at all, and its socket."""

    def __init__(self) -> None:
        self.answers_in: float | None = ROUND_TRIP
        self.asked: list[float] = []
        self.acknowledged = 0  # bytes
        self.family = socket.AF_INET
        self.ended = asyncio.Event()
        self.back = asyncio.Event()

    async def _make_global_request(self, request: bytes) -> None:
        assert request == b"keepalive@openssh.com"
        loop = asyncio.get_running_loop()
        self.asked.append(round(loop.time(), 6))
        if self.answers_in is None:
            await self.back.wait()
        else:
            await asyncio.sleep(self.answers_in)

    def is_closed(self) -> bool:
        return self.ended.is_set()

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return self

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return BYTES_ACKED.pack(self.acknowledged)[:size]


@contextlib.asynccontextmanager
async def watched(connection: Any, interval: float = INTERVAL) -> AsyncIterator[KeepaliveWatch]:
    watch = KeepaliveWatch(connection, interval)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch.run())
        yield watch
        watching.cancel()


def played(main: Callable[[PlayedRelay, Leaping], Awaitable[None]]) -> None:
    """Run a test in virtual time, which begins at 0."""
    loop = Leaping()

    async def play() -> None:
        await main(PlayedRelay(), loop)

    run(play(), loop)


def test_a_relay_that_answers_is_asked_once_in_an_interval() -> None:
    """Each answer measures the round trip, and the interval counts from there."""

    async def main(relay: PlayedRelay, loop: Leaping) -> None:
        async with watched(relay) as watch:
            assert watch.rtt is None
            await asyncio.sleep(35)
            await watch.trusted()
            assert relay.asked == pytest.approx([10, 20.05, 30.1])
            assert watch.rtt == pytest.approx(ROUND_TRIP)
            assert watch.silence is None

    played(main)


def test_a_relay_that_falls_silent_is_doubted() -> None:
    """A second after the question; and it is not asked again meanwhile."""

    async def main(relay: PlayedRelay, loop: Leaping) -> None:
        relay.answers_in = None
        async with watched(relay) as watch:
            await watch.doubted()
            assert loop.time() == pytest.approx(11)
            assert watch.silence == pytest.approx(11)
            await asyncio.sleep(100)
            assert relay.asked == [10]
            relay.back.set()

    played(main)


def test_what_the_relays_kernel_acknowledges_puts_doubt_off() -> None:
    """The way is open then, and the answer may wait behind other data."""

    async def main(relay: PlayedRelay, loop: Leaping) -> None:
        relay.answers_in = None
        async with watched(relay) as watch:
            await asyncio.sleep(10.5)
            relay.acknowledged += 1
            await watch.doubted()
            assert loop.time() == pytest.approx(12)
            relay.back.set()

    played(main)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_VSOCK])
def test_only_tcp_tells_what_was_acknowledged(family: int) -> None:
    """A socket of another kind, such as that of a ProxyCommand, leaves the question to the answer alone."""

    async def main(relay: PlayedRelay, loop: Leaping) -> None:
        relay.answers_in = None
        relay.family = family  # type: ignore[assignment]
        async with watched(relay) as watch:
            await asyncio.sleep(10.5)
            relay.acknowledged += 1
            await watch.doubted()
            assert loop.time() == pytest.approx(11)
            relay.back.set()

    played(main)


def test_a_kernel_that_tells_too_little_tells_nothing() -> None:
    """Linux before 4.1 has a shorter struct tcp_info."""

    async def main(relay: PlayedRelay, loop: Leaping) -> None:
        relay.answers_in = None
        relay.getsockopt = lambda *_: bytes(100)  # type: ignore[method-assign]
        async with watched(relay) as watch:
            await watch.doubted()
            assert loop.time() == pytest.approx(11)
            relay.back.set()

    played(main)


def test_doubt_ends_with_the_answer() -> None:
    """However late it comes; the interval begins anew."""

    async def main(relay: PlayedRelay, loop: Leaping) -> None:
        relay.answers_in = 5.0
        async with watched(relay) as watch:
            await watch.doubted()
            await watch.trusted()
            assert loop.time() == pytest.approx(15)
            assert watch.silence is None
            relay.answers_in = None
            await watch.doubted()
            assert relay.asked == pytest.approx([10, 25])
            relay.back.set()

    played(main)


def test_a_nudge_asks_at_once() -> None:
    """And doubts after a quarter of a second, long before the interval is over."""

    async def main(relay: PlayedRelay, loop: Leaping) -> None:
        relay.answers_in = None
        async with watched(relay, 3600) as watch:
            await asyncio.sleep(1)
            watch.nudge()
            await watch.doubted()
            assert relay.asked == [1]
            assert loop.time() == pytest.approx(1.25)
            relay.back.set()

    played(main)


def test_the_end_of_the_connection_is_no_answer() -> None:
    """asyncssh ends every request with the connection; that measures nothing, and takes no doubt away."""

    async def main(relay: PlayedRelay, loop: Leaping) -> None:
        relay.answers_in = None
        async with watched(relay) as watch:
            await watch.doubted()
            relay.ended.set()
            relay.back.set()
            await asyncio.sleep(100)
            assert watch.rtt is None
            assert watch.silence is not None

    played(main)


async def test_a_real_relay_answers_and_acknowledges(sshd: Sshd) -> None:
    """The question is one that OpenSSH answers, and the count of bytes is where Linux has it."""
    async with dialled(to_sshd(sshd)) as connection, watched(connection, 0.01) as watch, asyncio.timeout(10):
        await until(lambda: watch.rtt is not None)
        assert watch.rtt is not None and 0 < watch.rtt < 1
        before = watch._acknowledged()
        await round_trip(connection)
        after = watch._acknowledged()
        assert before is not None and after is not None
        assert 0 < after - before < 10_000


async def test_nothing_is_known_of_a_socket_that_is_gone(sshd: Sshd) -> None:
    """The watch may look once more before its owner has seen the end."""
    async with dialled(to_sshd(sshd)) as connection:
        watch = KeepaliveWatch(connection, 1)
        connection.abort()
        await connection.wait_closed()
        assert watch._acknowledged() is None
