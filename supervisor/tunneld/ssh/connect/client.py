"""Our side of one SSH connection: it keeps what asyncssh tells by callbacks only, for whoever asks later."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import asyncssh

from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.failure import SessionError, classify
from tunneld.ssh.connect.hop import Hop, Phase

# sshd sends one or two debug messages with a refused forward, and some about the key at the login.
MOST_DEBUG_MESSAGES = 16

_KEY = "tunneld"


class Client(asyncssh.SSHClient):
    """Remembers how far the connection got, which host key was shown, which debug messages came, and how it ended.

    It answers no question: tunneld never prompts for a password or a passphrase.
    """

    def __init__(self, hop: Hop, *, connected: Callable[[asyncssh.SSHClientConnection], None]) -> None:
        """
        Args:
            hop: where the connection leads; its phase and its host key are written there.
            connected: is called once TCP stands, before the login.
        """
        self.hop = hop
        self.listen_lock = asyncio.Lock()
        """Held while a forward is asked for: one at a time, so that a debug message belongs to the refusal with it."""
        self.debug_messages: deque[str] = deque(maxlen=MOST_DEBUG_MESSAGES)
        self.error: Exception | None = None
        """What ended the connection; None while it stands, and when one side has closed it in good order."""
        self.jump_host: asyncssh.SSHClientConnection | None = None
        """The connection that this one runs through."""
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
        self.error = exc

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None:
        self.debug_messages.append(msg)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.hop.shown_key = _in_words(key)
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.hop.shown_key = _in_words(key)
        return False

    def note_phase(self) -> None:
        """Move from GREETING to LOGIN if the greeting has come; asyncssh has no callback for it."""
        greeted = self._connection is not None and self._connection.get_extra_info("server_version")
        if self.hop.phase is Phase.GREETING and greeted:
            self.hop.phase = Phase.LOGIN


def client_of(connection: asyncssh.SSHClientConnection) -> Client:
    """The Client of a connection that `dial` made, also once the connection is closed."""
    client = connection.get_extra_info(_KEY)
    assert isinstance(client, Client), "this connection was not made by dial"
    return client


def first_hop(connection: asyncssh.SSHClientConnection) -> tuple[str, str]:
    """The host to which this machine itself connected on the way: its name as dialled, and its address ("" if unknown).

    That is the first jump host, or the relay where there is none.
    """
    while (jump_host := client_of(connection).jump_host) is not None:
        connection = jump_host
    peer = connection.get_extra_info("peername")
    return client_of(connection).hop.host, str(peer[0]) if peer else ""


def why_ended(connection: asyncssh.SSHClientConnection) -> SessionError:
    """Why a connection is over. Without an error of its own, one side has closed it in good order."""
    client = client_of(connection)
    if client.error is not None:
        return classify(client.error, client.hop)
    return SessionError(Failure.NETWORK, f"{client.hop.address} closed the connection")


def _in_words(key: asyncssh.SSHKey) -> str:
    """A public key's kind and fingerprint, as `ssh-keygen -l` shows them."""
    return f"{key.get_algorithm()} {key.get_fingerprint()}"
