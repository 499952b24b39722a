"""Many visitors come through forwards; a third are reset, at once or midway, by the visitor or by the target."""

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

VISITORS_AT_ONCE: Final = 40  # visitors at the same time
LARGEST_VISIT: Final = 48 * 1024  # bytes that a visitor sends: more than one packet of SSH carries
LEAVE_TIME: Final = 1.0  # seconds for the end of the last visits to reach the target
VISIT_TIMEOUT: Final = 30.0  # seconds for a visit, which takes milliseconds
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset (socket(7))

PASS, CUT = b"p", b"c"  # the first byte that a visitor sends: the target shall echo, or reset


class VisitKind(Enum):
    """How a visit ends."""

    ECHO = "everything comes back"
    LEAVE = "the visitor resets it at once"
    RESET_HERE = "the visitor resets it midway"
    RESET_THERE = "the target resets it midway"


# A third of the visits are reset.
VISIT_CYCLE: Final = tuple(
    kind
    for cut in (VisitKind.LEAVE, VisitKind.RESET_HERE, VisitKind.RESET_THERE)
    for kind in (VisitKind.ECHO, VisitKind.ECHO, cut)
)


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a forward is entered: `port` on `host`'s loopback. At a SOCKS port, `socks_to` is the target's port."""

    host: Host
    port: int
    socks_to: int | None = None


class Target(asyncio.Protocol):
    """Echoes; when a visitor asks for a reset, it resets the connection while data still comes."""

    def __init__(self, connected: set[Any]) -> None:
        self._connected = connected

    def connection_made(self, transport: Any) -> None:
        self._connected.add(transport)
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
        self._connected.discard(self._transport)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()


def reset(transport: asyncio.WriteTransport) -> None:
    """Close so that the peer sees RST."""
    with contextlib.suppress(OSError):  # the socket may be closed already
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    transport.abort()


@contextlib.asynccontextmanager
async def targets(places: Sequence[tuple[Host, int]]) -> AsyncIterator[None]:
    """Run a target on each of these loopback ports; connections that are still open at the end are reset."""
    loop = asyncio.get_running_loop()
    connected: set[Any] = set()
    async with contextlib.AsyncExitStack() as stack:
        for host, port in places:
            listener = host.listener(socket.SOCK_STREAM, port=port, address="127.0.0.1")
            server = await loop.create_server(lambda: Target(connected), sock=listener)
            stack.callback(server.close)
        yield
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIME):
                while connected:  # noqa: ASYNC110 - the last ends are still on their way through the tunnel
                    await asyncio.sleep(0.01)
        for transport in tuple(connected):
            reset(transport)


async def crowd(
    entrances: Sequence[Entrance], *, visits: int, seed: int, turned_away: bool = False
) -> Counter[VisitKind]:
    """Make `visits` visits, in turn by each of `entrances`, and count by kind those that went as they should.

    With `turned_away`, visits may fail at any point without an error; they are not counted.

    Raises:
        AssertionError: an echo is not what was sent.
        TimeoutError: a visit did not end within VISIT_TIMEOUT.
    """
    tolerated = (AssertionError, OSError, EOFError) if turned_away else ()
    done: Counter[VisitKind] = Counter()
    chance = random.Random(seed)
    plan = itertools.islice(zip(itertools.cycle(entrances), itertools.cycle(VISIT_CYCLE), strict=True), visits)

    async def visitor() -> None:
        for entrance, kind in plan:
            async with asyncio.timeout(VISIT_TIMEOUT):
                with contextlib.suppress(*tolerated):
                    await _visit(entrance, kind, chance.randbytes(chance.randrange(1, LARGEST_VISIT)))
                    done[kind] += 1

    async with asyncio.TaskGroup() as visitors:
        for _ in range(min(VISITORS_AT_ONCE, visits)):
            visitors.create_task(visitor())
    return done


async def _visit(entrance: Entrance, kind: VisitKind, data: bytes) -> None:
    with entrance.host.entered():
        plain = socket.socket()
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", entrance.port))
    reader, writer = await asyncio.open_connection(sock=plain)
    try:
        if entrance.socks_to is not None:
            await _ask_socks(reader, writer, entrance.socks_to)
        if kind is not VisitKind.LEAVE:
            await _exchange(reader, writer, kind, data)
    finally:
        reset(writer.transport)


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: VisitKind, data: bytes) -> None:
    if kind is VisitKind.RESET_THERE:
        writer.write(CUT + data)
        with contextlib.suppress(ConnectionError):
            assert len(await reader.read(-1)) <= len(data), "more came back than was sent"
    elif kind is VisitKind.RESET_HERE:
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
