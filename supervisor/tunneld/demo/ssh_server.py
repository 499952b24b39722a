"""An SSH server inside this process, for `tunneld demo` and for tests. It plays the relay, and the host's own sshd.

The server listens on loopback, runs programs as the user of this process, and lets in only the keys that it was given.
It obeys `permitlisten`, `permitopen`, `command`, `no-pty` and the like of authorized_keys. Do not use it on a network.

An earlier connection of the same key may still hold a port that a client asks for. If that connection does not answer
any more, the server takes the port from it: a host that comes back after a power cut need not wait for keepalives.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import getpass
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import asyncssh

from tunneld.demo.server_program import ServerProgram

# Seconds for killed programs to end. The kernel needs almost none.
REAP_TIMEOUT = 5.0

# Seconds within which a connection that holds a port must answer, when the owner of its key asks for the port again.
HOLDER_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server allows. The defaults are those of a relay that serves tunnels and runs programs."""

    authorized_keys: str  # the lines of an authorized_keys file, with options
    address: str = "127.0.0.1"
    port: int = 0
    host_key: asyncssh.SSHKey | None = None  # None: the server makes one
    listeners: bool = True  # remote forwards, TCP and Unix
    opens: tuple[tuple[str, int], ...] | bool = False  # direct forwards: to these places, to all, or to none
    programs: bool = True
    terminals: bool = True
    gateway_ports: bool = False  # True: GatewayPorts clientspecified. False: listeners are on loopback only
    server_address: str | None = None  # what SSH_CONNECTION says. None: the address of the connection
    environment: Mapping[str, str] = field(default_factory=dict)


