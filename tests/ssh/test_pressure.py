"""Back-pressure from the connection to the forwards: what is held, what is not, and who is never forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.ssh.peers import dialled, listening, to_sshd
from tests.sshd import Sshd, write_known_hosts
from tunneld.profile import Forward, TcpAddress
from tunneld.ssh.forward import open_forward
from tunneld.ssh.pipe import End
from tunneld.ssh.pressure import SHARE, Pressure, pressure_on

READ = 256 * 1024  # bytes that asyncio reads from a socket at once


class Channel:
    """In a channel's place: takes everything, reads nothing, and knows its connection's pressure."""

    def __init__(self, pressure: Pressure) -> None:
        self._pressure = pressure
        self.taken = 0
        self.news = asyncio.Event()

    def get_extra_info(self, name: str) -> Any:
        return self._pressure

    def write(self, data: bytes) -> None:
        self.taken += len(data)
        self.news.set()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...

    async def takes(self, count: int) -> None:
        """Wait until it has taken so many bytes in all."""
        while self.taken < count:
            self.news.clear()
            await self.news.wait()


@contextlib.asynccontextmanager
async def piped(pressure: Pressure) -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A pipe from a target's socket, given back to be written on, to a channel."""
    loop = asyncio.get_running_loop()
    target, ours = socket.socketpair()
    target.setblocking(False)
    here, there, channel = End(), End(), Channel(pressure)
    there.join(here)
    there.connection_made(channel)
    with target:
        await loop.create_connection(lambda: here, sock=ours)
        try:
            yield channel, target
        finally:
            here.abort()


async def send(target: socket.socket, count: int) -> None:
    await asyncio.get_running_loop().sock_sendall(target, bytes(count))


async def test_under_pressure_a_copy_waits_and_a_keystroke_does_not() -> None:
    """A pipe that has had its share stops reading; a quiet one beside it is read at once; then both go on."""
    pressure = Pressure()
    async with (
        piped(pressure) as (copy, source),
        piped(pressure) as (keys, terminal),
        asyncio.TaskGroup() as tasks,
    ):
        pressure.rise()
        tasks.create_task(send(source, 20 * READ))
        await copy.takes(SHARE)
        for number in range(1, 20):
            await send(terminal, 1)
            await keys.takes(number)
        assert copy.taken <= SHARE + READ
        pressure.fall()
        await copy.takes(20 * READ)


async def test_a_pipe_made_under_pressure_has_its_share_too() -> None:
    """Somebody who connects in the middle of a copy gets his greeting."""
    pressure = Pressure()
    pressure.rise()
    async with piped(pressure) as (channel, target):
        await send(target, 100)
        await channel.takes(100)


async def test_the_share_counts_from_the_last_relief() -> None:
    """Who sent much when there was room is not held for it later."""
    pressure = Pressure()
    async with piped(pressure) as (channel, target):
        await send(target, 4 * SHARE)
        await channel.takes(4 * SHARE)
        pressure.rise()
        pressure.fall()
        pressure.rise()
        await send(target, 1)
        await channel.takes(4 * SHARE + 1)


def test_a_connection_is_under_its_jump_hosts_pressure_too() -> None:
    """It falls when both have fallen."""
    below = Pressure()
    above = Pressure(below)
    below.add(above)
    seen = []
    for change in (below.rise, above.rise, below.fall, above.fall, below.rise, below.fall):
        change()
        seen.append(above.is_high)
    assert seen == [True, True, True, False, True, False]


@contextlib.asynccontextmanager
async def slow_way(port: int) -> AsyncIterator[int]:
    """A wire to `port` that takes 13 MB/s from us at most, and answers as fast as it can."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as both:
            answers = both.create_task(_pump(there, writer, pause=0))
            await _pump(reader, back, pause=0.005)
            answers.cancel()
            back.close()

    async with listening(carry) as slow:
        yield slow


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, pause: float) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(pause)


@pytest.mark.parametrize("copies", [1, 3])
async def test_a_person_types_beside_copies_over_a_slow_way(copies: int, sshd: Sshd, log: Any) -> None:
    """No connection starves, whoever came first, and every byte arrives."""
    data = os.urandom(3_000_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"c":
            writer.write(data)
            await writer.drain()
            return
        while key := await reader.read(1):
            writer.write(key)

    async with slow_way(sshd.port) as port, listening(serve) as target:
        write_known_hosts(sshd.known_hosts, sshd.host_key, port=port)
        async with dialled(replace(to_sshd(sshd), port=port)) as connection, asyncio.TaskGroup() as tasks:
            forward = Forward(TcpAddress("127.0.0.1", 0), TcpAddress("127.0.0.1", target))
            opened = await open_forward(connection, forward, log)
            assert isinstance(opened.listening, TcpAddress)
            through = opened.listening.port
            copying = [tasks.create_task(_copy(through)) for _ in range(copies)]
            reader, writer = await asyncio.open_connection("127.0.0.1", through)
            writer.write(b"k")
            pressure = pressure_on(connection)
            assert pressure is not None
            was_high = 0
            while not all(each.done() for each in copying):
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                was_high += pressure.is_high
            assert was_high
            writer.transport.abort()
        assert all(each.result() == data for each in copying)


async def _copy(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"c")
    try:
        return await reader.read(-1)
    finally:
        writer.transport.abort()
