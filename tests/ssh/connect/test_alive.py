"""One round trip on a session: an answer, none in time, and the connection's end."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh
import pytest

from tests.leaping import Leaping, run
from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.alive import SESSION_ANSWER_TIMEOUT, wait_for_answer
from tunneld.ssh.connect.failure import SessionError


async def test_any_answer_will_do(connection: asyncssh.SSHClientConnection) -> None:
    """Our own server refuses the request, as servers do that do not know it."""
    async with asyncio.timeout(10):
        await wait_for_answer(connection)


class SilentRelay:
    """Answers after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def _make_global_request(self, _: bytes) -> None:
        await asyncio.sleep(self._seconds)

    def is_closed(self) -> bool:
        return False


def waits_for(relay: Any) -> float:
    """Seconds until it has answered."""
    loop = Leaping()
    run(wait_for_answer(relay), loop)
    return loop.time()


def test_a_relay_that_logs_in_and_then_falls_silent_is_given_up() -> None:
    """After as long as a login may take, and not before."""
    assert waits_for(SilentRelay(SESSION_ANSWER_TIMEOUT - 0.1)) == pytest.approx(14.9)
    with pytest.raises(SessionError, match="answered nothing for 15 s") as caught:
        waits_for(SilentRelay(SESSION_ANSWER_TIMEOUT + 0.1))
    assert caught.value.failure is Failure.NETWORK


async def test_the_end_of_the_connection_is_no_answer(connection: asyncssh.SSHClientConnection) -> None:
    """Its reason is told instead."""
    asyncio.get_running_loop().call_soon(connection.abort)
    with pytest.raises(SessionError) as caught:
        await wait_for_answer(connection)
    assert caught.value.failure is Failure.NETWORK
