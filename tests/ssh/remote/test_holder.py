"""The session channel that is held open."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.ssh.peers import dialled, to_server, to_sshd, until
from tests.sshd import Sshd, descendants, running_sshd
from tunneld.demo.ssh_server import Server, Settings, serve
from tunneld.ssh.remote.holder import hold_session

PIDFD_GETFD = 438  # pidfd_getfd(2), on every architecture


def nodelay(server: int) -> bool:
    """Whether any process below the server has TCP_NODELAY on its connection to a client."""
    return any(_nodelay(copy) for pid in descendants(server) for copy in sockets_of(pid))


def _nodelay(copy: socket.socket) -> bool:
    with copy, contextlib.suppress(OSError):  # a listener or a Unix socket
        copy.getpeername()
        return bool(copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return False


def sockets_of(pid: int) -> Iterator[socket.socket]:
    """Copies of another process's sockets."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError):  # it is gone
        handle = os.pidfd_open(pid)
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    yield socket.socket(fileno=libc.syscall(PIDFD_GETFD, handle, int(name), 0))
        finally:
            os.close(handle)


@pytest.mark.skipif(os.geteuid() != 0, reason="looks at another process's socket")
async def test_sshd_stops_delaying_once_a_session_is_held(sshd: Sshd) -> None:
    """sshd sets TCP_NODELAY when a session starts, and only then: without it Nagle holds small packets back."""
    async with dialled(to_sshd(sshd)) as connection, asyncio.TaskGroup() as tasks:
        await connection.create_server(lambda *_: asyncssh.SSHTCPSession(), "127.0.0.1", 0, encoding=None)
        assert not nodelay(sshd.pid)
        holding = tasks.create_task(hold_session(connection))
        await until(lambda: nodelay(sshd.pid))
        holding.cancel()


async def test_it_ends_with_the_connection(server: Server, connection: asyncssh.SSHClientConnection) -> None:
    """And its program on the relay with it."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(hold_session(connection))
        await until(lambda: len(server.programs) == 1)
        server.drop()
    await until(lambda: not server.programs)


async def test_it_can_be_cancelled(server: Server, connection: asyncssh.SSHClientConnection) -> None:
    """The cancellation arrives, the channel closes, the connection stays."""
    async with asyncio.TaskGroup() as tasks:
        holding = tasks.create_task(hold_session(connection))
        await until(lambda: len(server.programs) == 1)
        holding.cancel()
    assert holding.cancelled()
    await until(lambda: not server.programs)
    assert not connection.is_closed()


async def test_where_programs_are_forbidden_it_returns(key: Path, public: str, tmp_path: Path) -> None:
    """A relay that only forwards is no fault."""
    async with serve(Settings(authorized_keys=public, programs=False)) as server:
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            await hold_session(connection)


async def test_where_the_answer_makes_no_sense_it_returns(
    connection: asyncssh.SSHClientConnection, confirms_oddly: None
) -> None:
    """A relay that breaks the protocol here costs the session that is held, and nothing else."""
    await hold_session(connection)


async def test_where_sshd_has_no_sessions_it_returns(tmp_path: Path) -> None:
    """MaxSessions 0 forbids every session and leaves forwards alone."""
    async with contextlib.AsyncExitStack() as stack:
        sshd = await stack.enter_async_context(running_sshd(tmp_path / "sshd", options=["MaxSessions 0"]))
        connection = await stack.enter_async_context(dialled(to_sshd(sshd)))
        await hold_session(connection)
        assert not connection.is_closed()


async def test_a_held_session_keeps_an_unused_connection_open(tmp_path: Path) -> None:
    """UnusedConnectionTimeout (OpenSSH 9.2) closes a connection that has listeners alone."""
    async with contextlib.AsyncExitStack() as stack:
        sshd = await stack.enter_async_context(running_sshd(tmp_path / "sshd", options=["UnusedConnectionTimeout 1"]))
        held = await stack.enter_async_context(dialled(to_sshd(sshd)))
        unused = await stack.enter_async_context(dialled(to_sshd(sshd)))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        holding = tasks.create_task(hold_session(held))
        await unused.wait_closed()
        assert not held.is_closed()
        holding.cancel()
