"""What the tests of tunnels share: profiles for a relay on loopback, a target that echoes, and a look for leaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.sshd import Sshd, descendants, running_sshd
from tests.virtual import Journal, VirtualTime
from tunneld.profile import Canary, Direction, Forward, Profile, Relay, TcpAddress
from tunneld.tunnel.timing import Timing
from tunneld.tunnel.tunnel import Tunnel


def relay_of(server: Sshd, **changed: Any) -> Relay:
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": server.port,
        "user": server.user,
        "identity": (server.user_key,),
        "known_hosts": server.known_hosts,
        "ssh_config": False,
    }
    return Relay(**(given | changed))


def profile_of(
    relay: Relay, *forwards: Forward, name: str = "pi", others: tuple[Relay, ...] = (), **more: Any
) -> Profile:
    file = Path(f"/nowhere/{name}.toml")
    more = {"canary": Canary(interval=0)} | more  # its timer would be one more in each of these tests
    return Profile(name=name, file=file, relays=(relay, *others), forward=forwards, **more)


def forward(listen: int, to: int = 9, *, required: bool = True, direction: Direction = Direction.REMOTE) -> Forward:
    """A forward between two loopback ports."""
    target = None if direction is Direction.DYNAMIC else TcpAddress("127.0.0.1", to)
    return Forward(listen=TcpAddress("127.0.0.1", listen), to=target, direction=direction, required=required)


@contextlib.asynccontextmanager
async def running(
    profile: Profile, journal: Journal, time: VirtualTime, *, chance: float = 0.999999
) -> AsyncIterator[Tunnel]:
    """A tunnel that runs, and is stopped afterwards; nothing of it is left then."""
    tunnel = Tunnel(profile, log=journal.log, timing=Timing(time.clock, time.sleep, lambda: chance))
    async with nothing_left(), asyncio.TaskGroup() as tasks:
        tasks.create_task(tunnel.run())
        try:
            yield tunnel
        finally:
            tunnel.stop()


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    """A server that sends back what it gets. Gives its port."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport
            open_now.add(transport)

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

        def connection_lost(self, error: Exception | None) -> None:
            open_now.discard(self.transport)

    open_now: set[Any] = set()
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in list(open_now):
            each.abort()
        await asyncio.sleep(0)


class Line:
    """One TCP connection that a test writes to and reads from."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def echoes(self, text: bytes = b"hello") -> bool:
        """Whether the text comes back. It does not when the connection ends instead."""
        self._writer.write(text)
        try:
            async with asyncio.timeout(10):
                return await self._reader.readexactly(len(text)) == text
        except (ConnectionError, asyncio.IncompleteReadError):
            return False

    async def greets(self, beginning: bytes) -> bool:
        """Whether the other side speaks first, and begins with these bytes."""
        async with asyncio.timeout(10):
            return await self._reader.readexactly(len(beginning)) == beginning


@contextlib.asynccontextmanager
async def line(port: int) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def is_free(port: int) -> bool:
    """Whether the port can be listened on at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


async def has_settled(relay: Sshd) -> None:
    """Wait until the session channel's program runs on the relay.

    Between fork and exec sshd's child has copies of the listeners, so that a port closed just then is free a few
    milliseconds later. Nothing tells when it is over, so this polls.
    """
    async with asyncio.timeout(10):
        while all(_is_sshd(pid) for pid in descendants(relay.pid)):  # noqa: ASYNC110 (another process, see above)
            await asyncio.sleep(0.005)


def _is_sshd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    except OSError:
        return True  # gone meanwhile


@contextlib.asynccontextmanager
async def running_relay(folder: Path) -> AsyncIterator[Sshd]:
    """A plain OpenSSH server whose logins run none of the tester's shell start-up files, which may take seconds."""
    async with running_sshd(folder, options=[f"SetEnv HOME={folder}"]) as server:
        yield server


@contextlib.contextmanager
def taken(port: int) -> Any:
    """Somebody else's listener."""
    with socket.create_server(("127.0.0.1", port)) as held:
        yield held


def sockets() -> set[str]:
    """This process's open sockets, by inode."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{fd}")
            if name.startswith("socket:"):
                found.add(name)
    return found


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Every task and socket that was made inside is gone afterwards."""
    tasks, open_before = asyncio.all_tasks(), sockets()
    yield
    for _ in range(10):  # transports close in the turns after abort()
        await asyncio.sleep(0)
    assert asyncio.all_tasks() - tasks == set()
    assert sockets() - open_before == set()


class Gate:
    """A wire to a relay that can be cut short: after `limit` bytes from it, it passes nothing more, either way."""

    def __init__(self, port: int, limit: int = 1 << 30) -> None:
        self._port, self.limit = port, limit
        self.passed = 0
        self.stalled = asyncio.Event()
        self.dialled = asyncio.Event()
        self.port = 0
        self._lost: set[asyncio.StreamWriter] = set()
        self._flows: set[asyncio.StreamWriter] = set()

    def lose(self) -> None:
        """Pass nothing more for the connections that exist now, as a home router does that has got another address."""
        self._lost |= self._flows

    async def __aenter__(self) -> Gate:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled.set()
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._flows.add(writer)
        async with asyncio.TaskGroup() as both:
            coming = both.create_task(self._from_relay(there, writer))
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    if not self._is_dead(writer):
                        back.write(data)
            if writer in self._lost:
                await asyncio.wait([coming])  # the relay does not hear of the end
            coming.cancel()
            for each in (back, writer):
                each.transport.abort()

    async def _from_relay(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (left := self.limit - self.passed) > 0 and (data := await there.read(min(left, 65536))):
            self.passed += len(data)
            if not self._is_dead(writer):
                writer.write(data)
        if writer not in self._lost:
            self.stalled.set()

    def _is_dead(self, writer: asyncio.StreamWriter) -> bool:
        return self.stalled.is_set() or writer in self._lost
