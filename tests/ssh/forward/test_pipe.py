"""The two ends of a pipe, with transports that only take notes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.ssh.peers import echo, listening
from tunneld.ssh.forward.pipe import PipeEnd


class NotingTransport:
    """As much of a channel as an end of a pipe uses."""

    def __init__(self, *, fails: bool = False) -> None:
        self.notes: list[Any] = []
        self.fails = fails

    def write(self, data: bytes) -> None:
        if self.fails:
            raise BrokenPipeError
        self.notes.append(data)

    def write_eof(self) -> None:
        if self.fails:
            raise ConnectionResetError
        self.notes.append("eof")

    def __getattr__(self, name: str) -> Any:
        return lambda: self.notes.append(name)


def pipe(*, fails: bool = False) -> tuple[PipeEnd, NotingTransport, PipeEnd, NotingTransport]:
    """Two ends that are joined; what they did before is forgotten. `fails`: the second's transport is broken."""
    here, there = PipeEnd(), PipeEnd()
    near, far = NotingTransport(), NotingTransport(fails=fails)
    here.connection_made(near)
    there.connection_made(far)
    here.join(there)
    near.notes.clear()
    far.notes.clear()
    return here, near, there, far


def test_an_end_that_is_alone_reads_nothing() -> None:
    """Until there is somewhere to write it."""
    here, near = PipeEnd(), NotingTransport()
    here.connection_made(near)
    assert near.notes == ["pause_reading"]
    there, far = PipeEnd(), NotingTransport()
    here.join(there)
    assert near.notes == ["pause_reading"]
    there.connection_made(far)
    assert near.notes == ["pause_reading", "resume_reading"]
    assert far.notes == []


def test_what_comes_in_at_one_end_goes_out_at_the_other() -> None:
    """And a full end stops the other from reading."""
    here, near, there, far = pipe()
    here.data_received(b"there")
    there.data_received(b"back")
    far_is_full = there.pause_writing
    far_is_full()
    there.resume_writing()
    assert far.notes == [b"there"]
    assert near.notes == [b"back", "pause_reading", "resume_reading"]


async def test_each_direction_ends_by_itself() -> None:
    """Both ends close after the second end of file."""
    here, near, there, far = pipe()
    assert here.eof_received() is True
    assert far.notes == ["eof"]
    there.data_received(b"late")
    assert near.notes == [b"late"]
    assert not here.is_closed
    assert there.eof_received() is True
    await asyncio.sleep(0)
    assert near.notes == [b"late", "eof", "close"]
    assert far.notes == ["eof", "close"]
    assert here.is_closed and there.is_closed


def test_an_end_of_file_without_another_end_closes() -> None:
    """The transport does so itself when it is told False."""
    here = PipeEnd()
    here.connection_made(NotingTransport())
    assert here.eof_received() is False


@pytest.mark.parametrize("what", ["data", "eof"])
def test_a_broken_end_closes_both(what: str) -> None:
    """A channel that the relay has just closed, or a socket that was reset, raises."""
    here, near, there, _ = pipe(fails=True)
    if what == "data":
        here.data_received(b"x")
    else:
        assert here.eof_received() is False
    assert here.is_closed and there.is_closed
    assert near.notes == ["close"]


@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_end_of_one_is_the_end_of_both(how: str) -> None:
    """In the same way; and whoever counts hears it once."""
    ended: list[str] = []
    here, there = PipeEnd(lambda: ended.append("here")), PipeEnd(lambda: ended.append("there"))
    near, far = NotingTransport(), NotingTransport()
    here.connection_made(near)
    there.connection_made(far)
    here.join(there)
    getattr(here, how)()
    there.connection_lost(None)
    here.connection_lost(None)
    assert near.notes[-1] == far.notes[-1] == how
    assert sorted(ended) == ["here", "there"]
    assert here.transport is None
    here.data_received(b"too late")
    here.pause_writing()
    here.resume_writing()


async def test_a_small_packet_is_not_delayed() -> None:
    """A keystroke leaves at once: asyncio turns Nagle's algorithm off, for whoever connects and whoever accepts."""
    loop = asyncio.get_running_loop()
    accepted: list[PipeEnd] = []

    def accept() -> PipeEnd:
        accepted.append(PipeEnd())
        return accepted[-1]

    server = await loop.create_server(accept, "127.0.0.1", 0)
    async with server:
        _, here = await loop.create_connection(PipeEnd, *server.sockets[0].getsockname())
        while not accepted or accepted[0].transport is None:  # noqa: ASYNC110 (asyncio does not tell)
            await asyncio.sleep(0)
        for end in (here, accepted[0]):
            plain = end.transport.get_extra_info("socket")
            assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            end.abort()


async def test_a_socket_that_is_alone_keeps_what_its_peer_says() -> None:
    """It is read once the other end is there, and nothing is lost."""
    async with listening(echo) as port:
        transport, here = await asyncio.get_running_loop().create_connection(PipeEnd, "127.0.0.1", port)
        transport.write(b"hello")
        await asyncio.sleep(0)
        assert not transport.is_reading()
        there, far = PipeEnd(), NotingTransport()
        there.connection_made(far)
        here.join(there)
        async with asyncio.timeout(10):
            while b"hello" not in far.notes:  # noqa: ASYNC110 (a transport that only takes notes)
                await asyncio.sleep(0.001)
        here.abort()
