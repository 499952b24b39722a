"""Keep one session channel open on a connection that otherwise has only forwards."""

from __future__ import annotations

import asyncssh
from asyncssh.packet import PacketDecodeError

# Its standard input never ends while the channel is open, and it costs the relay one small process.
COMMAND = "exec cat"


async def hold_session(connection: asyncssh.SSHClientConnection) -> None:
    """Hold it until cancelled, or until connection or channel ends; return quietly where sessions are forbidden.

    sshd sets TCP_NODELAY only when a session starts, and `UnusedConnectionTimeout` (OpenSSH 9.2 and newer) does not
    count listeners: a tunnel without a channel may be closed by its relay.
    """
    try:
        process = await connection.create_process(COMMAND, encoding=None)
    except (asyncssh.Error, OSError, PacketDecodeError):
        return
    try:
        await process.wait_closed()
    finally:
        # Not `close`: sshd asks for signs of life on any channel that is not closed on both sides, and no client may
        # answer on one that it has closed. A program that outlives its channel (a shell that hangs in its start-up
        # files) so makes sshd end the whole connection after ClientAliveInterval x ClientAliveCountMax (measured, 9.2).
        process.stdin.write_eof()
