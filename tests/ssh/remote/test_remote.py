"""Programs on the far side, where the far side does not answer as it should."""

from __future__ import annotations

import errno
import os

import asyncssh
import pytest

from tunneld.ssh.remote.remote import RemoteProgram, start


async def test_an_answer_that_makes_no_sense_is_a_refusal(
    connection: asyncssh.SSHClientConnection, confirms_oddly: None
) -> None:
    """What cannot be read starts no program, and is no fault of tunneld's."""
    with pytest.raises(asyncssh.ChannelOpenError, match="cannot be read"):
        await start(connection, b"", RemoteProgram(lambda _: None, lambda: None))


async def test_a_connection_that_is_reset_meanwhile_is_a_refusal(
    connection: asyncssh.SSHClientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's error reaches the one who waits for the program's start; it must not end the tunnel."""

    async def reset(*_: object) -> bool:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    monkeypatch.setattr(asyncssh.SSHClientChannel, "_make_request", reset)
    with pytest.raises(asyncssh.ChannelOpenError, match="is lost"):
        await start(connection, b"", RemoteProgram(lambda _: None, lambda: None))
