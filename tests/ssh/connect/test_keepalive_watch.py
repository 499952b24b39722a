"""A vigil over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncssh
import pytest

from tests.ssh.peers import dialled, to_sshd
from tests.sshd import Sshd
from tests.tunnel.supervised import Gate
from tunneld.ssh.connect.keepalive_watch import KeepaliveWatch


@contextlib.asynccontextmanager
async def watched(connection: asyncssh.SSHClientConnection, interval: float) -> AsyncIterator[KeepaliveWatch]:
    vigil = KeepaliveWatch(connection, interval)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(vigil.run())
        yield vigil
        watching.cancel()


@pytest.fixture
async def gate(sshd: Sshd) -> AsyncIterator[Gate]:
    async with Gate(sshd.port) as made:
        yield made


async def test_a_relay_that_answers_is_trusted(sshd: Sshd) -> None:
    """Each question measures the round trip."""
    async with dialled(to_sshd(sshd)) as connection, watched(connection, 0.01) as vigil:
        async with asyncio.timeout(10):
            while vigil.rtt is None:  # noqa: ASYNC110 (nobody tells when a value comes)
                await asyncio.sleep(0.01)
            await vigil.trusted()
        assert 0 < vigil.rtt < 1
        assert vigil.silence is None


async def test_a_relay_that_falls_silent_is_doubted(sshd: Sshd, gate: Gate) -> None:
    """The kernel in between acknowledges the question; no answer comes all the same."""
    async with dialled(to_sshd(sshd, port=gate.port, known_hosts=sshd.known_on(gate.port))) as connection:
        gate.stalled.set()
        async with watched(connection, 0.01) as vigil, asyncio.timeout(10):
            await vigil.doubted()
            assert vigil.silence is not None
        connection.abort()


async def test_doubt_ends_with_the_answer(sshd: Sshd) -> None:
    """A relay that was stopped and goes on."""
    async with dialled(to_sshd(sshd)) as connection, watched(connection, 0.01) as vigil:
        with sshd.frozen():
            async with asyncio.timeout(10):
                await vigil.doubted()
        async with asyncio.timeout(10):
            await vigil.trusted()


async def test_a_nudge_finds_out_at_once(sshd: Sshd, gate: Gate) -> None:
    """Long before the interval is over."""
    async with dialled(to_sshd(sshd, port=gate.port, known_hosts=sshd.known_on(gate.port))) as connection:
        gate.stalled.set()
        async with watched(connection, 3600) as vigil, asyncio.timeout(10):
            vigil.nudge()
            await vigil.doubted()
        connection.abort()


async def test_the_end_of_the_connection_is_no_answer(sshd: Sshd) -> None:
    """Whoever watches the connection tells that; the vigil asks nobody any more, and measures nothing."""
    async with dialled(to_sshd(sshd)) as connection:
        connection.abort()
        await connection.wait_closed()
        async with watched(connection, 0.001) as vigil:
            await asyncio.sleep(0.02)
            assert vigil.rtt is None
