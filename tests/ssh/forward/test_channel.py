"""Channels that the relay connects for us, and the moment in which they become a pipe."""

from __future__ import annotations

from typing import Any

import asyncssh
import pytest

from tests.sshd import free_port
from tunneld.profile import TcpAddress
from tunneld.ssh.forward.channel import join, open_channel
from tunneld.ssh.forward.pipe import PipeEnd


class NotedTransport:
    """Notes what is done to it."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.notes.append(name)


def end() -> tuple[PipeEnd, NotedTransport]:
    made, transport = PipeEnd(), NotedTransport()
    made.connection_made(transport)
    transport.notes.clear()
    return made, transport


def test_both_ends_of_a_new_pipe_are_read() -> None:
    """Each had waited for the other."""
    (there, far), (here, near) = end(), end()
    join(there, here)
    assert far.notes == near.notes == ["resume_reading"]


def test_a_channel_that_opens_too_late_is_closed() -> None:
    """The forward, or its client, went while the relay was connecting."""
    (there, far), (here, _) = end(), end()
    here.abort()
    join(there, here)
    assert there.is_closed
    assert far.notes == ["abort"]


async def test_a_target_that_refuses_the_relay_is_an_error(connection: asyncssh.SSHClientConnection) -> None:
    """With the relay's reason."""
    with pytest.raises(asyncssh.ChannelOpenError) as caught:
        await open_channel(connection, TcpAddress("127.0.0.1", free_port()))
    assert caught.value.code == asyncssh.OPEN_CONNECT_FAILED
