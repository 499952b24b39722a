"""Dial a relay: one logged-in SSH connection, its host key checked, through as many jump hosts as it takes.

`jump` of the profile, or else ProxyJump of ssh_config, names the jump hosts. Each is dialled through the one before it,
with the same checks. The connection to a jump host closes when the connection that runs through it ends, and when the
dial fails or is cancelled.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import asyncssh

from tunneld.core.destination import Destination, parse_destination
from tunneld.core.supervise.failures import Failure
from tunneld.profile import Keepalive, Relay
from tunneld.profile.lent_files import readable
from tunneld.ssh.connect import keys
from tunneld.ssh.connect.ciphers import preferred
from tunneld.ssh.connect.client import Client
from tunneld.ssh.connect.failure import SessionError, classify
from tunneld.ssh.connect.fast_login import shorten_login
from tunneld.ssh.connect.hop import Hop, Phase
from tunneld.ssh.connect.known_hosts import GLOBAL_FILES, USER_FILES, KnownHosts
from tunneld.ssh.connect.no_ignores import without_ignores
from tunneld.ssh.connect.race import DirectTunnel

# Seconds for each hop. autossh's users wait minutes for a relay that accepts and never speaks; a login over a satellite
# link to a slow relay takes less than 5.
CONNECT_TIMEOUT = 15.0  # until TCP stands, over all addresses of the name
LOGIN_TIMEOUT = 15.0  # from then until the user is in
# A chain longer than this is a ProxyJump that leads back to itself.
MOST_JUMPS = 8

# Host keys to ask for after the kinds that known_hosts has, in asyncssh's notation. Without them a relay that was set
# up anew, with other kinds of keys, just hangs up, and the user never learns that its key has changed.
OTHER_HOST_KEYS = "+ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256"

# known_hosts alone says which host keys are trusted. asyncssh would also look for X.509 authorities in the home, which
# a service may not see.
NO_X509: dict[str, Any] = {"x509_trusted_certs": None, "x509_trusted_cert_paths": None}

CONFIG_FILES = (Path("~/.ssh/config"), Path("/etc/ssh/ssh_config"))


async def dial(relay: Relay, keepalive: Keepalive, *, outage: float = 0.0) -> asyncssh.SSHClientConnection:
    """Log in to the relay. The connection carries no channel yet.

    Args:
        relay: where to, and with which files.
        keepalive: asyncssh asks each hop after `interval` seconds of silence, and ends a connection when `count`
            questions in a row stay unanswered.
        outage: seconds for which the relay has been out of reach; the longer, the slower it is asked.

    Raises:
        SessionError: the dial has failed; the text says why.
    """
    dialler = _Dialler(relay, keepalive, outage)
    return await dialler.reach(Destination(relay.user, relay.host, relay.port), relay.jump)


def parse_jump(text: str) -> Destination:
    """`[USER@]HOST[:PORT]`, IPv6 addresses in brackets, as `ssh -J` takes it.

    Raises:
        SessionError: it is not of that form.
    """
    try:
        return parse_destination(text)
    except ValueError as error:
        raise SessionError(Failure.PROTOCOL, f"the jump host {text!r} cannot be dialled: {error}") from None


class _Dialler:
    """One dial: the settings that all its hops share, and how many jump hosts it has passed."""

    def __init__(self, relay: Relay, keepalive: Keepalive, outage: float) -> None:
        self._relay = relay
        self._keepalive = keepalive
        self._outage = outage
        self._config = config_files(relay.ssh_config)
        self._jumps = 0

    async def reach(
        self,
        destination: Destination,
        jump: Sequence[str],
        via: asyncssh.SSHClientConnection | None = None,
        via_name: str = "",
    ) -> asyncssh.SSHClientConnection:
        """Log in to `destination` through the hosts of `jump`, the first of them through `via`, which `via_name` names.

        Without `jump` and `via`, ssh_config's ProxyJump counts. `via` is closed when this fails.
        """
        try:
            config = await self._look_up(destination)
            if not jump and via is None:
                jump = _configured_jumps(config)
            for text in jump:
                self._count_jump(text)
                via, via_name = await self.reach(parse_jump(text), (), via, via_name), text
            return await self._log_in(destination, config, via=via, via_name=via_name)
        except BaseException:
            if via is not None:
                via.abort()
            raise

    def _count_jump(self, text: str) -> None:
        self._jumps += 1
        if self._jumps > MOST_JUMPS:
            raise SessionError(
                Failure.PROTOCOL, f"more than {MOST_JUMPS} jump hosts, {text} the last: a ProxyJump loop?"
            )

    async def _look_up(self, destination: Destination) -> asyncssh.SSHClientConnectionOptions:
        """What ssh_config says about a destination. No key is read yet."""
        try:
            options: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(
                config=self._config, client_keys=None, **NO_X509, **_chosen(destination)
            )
            return options
        except (OSError, ValueError) as error:
            raise classify(error, Hop(destination.host, destination.port or 0)) from error

    async def _log_in(
        self,
        destination: Destination,
        config: asyncssh.SSHClientConnectionOptions,
        *,
        via: asyncssh.SSHClientConnection | None,
        via_name: str,
    ) -> asyncssh.SSHClientConnection:
        hop = Hop(config.host, config.port, config.username, via=via_name, time_limit=CONNECT_TIMEOUT)
        offered = await asyncio.to_thread(self._keys, config)
        hop.offered_keys = offered.in_words()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT) as deadline:

                def connected(made: asyncssh.SSHClientConnection) -> None:
                    hop.time_limit = LOGIN_TIMEOUT
                    deadline.reschedule(loop.time() + LOGIN_TIMEOUT)
                    shorten_login(made, offered)

                client = Client(hop, connected=connected)
                connection = await asyncssh.connect(
                    config=self._config,
                    tunnel=via or self._connector(config),
                    client_factory=lambda: client,
                    known_hosts=KnownHosts(self._known_hosts(config), hop),
                    **_chosen(destination),
                    **offered.arguments(),
                    **self._settings(config),
                )
        except (OSError, asyncssh.Error, ValueError) as error:
            if hop.phase is not Phase.CONNECTING:
                client.note_phase()
            raise classify(error, hop) from error
        connection.set_tunnel(via)
        client.jump_host = via
        without_ignores(connection)
        self._bound_unacknowledged(connection)
        return connection

    def _settings(self, config: asyncssh.SSHClientConnectionOptions) -> dict[str, Any]:
        """What is the same for every hop. ssh_config may change the ciphers and the kinds of host keys alone."""
        settings: dict[str, Any] = {
            "connect_timeout": None,  # ours covers it; asyncssh's uses wait_for, which can swallow a cancellation
            "login_timeout": 0,
            "keepalive_interval": self._keepalive.interval,
            "keepalive_count_max": self._keepalive.count,
            "compression_algs": ["none"],  # compression slowed everything down and multiplied memory (measured)
            "agent_forwarding": False,
            "x11_forwarding": False,
            **NO_X509,
            "command": None,
            "request_pty": False,
        }
        if config.config.get("Ciphers") is None:
            settings["encryption_algs"] = preferred()
        if config.config.get("HostKeyAlgorithms") is None:
            settings["server_host_key_algs"] = OTHER_HOST_KEYS
        return settings

    def _connector(self, config: asyncssh.SSHClientConnectionOptions) -> Any:
        """What asyncssh calls `tunnel`: it makes the TCP connection. None where a ProxyCommand does."""
        if config.proxy_command:
            return None
        return DirectTunnel(family=config.family or 0, local=config.local_addr or None, outage=self._outage)

    def _keys(self, config: asyncssh.SSHClientConnectionOptions) -> keys.Keys:
        get: Callable[..., Any] = config.config.get
        configured = get("IdentityFile")
        is_relay = config.orig_host == self._relay.host
        if self._relay.identity and (is_relay or not configured):
            return keys.named(self._relay.identity)
        return keys.usual(configured, agent=get("IdentityAgent"), only=bool(get("IdentitiesOnly")))

    def _known_hosts(self, config: asyncssh.SSHClientConnectionOptions) -> Sequence[Path]:
        if self._relay.known_hosts is not None:
            return (self._relay.known_hosts,)
        get: Callable[..., Any] = config.config.get
        users, everyones = get("UserKnownHostsFile", USER_FILES), get("GlobalKnownHostsFile", GLOBAL_FILES)
        return tuple(Path(file) for file in (*users, *everyones)) or GLOBAL_FILES

    def _bound_unacknowledged(self, connection: asyncssh.SSHClientConnection) -> None:
        """Let the kernel give up on unacknowledged data when the keepalive gives up on the relay.

        The keepalive notices a dead relay by itself. But the kernel would go on to send what was written until then,
        and so keep the closed socket alive, for up to 15 minutes (tcp(7), tcp_retries2).
        """
        plain = connection.get_extra_info("socket")
        if plain is not None and plain.family in (socket.AF_INET, socket.AF_INET6):
            milliseconds = int(1000 * self._keepalive.interval * (self._keepalive.count + 1))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def config_files(wanted: bool | Path) -> list[str]:
    """The ssh_config files to read, in order: as with ssh, the first value of a keyword counts.

    Args:
        wanted: the profile's ssh_config: one file, or whether to read the usual ones.
    """
    if isinstance(wanted, Path):
        return [str(readable(wanted))]
    files = (readable(file.expanduser()) for file in CONFIG_FILES) if wanted else ()
    return [str(file) for file in files if os.path.isfile(file)]  # unlike Path.is_file, without a PermissionError


def _chosen(destination: Destination) -> dict[str, Any]:
    """What was written, as asyncssh's arguments: ssh_config's values count for the rest."""
    chosen = {"host": destination.host, "port": destination.port, "username": destination.user}
    return {name: value for name, value in chosen.items() if value is not None}


def _configured_jumps(config: asyncssh.SSHClientConnectionOptions) -> list[str]:
    jumps = config.config.get("ProxyJump")
    return [] if jumps in (None, "none") else str(jumps).split(",")
