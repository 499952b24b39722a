"""Whether the other end of a session answers: one round trip."""

from __future__ import annotations

import asyncio

import asyncssh

from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.client import why_ended
from tunneld.ssh.connect.failure import SessionError

# Seconds; as long as a login may take.
ANSWER_TIME = 15.0


async def hear_from(connection: asyncssh.SSHClientConnection) -> None:
    """Return once the relay has answered a request that every SSH server answers, if only by refusing it.

    Raises:
        SessionError: it does not, or the connection has ended.
    """
    try:
        async with asyncio.timeout(ANSWER_TIME):
            await ask(connection)
    except TimeoutError:
        text = f"the relay logged us in, and then answered nothing for {ANSWER_TIME:g} s"
        raise SessionError(Failure.NETWORK, text) from None
    if connection.is_closed():
        raise why_ended(connection)


async def ask(connection: asyncssh.SSHClientConnection) -> None:
    """Return with the relay's answer to what OpenSSH sends for ServerAliveInterval, or at the connection's end."""
    await connection._make_global_request(b"keepalive@openssh.com")  # asyncssh has no public name for it
