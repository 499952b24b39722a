"""The status socket, with clients that behave and clients that do not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.until import until
from tunneld.daemon import status_socket
from tunneld.daemon.status_socket import MOST_CLIENTS, StatusSocket

LARGE = "x" * 2_000_000
"""An answer that does not fit into the kernel's buffer."""


@contextlib.asynccontextmanager
async def answering(path: Path, line: str = '{"name":"pi"}') -> AsyncIterator[StatusSocket]:
    answers = StatusSocket(path, lambda: line)
    await answers.open()
    try:
        yield answers
    finally:
        answers.close()


async def ask(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_who_asks_gets_one_line_and_the_end(tmp_path: Path) -> None:
    """A client need not send anything: `socat - UNIX:NAME.sock` shows the status."""
    async with answering(tmp_path / "pi.sock"):
        assert await ask(tmp_path / "pi.sock") == b'{"name":"pi"}\n'


async def test_only_the_owner_can_ask(tmp_path: Path) -> None:
    """The socket has its rights from the first moment."""
    async with answering(tmp_path / "pi.sock"):
        assert (tmp_path / "pi.sock").stat().st_mode & 0o777 == 0o600


async def test_a_dead_daemons_socket_is_taken_over(tmp_path: Path) -> None:
    """A killed daemon leaves its socket; the next one answers there."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "pi.sock"))
    async with answering(tmp_path / "pi.sock"):
        assert await ask(tmp_path / "pi.sock") == b'{"name":"pi"}\n'
    assert not (tmp_path / "pi.sock").exists()


async def test_garbage_changes_nothing(tmp_path: Path) -> None:
    """Whatever a client sends, the next one is answered."""
    async with answering(tmp_path / "pi.sock"):
        for garbage in (b"\x00\xff" * 5000, b"GET / HTTP/1.1\r\n\r\n", b"\n"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "pi.sock")
            writer.write(garbage)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b'{"name":"pi"}\n'
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        assert await ask(tmp_path / "pi.sock") == b'{"name":"pi"}\n'


async def test_many_clients_are_answered(tmp_path: Path) -> None:
    """A monitoring system may ask often."""
    async with answering(tmp_path / "pi.sock"):
        for _ in range(20):
            async with asyncio.TaskGroup() as asking:
                asked = [asking.create_task(ask(tmp_path / "pi.sock")) for _ in range(10)]
            assert {each.result() for each in asked} == {b'{"name":"pi"}\n'}


async def test_clients_that_never_read_are_bounded(tmp_path: Path) -> None:
    """With answers larger than the kernel's buffer, clients that read nothing hold a bounded number of places."""
    path = tmp_path / "pi.sock"
    loop = asyncio.get_running_loop()
    async with answering(path, LARGE) as answers:
        idle = [socket.socket(socket.AF_UNIX) for _ in range(MOST_CLIENTS + 1)]
        for each in idle:
            each.setblocking(False)
            await loop.sock_connect(each, str(path))
        assert await loop.sock_recv(idle[-1], 1) == b""
        assert len(answers._clients) == MOST_CLIENTS
        for each in idle:
            each.close()


async def test_a_client_that_never_reads_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a short time its place is free again."""
    monkeypatch.setattr(status_socket, "STATUS_SEND_TIMEOUT", 0.05)
    path = tmp_path / "pi.sock"
    async with answering(path, LARGE) as answers:
        with socket.socket(socket.AF_UNIX) as idle:
            idle.setblocking(False)
            await asyncio.get_running_loop().sock_connect(idle, str(path))
            await until(lambda: len(answers._clients) == 1, what="the client has its place")
            await until(lambda: not answers._clients, what="the client has lost its place")


async def test_closing_drops_who_is_still_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never reads does not keep the daemon from ending."""
    monkeypatch.setattr(status_socket, "STATUS_SEND_TIMEOUT", 60.0)
    path = tmp_path / "pi.sock"
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as idle:
        idle.setblocking(False)
        async with answering(path, LARGE) as answers:
            await loop.sock_connect(idle, str(path))
            assert await loop.sock_recv(idle, 10) == b"x" * 10
        await until(lambda: not answers._clients, what="the client is dropped")
    assert not path.exists()