class Server:
    """A running server."""

    def __init__(self, settings: Settings, host_key: asyncssh.SSHKey) -> None:
        self.settings = settings
        self.host_key = host_key.convert_to_public()
        self.keys = _Keys(settings.authorized_keys)
        self.port = 0
        self.connections: dict[asyncssh.SSHServerConnection, _Guard] = {}  # logged in or about to
        self.programs: set[ServerProgram] = set()

    def known_hosts(self) -> str:
        """The line for a known_hosts file."""
        return f"[{self.settings.address}]:{self.port} {self.host_key.export_public_key('openssh').decode()}"

    async def run(self, session: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run the program that a client asks for."""
        guard = self.connections[cast(asyncssh.SSHServerConnection, session.channel.get_connection())]
        program = ServerProgram(session, environment=guard.environment(), folder=_home())
        self.programs.add(program)
        try:
            await program.run()
        finally:
            self.programs.discard(program)
        await session.wait_closed()  # and what asyncssh has to tidy up then

    def drop(self) -> None:
        """Cut every connection without a farewell, as a relay that crashes."""
        for connection in tuple(self.connections):
            connection.abort()


@contextlib.asynccontextmanager
async def serve(settings: Settings) -> AsyncIterator[Server]:
    """Run a server. Afterwards its connections are cut, and its programs have ended."""
    host_key = settings.host_key or asyncssh.generate_private_key("ssh-ed25519")
    server = Server(settings, host_key)
    acceptor = await asyncssh.listen(
        settings.address,
        settings.port,
        config=[],
        server_factory=lambda: _Guard(server),
        process_factory=server.run if settings.programs else None,
        server_host_keys=[host_key],
        password_auth=False,
        kbdint_auth=False,
        gss_host=None,
        allow_pty=settings.terminals,
        line_editor=False,
        agent_forwarding=False,
        x11_forwarding=False,
        compression_algs=["none"],
        encoding=None,
    )
    server.port = acceptor.get_port()
    try:
        yield server
    finally:
        acceptor.close()
        await _stop(server)


async def _stop(server: Server) -> None:
    server.drop()
    async with asyncio.timeout(REAP_TIMEOUT):
        for connection in tuple(server.connections):
            await connection.wait_closed()
        for program in tuple(server.programs):
            await program.gone.wait()


class _Guard(asyncssh.SSHServer):
    """Allows or refuses what one connection asks for, by the settings and by the options of its key."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._settings = server.settings
        self._connection: asyncssh.SSHServerConnection | None = None
        self._keys = copy(server.keys)
        self.ports: set[int] = set()  # on which it has listened

    @property
    def key(self) -> bytes:
        """The public key with which the client logged in."""
        return self._keys.accepted

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._server.connections[conn] = self

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._server.connections.pop(self._connection, None)

    def begin_auth(self, username: str) -> bool:
        assert self._connection is not None
        self._connection.set_authorized_keys(self._keys)
        return True

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        """asyncssh asks this only where programs are forbidden: a session, which then refuses every program."""
        return asyncssh.SSHServerSession()

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        opens = self._settings.opens
        return self._allow(opens if isinstance(opens, bool) else (dest_host, dest_port) in opens)

    def unix_connection_requested(self, dest_path: str) -> bool:
        return self._allow(self._settings.opens is True)

    async def server_requested(self, listen_host: str, listen_port: int) -> Any:
        if not self._settings.listeners or not self._may_listen(listen_host, listen_port):
            return self._forbid(f"port forwarding: {listen_host} port {listen_port} is not permitted")
        bind = listen_host if self._settings.gateway_ports or _is_loopback(listen_host) else "127.0.0.1"
        try:
            return await self._listen(bind, listen_host, listen_port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not await self._take_over(listen_port):
                raise
        return await self._listen(bind, listen_host, listen_port)

    def unix_server_requested(self, listen_path: str) -> bool:
        # permitlisten names ports. sshd lets such a key listen on any path; here the key has only its ports.
        if not self._settings.listeners or self._permitted():
            return bool(self._forbid(f"streamlocal forwarding: {listen_path} is not permitted"))
        return True

    async def _listen(self, bind: str, host: str, port: int) -> asyncssh.SSHListener:
        """Listen on `bind`. The client is told the host and port that it asked for. Raises OSError."""
        assert self._connection is not None
        listener = await self._connection.forward_local_port(bind, port, host, port)
        self.ports.add(listener.get_port())
        return listener

    async def _take_over(self, port: int) -> bool:
        """Drop earlier connections of this key that held `port` and do not answer. Return whether there were any."""
        earlier = [
            connection
            for connection, guard in self._server.connections.items()
            if guard is not self and guard.key == self.key and port in guard.ports
        ]
        silent = [connection for connection in earlier if not await _answers(connection)]
        for connection in silent:
            connection.abort()
            await connection.wait_closed()
        return bool(silent)

    def _allow(self, allowed: bool) -> bool:
        if not allowed:
            reason = "open is not permitted"
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, reason)
        return True

    def _forbid(self, reason: str) -> bool:
        """Refuse, and tell the client why in a debug message, as sshd does: the refusal itself has no text."""
        assert self._connection is not None
        self._connection.send_debug(reason)
        return False

    def _permitted(self) -> Sequence[str]:
        assert self._connection is not None
        return cast(Sequence[str], self._connection.get_key_option("permitlisten", ()))

    def _may_listen(self, host: str, port: int) -> bool:
        permitted = self._permitted()
        return not permitted or any(permits(each, host, port) for each in permitted)

    def environment(self) -> dict[str, str]:
        assert self._connection is not None
        get = self._connection.get_extra_info
        client, own = get("peername")[:2], get("sockname")[:2]
        address = self._settings.server_address or own[0]
        return {
            "HOME": _home(),
            "USER": getpass.getuser(),
            "LOGNAME": getpass.getuser(),
            "SHELL": "/bin/sh",
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "SSH_CLIENT": f"{client[0]} {client[1]} {own[1]}",
            "SSH_CONNECTION": f"{client[0]} {client[1]} {address} {own[1]}",
            **self._settings.environment,
        }


class _Keys(asyncssh.SSHAuthorizedKeys):
    """The keys with which one connection may log in."""

    accepted = b""  # the key that was looked up last: right after that, the signature of the login is checked

    def validate(self, key: asyncssh.SSHKey, *about: Any, **more: Any) -> Mapping[str, object] | None:
        options = super().validate(key, *about, **more)
        if options is not None:
            self.accepted = key.public_data
        return options


async def _answers(connection: asyncssh.SSHServerConnection) -> bool:
    """Whether the client answers a request, which all clients do, within HOLDER_TIMEOUT seconds."""
    try:
        async with asyncio.timeout(HOLDER_TIMEOUT):
            # OpenSSH sends this for ClientAliveInterval. asyncssh has no public function for it.
            await connection._make_global_request(b"keepalive@openssh.com")
    except TimeoutError:
        return False
    return True


def permits(pattern: str, host: str, port: int) -> bool:
    """Whether a permitlisten pattern, `[HOST:]PORT` (sshd(8)), covers a listener. Names are compared as written."""
    match = re.fullmatch(r"(?:(?:\[(.+)\]|([^:]*)):)?(\d+|\*)", pattern)
    if match is None:
        return False
    bracketed, plain, wanted = match.groups()
    name = bracketed or plain
    return wanted in ("*", str(port)) and (name is None or fnmatchcase(host.lower(), name.lower()))


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _home() -> str:
    return str(Path.home())
