"""Ways to reach the servers that the tests of `ssh/` use, and small servers behind forwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.sshd import Sshd
from tests.until import until
from tunneld.demo.ssh_server import Server
from tunneld.profile import Keepalive, Relay
from tunneld.ssh.connect.dial import dial

KEEPALIVE = Keepalive(interval=10, count=3)


def to_server(server: Server, key: Path, known_hosts: Path) -> Relay:
    return Relay(host="127.0.0.1", port=server.port, identity=(key,), known_hosts=known_hosts, ssh_config=False)


def to_sshd(sshd: Sshd, **changes: Any) -> Relay:
    relay = Relay(
        host="127.0.0.1",
        port=sshd.port,
        user=sshd.user,
        identity=(sshd.user_key,),
        known_hosts=sshd.known_hosts,
        ssh_config=False,
    )
    return replace(relay, **changes)


@contextlib.asynccontextmanager
async def dialled(relay: Relay, keepalive: Keepalive = KEEPALIVE) -> AsyncIterator[asyncssh.SSHClientConnection]:
    connection = await dial(relay, keepalive)
    try:
        yield connection
    finally:
        connection.close()
        await connection.wait_closed()


@contextlib.asynccontextmanager
async def agent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A real ssh-agent."""
    path = folder / "agent"
    process = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(path), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()  # it listens
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def listening(
    serve_one: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any], **where: Any
) -> AsyncIterator[int]:
    """A TCP server on loopback (`path=`: a Unix one) that treats each connection so; yields its port."""

    being_served: set[asyncio.StreamWriter] = set()

    async def serve_until_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        being_served.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve_one(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        being_served.discard(writer)

    if "path" in where:
        server: asyncio.Server = await asyncio.start_unix_server(serve_until_end, **where)
        port = 0
    else:
        server = await asyncio.start_server(serve_until_end, "127.0.0.1", where.get("port", 0))
        port = server.sockets[0].getsockname()[1]
    try:
        yield port
    finally:
        server.close()
        for writer in being_served:
            writer.transport.abort()
        await until(lambda: not being_served)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back, then the end of file."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def exchange(port: int = 0, *, path: Path | None = None, data: bytes = b"hello") -> bytes:
    """Send `data` and an end of file, and return all that comes back."""
    if path is not None:
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read(-1)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
