"""What is remembered of a connection, told by the callbacks in the order in which asyncssh calls them."""

from __future__ import annotations

from typing import Any

import asyncssh
import pytest

from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.client import MOST_DEBUG_MESSAGES, Client, client_of, first_hop, why_ended
from tunneld.ssh.connect.hop import Hop, Phase


class PlayedConnection:
    """As much of a connection as a Client sees."""

    def __init__(self, **info: Any) -> None:
        self.info = info

    def set_extra_info(self, **info: Any) -> None:
        self.info |= info

    def get_extra_info(self, name: str) -> Any:
        return self.info.get(name)


def made(hop: Hop, **info: Any) -> tuple[Client, Any]:
    """A Client, and its connection on which TCP stands."""
    connection: Any = PlayedConnection(**info)
    client = Client(hop, connected=lambda _: None)
    client.connection_made(connection)
    return client, connection


def test_the_phase_follows_what_the_server_has_said() -> None:
    """A time-out and a hang-up are told apart by it."""
    client, connection = made(Hop("relay"))
    phases = [client.hop.phase]
    client.note_phase()
    phases.append(client.hop.phase)
    connection.set_extra_info(server_version="SSH-2.0-x")
    client.note_phase()
    phases.append(client.hop.phase)
    client.auth_completed()
    client.note_phase()
    phases.append(client.hop.phase)
    assert phases == [Phase.GREETING, Phase.GREETING, Phase.LOGIN, Phase.RUNNING]


def test_whoever_waits_for_tcp_is_told() -> None:
    """From there on another time-out counts."""
    told: list[object] = []
    client = Client(Hop("relay"), connected=told.append)
    connection: Any = PlayedConnection()
    client.connection_made(connection)
    assert told == [connection]
    assert client_of(connection) is client


def test_a_host_key_that_nobody_trusts_is_refused_and_noted() -> None:
    """Key or CA: asyncssh asks only when known_hosts does not have it."""
    key = asyncssh.generate_private_key("ssh-ed25519").convert_to_public()
    for ask in ("validate_host_public_key", "validate_host_ca_key"):
        client, _ = made(Hop("relay"))
        assert getattr(client, ask)("relay", "192.0.2.1", 22, key) is False
        assert client.hop.shown_key == f"ssh-ed25519 {key.get_fingerprint()}"


def test_only_the_last_debug_messages_are_kept() -> None:
    """A relay that sends millions of them fills no memory."""
    client, _ = made(Hop("relay"))
    for number in range(1000):
        client.debug_msg_received(str(number), "en", False)
    assert list(client.debug_messages) == [str(number) for number in range(1000 - MOST_DEBUG_MESSAGES, 1000)]


def test_a_connection_that_was_lost_says_why() -> None:
    """By its own error, and by how far it had got."""
    client, connection = made(Hop("relay"), server_version="SSH-2.0-x")
    client.connection_lost(asyncssh.ConnectionLost("Connection lost"))
    error = why_ended(connection)
    assert error.failure is Failure.REFUSED
    assert "closed the connection during the login" in str(error)


@pytest.mark.parametrize("host", ["relay", "2001:db8::1"])
def test_a_connection_that_was_closed_in_good_order_says_so(host: str) -> None:
    """There is no error to read it from."""
    client, connection = made(Hop(host))
    client.connection_lost(None)
    error = why_ended(connection)
    assert error.failure is Failure.NETWORK
    assert str(error) == f"{client.hop.address} closed the connection"


def test_the_first_hop_is_the_one_that_this_machine_reaches() -> None:
    """Behind however many jump hosts the relay is; its address is not known when TCP is gone."""
    _, outer_connection = made(Hop("outer"), peername=("192.0.2.1", 22))
    inner, inner_connection = made(Hop("inner"), peername=None)
    relay, relay_connection = made(Hop("relay"), peername=None)
    inner.jump_host, relay.jump_host = outer_connection, inner_connection
    assert first_hop(relay_connection) == first_hop(outer_connection) == ("outer", "192.0.2.1")
    outer_connection.set_extra_info(peername=None)
    assert first_hop(relay_connection) == ("outer", "")
