"""A shim on a stage: a real sshd with the real agent, mosh-server's stand-in, and clients, all on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import asyncssh
import pytest

from tests.sshd import Sshd, running_sshd
from tunneld.core.supervise.backoff import Limits
from tunneld.log import logger
from tunneld.profile import Keepalive, Mosh, PortRange, Relay
from tunneld.shim.shim import Shim
from tunneld.ssh.connect.dial import dial
from tunneld.status.snapshot import MoshStatus

KEEPALIVE = Keepalive(interval=0.1, count=100)
"""The streams are pinged, and their round trips known, within a moment."""

SERVER_SIDE = "127.0.0.2"
"""Where mosh-server's stand-in listens: the ingress has the same ports on 127.0.0.1."""

MOSH_SIZED = bytes(40)


@dataclass
class Echo(asyncio.DatagramProtocol):
    """Answers each datagram with a copy, top bit set, and remembers who asked."""

    sources: list[object] = field(default_factory=list)
    received: int = 0
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received += 1
        if addr not in self.sources:
            self.sources.append(addr)
        assert self.transport
        self.transport.sendto(b"\x80" + data[1:], addr)


@dataclass
class Scene:
    """`connection` is the tunnel's, `dialled` are those of the dedicated streams; mosh's first port is `port`."""

    sshd: Sshd
    shim: Shim
    connection: asyncssh.SSHClientConnection
    port: int
    echo: Echo
    dialled: list[asyncssh.SSHClientConnection]

    async def until(self, is_so: Callable[[MoshStatus], bool]) -> MoshStatus:
        """Wait for a status of this kind."""
        async with asyncio.timeout(20):
            while not is_so(status := self.shim.status()):  # noqa: ASYNC110 - status is pulled, it has no event
                await asyncio.sleep(0.02)
            return status


class Client:
    """A UDP socket that speaks to the ingress."""

    def __init__(self, port: int) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(("127.0.0.1", port))

    async def ask(self, datagram: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        self.sock.send(datagram)
        async with asyncio.timeout(5):
            return await loop.sock_recv(self.sock, 2000)

    def send_quietly(self, datagram: bytes) -> None:
        """Send where perhaps nobody listens yet."""
        with contextlib.suppress(ConnectionRefusedError):
            self.sock.send(datagram)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def free_udp_ports(count: int) -> int:
    """The first of `count` neighbouring UDP ports that nobody holds."""
    for first in range(40000 + os.getpid() % 10000, 60000, count):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    for host in ("127.0.0.1", SERVER_SIDE):
                        held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind((host, port))
            except OSError:
                continue
            return first
    raise AssertionError("no free UDP ports")


@contextlib.asynccontextmanager
async def scene(folder: Path, *, key_options: str = "") -> AsyncIterator[Scene]:
    """A shim that runs, with short pauses; `key_options` stand before the key on the relay (a forced command)."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tunneld.shim.shim.FIRST_AGENT_PAUSE", 0.05)
        patched.setattr("tunneld.shim.dedicated_streams.FIRST_STREAM_PAUSE", 0.05)
        async with running_sshd(folder, key_options=key_options) as sshd, running_shim(sshd) as made:
            yield made


@contextlib.asynccontextmanager
async def running_shim(sshd: Sshd) -> AsyncIterator[Scene]:
    relay = Relay("127.0.0.1", sshd.port, sshd.user, (sshd.user_key,), sshd.known_hosts, ssh_config=False)
    dialled: list[asyncssh.SSHClientConnection] = []

    async def one_more() -> asyncssh.SSHClientConnection:
        dialled.append(await dial(relay, KEEPALIVE))
        return dialled[-1]

    first = free_udp_ports(3)
    mosh = Mosh(PortRange(first, first + 2), "127.0.0.1", SERVER_SIDE)
    loop = asyncio.get_running_loop()
    transport, echo = await loop.create_datagram_endpoint(Echo, local_addr=(SERVER_SIDE, first))
    connection = await dial(relay, KEEPALIVE)
    shim = Shim(mosh, dial=one_more, keepalive=KEEPALIVE, limits=Limits(), log=logger())
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(shim.run(connection))
            yield Scene(sshd, shim, connection, first, echo, dialled)
            serving.cancel()
    finally:
        transport.close()
        connection.abort()
        await connection.wait_closed()


def agent_pid(ancestor: int) -> int:
    """The agent among the processes under this sshd."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if b"-ISc" in (entry / "cmdline").read_bytes() and ancestor in ancestors(int(entry.name)):
                return int(entry.name)
    raise AssertionError("no agent runs")


def ancestors(pid: int) -> list[int]:
    line = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        line.append(pid)
    return line
