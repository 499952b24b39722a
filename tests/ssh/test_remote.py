"""Programs on the far side, where the far side does not answer as it should."""

from __future__ import annotations

import asyncssh
import pytest

from tunneld.ssh.remote import RemoteProgram, start


async def test_an_answer_that_makes_no_sense_is_a_refusal(
    connection: asyncssh.SSHClientConnection, confirms_oddly: None
) -> None:
    """What cannot be read starts no program, and is no fault of tunneld's."""
    with pytest.raises(asyncssh.ChannelOpenError, match="cannot be read"):
        await start(connection, b"", RemoteProgram(lambda _: None, lambda: None))
