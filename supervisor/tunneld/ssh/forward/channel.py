"""Channels that this side opens, on which the relay connects to a target for us."""

from __future__ import annotations

from typing import Any

import asyncssh

from tunneld.profile import ForwardAddress, UnixAddress
from tunneld.ssh.forward.pipe import PipeEnd


def join(there: PipeEnd, here: PipeEnd) -> None:
    """Make one pipe of a channel that has just been opened, and of the connection here for which it was opened."""
    if here.is_closed:
        there.abort()  # the forward was closed while the relay was connecting
    else:
        there.join(here)


async def open_channel(connection: asyncssh.SSHClientConnection, target: ForwardAddress) -> PipeEnd:
    """Have the relay connect to `target`; the channel's end of the pipe to it.

    This has no time-out of its own: if the opening is cancelled, asyncssh loses the channel, and with it the relay's
    connection to the target. The relay itself gives up after two minutes at most.

    Raises:
        asyncssh.ChannelOpenError: the relay cannot connect, or may not.
    """
    there = PipeEnd()

    def session() -> Any:
        return there

    if isinstance(target, UnixAddress):
        await connection.create_unix_connection(session, target.path, encoding=None)
    else:
        await connection.create_connection(session, target.host, target.port, encoding=None)
    return there
