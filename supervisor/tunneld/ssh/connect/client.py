"""Our side of one SSH connection: what asyncssh tells only by callbacks, kept for whoever asks later."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import asyncssh

from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.failure import SessionError, classify
from tunneld.ssh.connect.hop import Hop, Phase

# Debug messages worth keeping: sshd sends one or two with a refused forward, and some about the key at the login.
KEPT_MESSAGES = 16

_KEY = "tunneld"


class Client(asyncssh.SSHClient):
    """Remembers how far the connection got, which host key was shown, what the relay said beside it, how it ended.

    It answers no question: tunneld never prompts for a password or a passphrase.
    """

    def __init__(self, hop: Hop, *, connected: Callable[[asyncssh.SSHClientConnection], None]) -> None:
        self.hop = hop
        self.asking = asyncio.Lock()  # one forward is asked for at a time, so that its debug message is its own
        self.debug: deque[str] = deque(maxlen=KEPT_MESSAGES)
        self.lost: Exception | None = None
        self.via: asyncssh.SSHClientConnection | None = None  # to the jump host before it
        self._connected = connected
        self._connection: asyncssh.SSHClientConnection | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn
        conn.set_extra_info(**{_KEY: self})
        self.hop.phase = Phase.GREETING
        self._connected(conn)

    def auth_completed(self) -> None:
        self.hop.phase = Phase.RUNNING

    def connection_lost(self, exc: Exception | None) -> None:
        self.note_phase()
        self.lost = exc

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None:
        self.debug.append(msg)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.hop.host_key = describe(key)
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.hop.host_key = describe(key)
        return False

    def note_phase(self) -> None:
        """Move from GREETING to LOGIN when the greeting has come; asyncssh has no callback for it."""
        greeted = self._connection is not None and self._connection.get_extra_info("server_version")
        if self.hop.phase is Phase.GREETING and greeted:
            self.hop.phase = Phase.LOGIN


def describe(key: asyncssh.SSHKey) -> str:
    """A public key in words: its kind and fingerprint, as `ssh-keygen -l` shows them."""
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


def client_of(connection: asyncssh.SSHClientConnection) -> Client:
    """The callbacks' memory of a connection that `dial` made, also once it is closed."""
    client = connection.get_extra_info(_KEY)
    assert isinstance(client, Client), "this connection was not made by dial"
    return client


def first_hop(connection: asyncssh.SSHClientConnection) -> tuple[str, str]:
    """The host that this machine itself connected to on the way: its name as dialled, and the address that it had."""
    while (via := client_of(connection).via) is not None:
        connection = via
    peer = connection.get_extra_info("peername")
    return client_of(connection).hop.host, str(peer[0]) if peer else ""


def why_ended(connection: asyncssh.SSHClientConnection) -> SessionError:
    """Why a connection is over; without an error of its own, one side closed it in good order."""
    client = client_of(connection)
    if client.lost is not None:
        return classify(client.lost, client.hop)
    return SessionError(Failure.NETWORK, f"{client.hop.address} closed the connection")
