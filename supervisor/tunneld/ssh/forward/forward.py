"""Forwards on a connection: a listener on one side, and a pipe to the other side for each connection that arrives.

A forward that is closed leaves nothing behind: its port is free at once, and the connections through it are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import asyncssh
from asyncssh.packet import PacketDecodeError
from structlog.typing import FilteringBoundLogger

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.core.supervise.canary import Visit
from tunneld.profile import Direction, Forward, ForwardAddress, TcpAddress, UnixAddress
from tunneld.ssh.connect.client import client_of, why_ended
from tunneld.ssh.connect.failure import classify
from tunneld.ssh.forward.listen import listen_here
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.forward.pipe import PipeEnd
from tunneld.ssh.forward.refusal import refused_there

# Seconds for a target to answer. Without this limit a target behind a silent firewall holds its peer for two minutes.
TARGET_TIMEOUT = 10.0


async def open_forward(
    connection: asyncssh.SSHClientConnection, forward: Forward, log: FilteringBoundLogger
) -> OpenForward:
    """Listen, on the relay or here, and forward what arrives until the forward is closed.

    A peer that connects just when the relay starts to listen may be turned away: asyncssh learns of its own listener
    one turn of the event loop after the relay's answer.

    Raises:
        SessionError: FORWARD_BUSY, FORWARD_FORBIDDEN, or why the connection has ended.
    """
    opened = OpenForward(forward, log)
    if forward.direction is Direction.REMOTE:
        await _listen_on_relay(connection, opened)
    else:
        opened.listens(*await listen_here(connection, opened))
    return opened


async def _listen_on_relay(connection: asyncssh.SSHClientConnection, opened: OpenForward) -> None:
    client = client_of(connection)
    listen = opened.forward.listen
    async with client.listen_lock:
        client.debug_messages.clear()  # what the login left there is no reason for a refusal
        try:
            listener = await _request(connection, opened, listen)
        except (asyncssh.ChannelListenError, asyncssh.Error, OSError) as error:
            if connection.is_closed():
                raise why_ended(connection) from error
            raise refused_there(str(listen), client.debug_messages, client.hop) from error
        except PacketDecodeError as error:
            raise classify(error, client.hop) from error
    if isinstance(listen, TcpAddress):
        listen = TcpAddress(listen.host, listener.get_port())
    opened.listens(_RelayListener(connection, listener), listen)


async def _request(
    connection: asyncssh.SSHClientConnection, opened: OpenForward, listen: ForwardAddress
) -> asyncssh.SSHListener:
    async def arrived(host: str | None = None, port: int = 0) -> PipeEnd:
        return await _to_target(opened, opened.visit_of(host))

    if isinstance(listen, UnixAddress):
        return await connection.create_unix_server(arrived, listen.path, encoding=None)
    return await connection.create_server(arrived, listen.host, listen.port, encoding=None)


async def _to_target(opened: OpenForward, visit: Visit | None = None) -> PipeEnd:
    """Connect to the target; the channel's end of the pipe to it. asyncssh confirms the channel when this returns.

    Raises:
        asyncssh.ChannelOpenError: there is no pipe. The relay then closes the peer's connection.
    """
    here = opened.admit(visit)
    if here is None:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many connections")
    try:
        async with asyncio.timeout(TARGET_TIMEOUT):
            await _connect(opened.forward.to, here)
        if here.is_closed:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the forward was closed meanwhile")
    except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
        here.close()
        opened.target_failed(why_no_answer(error), visit)
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the target does not answer") from None
    except BaseException:
        here.abort()
        raise
    opened.target_answered(visit)
    there = PipeEnd()
    there.join(here)
    return there


async def _connect(target: ForwardAddress | None, here: PipeEnd) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(target, UnixAddress):
        await loop.create_unix_connection(lambda: here, target.path)
    else:
        assert target is not None
        await loop.create_connection(lambda: here, target.host, target.port)


def why_no_answer(error: OSError | ValueError) -> str:
    """Why a target could not be connected to, in the system's words."""
    number = error.errno if isinstance(error, OSError) else None
    if number and number > 0:
        return os.strerror(number)  # asyncio's own text repeats the address instead of the reason
    if isinstance(error, TimeoutError):
        return f"no answer within {TARGET_TIMEOUT:g} s"
    return one_line(getattr(error, "strerror", None) or str(error), LONGEST_QUOTE) or type(error).__name__


class _RelayListener:
    """A listener on the relay, which may be gone with its connection: then there is nothing to close."""

    def __init__(self, connection: asyncssh.SSHClientConnection, listener: asyncssh.SSHListener) -> None:
        self._connection = connection
        self._listener = listener

    def close(self) -> None:
        if not self._connection.is_closed():
            self._listener.close()

    async def wait_closed(self) -> None:
        """Return when the relay has said that it no longer listens, or when the connection ends."""
        if not self._connection.is_closed():
            with contextlib.suppress(asyncssh.Error):
                await self._listener.wait_closed()
