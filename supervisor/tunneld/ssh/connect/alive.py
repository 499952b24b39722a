"""Whether the other end of a session answers: one round trip."""

from __future__ import annotations

import asyncio

import asyncssh

from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.client import why_ended
from tunneld.ssh.connect.failure import SessionError

# Seconds; as long as a login may take.
SESSION_ANSWER_TIMEOUT = 15.0


async def wait_for_answer(connection: asyncssh.SSHClientConnection) -> None:
    """Send a request that every SSH server answers, if only with a refusal, and return once the relay has answered it.

    Raises:
        SessionError: no answer came within SESSION_ANSWER_TIMEOUT, or the connection has ended.
    """
    try:
        async with asyncio.timeout(SESSION_ANSWER_TIMEOUT):
            await round_trip(connection)
    except TimeoutError:
        text = f"the relay logged us in, and then answered nothing for {SESSION_ANSWER_TIMEOUT:g} s"
        raise SessionError(Failure.NETWORK, text) from None
    if connection.is_closed():
        raise why_ended(connection)


async def round_trip(connection: asyncssh.SSHClientConnection) -> None:
    """Send what OpenSSH sends for ServerAliveInterval; return at the relay's answer, or at the connection's end."""
    await connection._make_global_request(b"keepalive@openssh.com")  # asyncssh has no public name for it
