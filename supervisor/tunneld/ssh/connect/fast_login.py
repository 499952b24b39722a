"""Leave out those round trips of a login that are not needed.

After TCP, the greeting and the key exchange, asyncssh asks "may I log in?", "without a key?" and "would this key do?",
and then signs: four round trips. Here it signs at once, and OpenSSH lets us in after two round trips: it has both
answers ready after one, but its socket holds the second until we have acknowledged the first (Nagle's algorithm).

We change asyncssh through its public methods only. If a later version lacks one of them, the tests fail; no check of
asyncssh's is left out.
"""

from __future__ import annotations

from typing import Any

import asyncssh
from asyncssh.packet import Boolean, String

from tunneld.ssh.connect.keys import Keys

# Beginnings of the greetings of servers that are known to take a login request right behind the request for the login
# service, before they have accepted the latter. RFC 4253, section 10, asks no client to wait for that; other servers
# were not tried.
READ_ON = ("SSH-2.0-OpenSSH_", "SSH-2.0-AsyncSSH_")


def shorten_login(connection: asyncssh.SSHClientConnection, keys: Keys) -> None:
    """Begin with a login that the first key has signed, and do not wait for the invitation to log in.

    This is done only where signing bothers nobody: without an agent, and without a security key. A client may sign
    without asking first (RFC 4252, section 7). The relay learns no more than the public key, which the question would
    tell as well: the signature is good for this connection alone. A key that is refused costs no more round trips than
    before, and the next keys take asyncssh's usual way.

    Args:
        connection: TCP stands, and nothing is sent yet.
        keys: what this hop is offered.
    """
    if not keys.are_at_hand:
        return
    ask, request, begin = connection.send_userauth_request, connection.send_service_request, connection.try_next_auth

    async def send_userauth_request(method: bytes, *args: bytes, **settings: Any) -> None:
        key = await connection.public_key_auth_requested() if method == b"none" else None
        if key is None:
            return await ask(method, *args, **settings)
        named = String(key.algorithm), String(key.public_data)
        return await ask(b"publickey", Boolean(True), *named, key=key, trivial=False)

    def send_service_request(service: bytes) -> None:
        request(service)
        if not str(connection.get_extra_info("server_version")).startswith(READ_ON):
            return
        connection.try_next_auth = service_accepted  # type: ignore[method-assign]
        begin()

    def service_accepted(**settings: Any) -> None:
        """asyncssh would begin here. We have begun already; what follows is asyncssh's to decide again."""
        connection.try_next_auth = begin  # type: ignore[method-assign]

    connection.send_userauth_request = send_userauth_request  # type: ignore[method-assign]
    if keys.sign_in_one_way:
        connection.send_service_request = send_service_request  # type: ignore[method-assign]
