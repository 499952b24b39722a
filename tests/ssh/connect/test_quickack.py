"""Acknowledging at once, for a peer whose second small packet waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.ssh.peers import listening
from tests.until import until
from tunneld.ssh.connect import quickack
from tunneld.ssh.connect.quickack import BEGINNING, QuickAck

EXCHANGES = 20


class Asker(asyncio.Protocol):
    """Asks again when the answer, two bytes in two packets, is there."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.heard = 0
        self.done = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.transport.write(b"?")

    def data_received(self, data: bytes) -> None:
        self.heard += len(data)
        if self.heard == 2 * EXCHANGES:
            self.done.set()
        elif self.heard % 2 == 0:
            self.transport.write(b"?")

    def eof_received(self) -> bool:
        self.events.append("eof")
        return True

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.done.set()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As sshd does before its first session: Nagle's algorithm is on."""
    plain = writer.get_extra_info("socket")
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    for _ in range(EXCHANGES):
        await reader.readexactly(1)
        for _ in range(2):
            writer.write(b"!")
            await asyncio.sleep(0.001)
    writer.write_eof()
    await reader.read()


@contextlib.asynccontextmanager
async def asked() -> AsyncIterator[Asker]:
    asker = Asker()
    async with listening(answer) as port:
        plain = socket.create_connection(("127.0.0.1", port))
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: QuickAck(asker, plain), sock=plain)
        yield asker
        transport.close()


async def test_nothing_waits_for_an_acknowledgement() -> None:
    """Linux would delay most of them by 40 ms: twenty answers would take half a second at least."""
    async with asked() as asker, asyncio.timeout(0.4):
        await asker.done.wait()


async def test_everything_else_is_passed_on() -> None:
    """Ends and back-pressure reach the protocol behind it."""
    async with asked() as asker:
        await asker.done.wait()
        between = asker.transport.get_protocol()
        between.pause_writing()
        between.resume_writing()
        await until(lambda: "eof" in asker.events)
        asker.transport.abort()
        await until(lambda: "lost" in asker.events)
    assert asker.events == ["pause", "resume", "eof", "lost"]


async def test_it_leaves_when_the_beginning_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bulk copy does not need an acknowledgement for each packet."""
    monkeypatch.setattr(quickack, "BEGINNING", 0.0)
    async with asked() as asker:
        await until(lambda: asker.transport.get_protocol() is asker)


async def test_it_stays_while_the_session_begins() -> None:
    """Ten seconds, which no login that succeeds exceeds by much."""
    assert BEGINNING == 10
    async with asked() as asker:
        await asker.done.wait()
        assert isinstance(asker.transport.get_protocol(), QuickAck)


async def test_a_connection_that_ends_early_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer holds on to it for the rest of the beginning."""
    loop = asyncio.get_running_loop()
    made: list[asyncio.TimerHandle] = []
    call_later = loop.call_later

    def noting(delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        made.append(call_later(delay, callback, *args))
        return made[-1]

    monkeypatch.setattr(loop, "call_later", noting)
    async with asked() as asker:
        await asker.done.wait()
        asker.transport.abort()
        await until(lambda: "lost" in asker.events)
    timers = [each for each in made if each.when() > loop.time() + 1]
    assert timers and all(each.cancelled() for each in timers)
