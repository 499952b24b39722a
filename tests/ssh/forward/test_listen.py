"""Listeners on this host: what is replaced, what is left alone, and what a connection meets that comes too late."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import structlog

from tests.ssh.peers import exchange
from tunneld.core.supervise.failures import Failure
from tunneld.profile import Direction, Forward, TcpAddress, UnixAddress
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.forward import open_forward
from tunneld.ssh.forward.listen import AcceptedConnection, bind_unix
from tunneld.ssh.forward.opened import OpenForward

LOCAL = Forward(TcpAddress("127.0.0.1", 0), TcpAddress("127.0.0.1", 9), Direction.LOCAL)


def left_behind(path: Path) -> None:
    """A socket on which nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def test_a_dead_socket_of_ours_is_replaced(tmp_path: Path) -> None:
    """By one that only its owner may use."""
    left_behind(tmp_path / "socket")
    with bind_unix(tmp_path / "socket"):
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600


def test_a_dead_socket_of_somebody_else_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that several users share."""
    left_behind(tmp_path / "socket")
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "socket").stat().st_uid + 1)
    with pytest.raises(OSError, match="in use"):
        bind_unix(tmp_path / "socket")
    assert (tmp_path / "socket").is_socket()


def test_a_link_to_a_dead_socket_is_no_socket(tmp_path: Path) -> None:
    """What the link leads to is not ours to remove, and neither is the link."""
    left_behind(tmp_path / "socket")
    (tmp_path / "link").symlink_to(tmp_path / "socket")
    with pytest.raises(OSError, match="in use"):
        bind_unix(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()


@pytest.mark.timeout(20)
def test_a_listener_whose_queue_is_full_is_alive(tmp_path: Path) -> None:
    """It is asked without waiting for its answer."""
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as clients:
        busy.bind(str(tmp_path / "socket"))
        busy.listen(0)
        for _ in range(4):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="in use"):
            bind_unix(tmp_path / "socket")


async def test_a_file_that_took_our_socket_s_place_stays(
    connection: asyncssh.SSHClientConnection, tmp_path: Path
) -> None:
    """Another daemon may listen there by now."""
    path = tmp_path / "socket"
    forward = Forward(UnixAddress(str(path)), TcpAddress("127.0.0.1", 9), Direction.LOCAL)
    opened = await open_forward(connection, forward, structlog.get_logger())
    path.unlink()
    other = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
    async with other:
        await opened.close()
        assert await exchange(path=path, data=b"") == b""


async def test_too_few_descriptors_are_no_fault_of_the_address(
    connection: asyncssh.SSHClientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio passes over a socket() that fails, and gives a server that listens nowhere."""

    class Nowhere:
        sockets = ()

    async def create_server(*_: Any, **settings: Any) -> Nowhere:
        return Nowhere()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_server", create_server)
    with pytest.raises(SessionError, match="LimitNOFILE") as caught:
        await open_forward(connection, LOCAL, structlog.get_logger())
    assert caught.value.failure is Failure.NETWORK


class NoticedTransport:
    """Notes its end."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


async def test_a_connection_that_comes_after_the_session_is_let_go(connection: asyncssh.SSHClientConnection) -> None:
    """The listener closes a moment later."""
    opened = OpenForward(LOCAL, structlog.get_logger())
    connection.abort()
    await connection.wait_closed()
    transport = NoticedTransport()
    AcceptedConnection(connection, opened).connection_made(transport)
    assert transport.aborted
    assert opened.connections == 0


async def test_a_connection_that_comes_after_the_forward_is_let_go(connection: asyncssh.SSHClientConnection) -> None:
    """It was in the listener's queue."""
    opened = OpenForward(LOCAL, structlog.get_logger())
    await opened.close()
    transport = NoticedTransport()
    AcceptedConnection(connection, opened).connection_made(transport)
    assert transport.aborted
    assert opened.connections == 0
