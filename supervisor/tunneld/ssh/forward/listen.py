"""Listeners on this host, for local and dynamic forwards. Each connection gets a channel, which the relay connects."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import asyncssh

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.profile import Direction, ForwardAddress, TcpAddress, UnixAddress
from tunneld.ssh.connect.client import client_of, why_ended
from tunneld.ssh.forward.channel import join, open_channel
from tunneld.ssh.forward.dynamic import serve_socks
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.forward.pipe import PipeEnd
from tunneld.ssh.forward.refusal import refused_here

# Connections that the kernel holds for us until we accept them; Linux took no more for many years (listen(2)).
BACKLOG = 128


class LocalListener:
    """Sockets of this host that listen, and the file of a Unix socket, which goes with them."""

    def __init__(self, server: asyncio.Server, path: Path | None = None) -> None:
        self._server = server
        self._path = path
        self._inode = path.stat().st_ino if path else 0

    def close(self) -> None:
        self._server.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()

    async def wait_closed(self) -> None:
        """Return at once: a close here takes effect at once. OpenForward closes the connections itself."""


async def listen_here(
    connection: asyncssh.SSHClientConnection, opened: OpenForward
) -> tuple[LocalListener, ForwardAddress]:
    """Bind and listen; the listener, and the address that it has got.

    Raises:
        SessionError: FORWARD_BUSY, FORWARD_FORBIDDEN, or why the connection has ended.
    """
    if connection.is_closed():
        raise why_ended(connection)
    listen = opened.forward.listen

    def accepted() -> AcceptedConnection:
        return AcceptedConnection(connection, opened)

    loop = asyncio.get_running_loop()
    try:
        if isinstance(listen, UnixAddress):
            server = await loop.create_unix_server(accepted, sock=bind_unix(Path(listen.path)), backlog=BACKLOG)
            return LocalListener(server, Path(listen.path)), listen
        server = await loop.create_server(accepted, listen.host, listen.port, backlog=BACKLOG)
        if not server.sockets:  # asyncio takes any error of socket() for an unknown family, and goes on
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    except OSError as error:
        raise refused_here(str(listen), error, client_of(connection).hop) from error
    return LocalListener(server), TcpAddress(listen.host, server.sockets[0].getsockname()[1])


def bind_unix(path: Path) -> socket.socket:
    """A socket bound to `path`, for its owner only. A dead socket of ours there is replaced.

    Raises:
        OSError: EADDRINUSE if somebody listens on a socket there, or if the path is no socket of ours.
    """
    bound = socket.socket(socket.AF_UNIX)
    try:
        if _is_stale(path):
            path.unlink()
        bound.bind(str(path))
        path.chmod(0o600)  # before it listens, so that there is no moment in which others could connect
    except BaseException:
        bound.close()
        raise
    return bound


def _is_stale(path: Path) -> bool:
    """Whether the path is a socket of ours on which nobody listens."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a listener whose queue is full lives as well, and would make us wait
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


class AcceptedConnection(asyncio.Protocol):
    """The protocol of a connection that has just been accepted here, until its PipeEnd takes its place."""

    def __init__(self, connection: asyncssh.SSHClientConnection, opened: OpenForward) -> None:
        self._connection = connection
        self._opened = opened

    def connection_made(self, transport: Any) -> None:
        here = self._opened.admit()
        if here is None or self._connection.is_closed():
            transport.abort()
            if here is not None:
                here.abort()
            return
        transport.set_protocol(here)
        here.connection_made(transport)
        serve = serve_socks if self._opened.forward.direction is Direction.DYNAMIC else _serve_local
        self._connection.create_task(serve(self._connection, self._opened, here))


async def _serve_local(connection: asyncssh.SSHClientConnection, opened: OpenForward, here: PipeEnd) -> None:
    """Have the relay connect to the target of a local forward, and make one pipe of both."""
    assert opened.forward.to is not None
    try:
        there = await open_channel(connection, opened.forward.to)
    except asyncssh.ChannelOpenError as error:
        opened.target_failed(one_line(error.reason, LONGEST_QUOTE))
        here.close()
    except BaseException:
        here.abort()
        raise
    else:
        opened.target_answered()
        join(there, here)
