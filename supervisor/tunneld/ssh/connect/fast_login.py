"""Round trips of a login that nobody needs.

After TCP, the greeting and the key exchange, asyncssh asks "may I log in?", "without a key?" and "would this key do?",
and then signs: four round trips. Here it signs at once, and OpenSSH lets it in after two: it has both answers ready,
but its socket holds the second until the first is acknowledged (Nagle's algorithm).

asyncssh is changed through methods without an underscore only. Where one is gone the tests fail; no check is left out.
"""

from __future__ import annotations

from typing import Any

import asyncssh
from asyncssh.packet import Boolean, String

from tunneld.ssh.connect.keys import Keys

# Greetings of servers that are known to read on while we have not seen their word that a login may begin. RFC 4253
# (section 10) asks no client to wait for it, but others were not tried.
READ_ON = ("SSH-2.0-OpenSSH_", "SSH-2.0-AsyncSSH_")


def shorten_login(connection: asyncssh.SSHClientConnection, keys: Keys) -> None:
    """Let the first thing that is asked for be a login with the first key, signed, and do not wait to be invited.

    Only where signing bothers nobody: no agent, no security key. Signing without asking first is RFC 4252's own other
    way (section 7); it tells a relay nothing but the public key, as asking would, for the signature is good for this
    connection alone. A key that is refused costs no more than before, and the next ones take asyncssh's usual way.
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
        """Where asyncssh would begin. What comes next is its own to decide."""
        connection.try_next_auth = begin  # type: ignore[method-assign]

    connection.send_userauth_request = send_userauth_request  # type: ignore[method-assign]
    if keys.sign_in_one_way:
        connection.send_service_request = send_service_request  # type: ignore[method-assign]
