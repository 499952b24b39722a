"""Keep one session channel open on a connection that otherwise has only forwards."""

from __future__ import annotations

import asyncssh

# Its standard input never ends while the channel is open, and it costs the relay one small process.
COMMAND = "exec cat"


async def hold_session(connection: asyncssh.SSHClientConnection) -> None:
    """Hold it until cancelled, or until connection or channel ends; return quietly where sessions are forbidden.

    sshd sets TCP_NODELAY only when a session starts, and `UnusedConnectionTimeout` (OpenSSH 9.2 and newer) does not
    count listeners: a tunnel without a channel may be closed by its relay.
    """
    try:
        async with connection.create_process(COMMAND, encoding=None, stderr=asyncssh.DEVNULL) as process:
            await process.wait_closed()
    except (asyncssh.Error, OSError):
        return
