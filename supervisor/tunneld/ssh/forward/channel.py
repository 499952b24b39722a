"""Channels that this side opens: the relay connects to a target for us."""

from __future__ import annotations

from typing import Any

import asyncssh

from tunneld.profile import ForwardAddress, UnixAddress
from tunneld.ssh.forward.pipe import PipeEnd


def join(there: PipeEnd, end: PipeEnd) -> None:
    """Make one pipe of a channel that has just been opened and the connection for which it was."""
    if end.is_closed:
        there.abort()  # the forward was closed while the relay was connecting
    else:
        there.join(end)


async def open_channel(connection: asyncssh.SSHClientConnection, target: ForwardAddress) -> PipeEnd:
    """Have the relay connect to `target`.

    It has no time-out of its own: asyncssh loses a channel whose opening is cancelled, and the relay's connection with
    it; the relay itself gives up after two minutes at most.

    Raises:
        asyncssh.ChannelOpenError: it cannot, or may not.
    """
    there = PipeEnd()

    def session() -> Any:
        return there

    if isinstance(target, UnixAddress):
        await connection.create_unix_connection(session, target.path, encoding=None)
    else:
        await connection.create_connection(session, target.host, target.port, encoding=None)
    return there
