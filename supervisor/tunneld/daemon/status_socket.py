"""The status socket of one tunnel. A client gets one line of JSON, then the end. What the client sends is ignored."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import cast

from tunneld.status import json_socket

# Clients at the same time. An answer takes a millisecond, so clients that stay do not wait for an answer.
MOST_CLIENTS = 32

# Seconds for a client to take its line. The line has 2 KB, which fit into the kernel's buffer, unless that is full.
STATUS_SEND_TIMEOUT = 2.0


class StatusClient(asyncio.Protocol):
    """The connection of one client."""

    def __init__(self, say: Callable[[], str], clients: set[asyncio.Transport]) -> None:
        self._say = say
        self._clients = clients
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._clients) >= MOST_CLIENTS:
            self._transport.abort()
            return
        self._clients.add(self._transport)
        self._end = asyncio.get_running_loop().call_later(STATUS_SEND_TIMEOUT, self._transport.abort)
        self._transport.write(self._say().encode() + b"\n")
        self._transport.close()  # after the line has gone out

    def connection_lost(self, error: Exception | None) -> None:
        self._clients.discard(self._transport)
        if self._end is not None:
            self._end.cancel()


class StatusSocket:
    """Listens at `path`. Its owner has the tunnel's lock, so an old socket at that path was left by a dead daemon."""

    def __init__(self, path: Path, say: Callable[[], str]) -> None:
        self._path = path
        self._say = say
        self._clients: set[asyncio.Transport] = set()
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        """Listen. The user of this process and root can ask. So can the group, if it may enter the folder."""
        self._path.unlink(missing_ok=True)
        may_group_ask = self._path.parent.stat().st_mode & stat.S_IXGRP
        listener = json_socket.listen(str(self._path), mode=0o660 if may_group_ask else 0o600)
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(lambda: StatusClient(self._say, self._clients), sock=listener)
        except BaseException:
            listener.close()
            raise

    def close(self) -> None:
        """Stop listening, drop the clients that are still reading, and remove the socket."""
        if self._server is not None:
            self._server.close()
        for each in list(self._clients):
            each.abort()
        with contextlib.suppress(OSError):
            self._path.unlink()
