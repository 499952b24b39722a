"""Many who come through forwards, of whom a third are cut off: the moment they come, or midway, from either side."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from tests.lab.net import Host

AT_ONCE: Final = 40  # visitors at the same time
MOST: Final = 48 * 1024  # bytes that one sends: more than one packet of SSH carries
LEAVE_TIME: Final = 1.0  # seconds for the end of a visit to reach the target
PATIENCE: Final = 30.0  # seconds for a visit, which takes milliseconds
NO_GOODBYE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset (socket(7))

PASS, CUT = b"p", b"c"  # the first byte of what a visitor sends: to be echoed, or to be cut off


class Deed(Enum):
    """How a visit goes."""

    ECHO = "everything comes back"
    LEAVE = "the visitor resets it at once"
    RESET_HERE = "the visitor resets it midway"
    RESET_THERE = "the target resets it midway"


# A third are reset.
TURNS: Final = tuple(
    turn for cut in (Deed.LEAVE, Deed.RESET_HERE, Deed.RESET_THERE) for turn in (Deed.ECHO, Deed.ECHO, cut)
)


@dataclass(frozen=True, slots=True)
class Way:
    """Into a forward: the port on `host`'s loopback that leads to a target, or a SOCKS port and the target's own."""

    host: Host
    port: int
    socks_to: int | None = None


class Target(asyncio.Protocol):
    """Echoes; where it is asked to cut the visitor off, it resets the connection in the middle of what comes."""

    def __init__(self, guests: set[Any]) -> None:
        self._guests = guests

    def connection_made(self, transport: Any) -> None:
        self._guests.add(transport)
        self._transport = transport
        self._cuts: bool | None = None

    def data_received(self, data: bytes) -> None:
        if self._cuts is None:
            self._cuts, data = data[:1] == CUT, data[1:]
        self._transport.write(data)
        if self._cuts:
            reset(self._transport)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._guests.discard(self._transport)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()


def reset(transport: asyncio.WriteTransport) -> None:
    """Have the peer see RST."""
    with contextlib.suppress(OSError):  # it has been closed meanwhile
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_GOODBYE)
    transport.abort()


@contextlib.asynccontextmanager
async def targets(places: Sequence[tuple[Host, int]]) -> AsyncIterator[None]:
    """A target on each of these loopback ports. Who has not left at the end is cut off."""
    loop = asyncio.get_running_loop()
    guests: set[Any] = set()
    async with contextlib.AsyncExitStack() as stack:
        for host, port in places:
            listener = host.listener(socket.SOCK_STREAM, port=port, address="127.0.0.1")
            server = await loop.create_server(lambda: Target(guests), sock=listener)
            stack.callback(server.close)
        yield
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIME):
                while guests:  # noqa: ASYNC110 - the last of them are on their way through the tunnel
                    await asyncio.sleep(0.01)
        for guest in tuple(guests):
            reset(guest)


async def crowd(ways: Sequence[Way], *, visits: int, seed: int, turned_away: bool = False) -> Counter[Deed]:
    """How many of each deed were done as they should; with `turned_away`, the others may be, at any point.

    Raises:
        AssertionError: what was echoed is not what was sent.
        TimeoutError: a visit came to no end.
    """
    forgiven = (AssertionError, OSError, EOFError) if turned_away else ()
    done: Counter[Deed] = Counter()
    chance = random.Random(seed)
    plan = itertools.islice(zip(itertools.cycle(ways), itertools.cycle(TURNS), strict=True), visits)

    async def visitor() -> None:
        for way, deed in plan:
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(*forgiven):
                    await _visit(way, deed, chance.randbytes(chance.randrange(1, MOST)))
                    done[deed] += 1

    async with asyncio.TaskGroup() as visitors:
        for _ in range(min(AT_ONCE, visits)):
            visitors.create_task(visitor())
    return done


async def _visit(way: Way, deed: Deed, data: bytes) -> None:
    with way.host.entered():
        plain = socket.socket()
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", way.port))
    reader, writer = await asyncio.open_connection(sock=plain)
    try:
        if way.socks_to is not None:
            await _ask_socks(reader, writer, way.socks_to)
        if deed is not Deed.LEAVE:
            await _speak(reader, writer, deed, data)
    finally:
        reset(writer.transport)


async def _speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deed: Deed, data: bytes) -> None:
    if deed is Deed.RESET_THERE:
        writer.write(CUT + data)
        with contextlib.suppress(ConnectionError):
            assert len(await reader.read(-1)) <= len(data), "more came back than was sent"
    elif deed is Deed.RESET_HERE:
        writer.write(PASS + data)
        await reader.read(1)
    else:
        writer.write(PASS + data)
        writer.write_eof()
        assert await reader.read(-1) == data, "an echo is not what was sent"


async def _ask_socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """RFC 1928: no authentication, CONNECT to the loopback address."""
    writer.write(b"\x05\x01\x00" + b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + struct.pack(">H", port))
    answer = await reader.readexactly(12)
    assert answer[3] == 0, f"SOCKS says {answer[3]}"
