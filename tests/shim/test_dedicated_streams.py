"""The dedicated streams without SSH, on a clock of their own: when they are opened and closed, and how often tried."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import cast

import asyncssh
import pytest
from structlog.testing import capture_logs

from tests.leaping import Leaping, run
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.endpoint import Outlet
from tunneld.core.supervise.backoff import Limits
from tunneld.core.supervise.failures import Failure
from tunneld.log import logger
from tunneld.shim.agent_streams import AgentError, AgentStreams
from tunneld.shim.dedicated_streams import (
    DEDICATED_STREAMS,
    MAX_STREAM_PAUSE,
    STALLED_AFTER,
    STREAM_CHECK_INTERVAL,
    UNUSED_AFTER,
    DedicatedStreams,
)
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.remote.remote import RemoteProgram

FLOW = 60001 << 16
HELLO = frame.PREAMBLE + frame.message(frame.HELLO, {"versions": [1]}).encode()


class Connection:
    """An SSH connection as far as the streams need one."""

    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class Relay(AgentStreams):
    """Streams that open at once, or fail with `fault`; the times of all dials are in `dials`."""

    def __init__(self, limits: Limits) -> None:
        self.outlet = Outlet(range(60001, 60004))
        super().__init__(self.outlet, lambda events: None)
        self.loop = asyncio.get_running_loop()
        self.fault: Exception | None = None
        self.dials: list[float] = []
        self.connections: list[Connection] = []
        self.opened: dict[str, RemoteProgram] = {}
        self.dedicated = DedicatedStreams(self, self.outlet, dial=self._dial, limits=limits, log=logger())

    async def _dial(self) -> asyncssh.SSHClientConnection:
        self.dials.append(self.loop.time())
        if self.fault:
            raise self.fault
        self.connections.append(Connection())
        return cast(asyncssh.SSHClientConnection, self.connections[-1])

    async def open(
        self,
        connection: asyncssh.SSHClientConnection,
        name: str,
        program: bytes,
        *,
        lost: Callable[[], None] = lambda: None,
    ) -> RemoteProgram:
        self.outlet.attach(StreamCarrier(name, self.loop.time(), dedicated=True))
        self.outlet.receive(name, HELLO, self.loop.time())
        self.opened[name] = RemoteProgram(lambda data: None, lost)
        return self.opened[name]

    @property
    def open_streams(self) -> list[str]:
        return sorted(self.outlet.carriers)

    async def passes(self, seconds: float) -> None:
        """Let time pass as the owner does, with a check each half second."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            self.dedicated.check()
            await asyncio.sleep(min(STREAM_CHECK_INTERVAL, end - self.loop.time()))

    def has_flow(self) -> None:
        """A client has sent a datagram."""
        self.outlet.flows.admit(FLOW, self.loop.time(), key=FLOW)
        self.dedicated.want()


def with_relay(conversation: Callable[[Relay], Awaitable[None]], limits: Limits | None = None) -> None:
    """Run a conversation with such a relay, on a clock that leaps."""

    async def main() -> None:
        relay = Relay(limits or Limits())
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(relay.dedicated.keep("/join"))
            await conversation(relay)
            keeping.cancel()
        assert relay.open_streams == []
        assert all(connection.is_aborted for connection in relay.connections)

    run(main(), Leaping())


def test_they_are_opened_with_the_first_datagram() -> None:
    """Without a flow no further connection is made; with one, each stream has a connection of its own."""

    async def conversation(relay: Relay) -> None:
        await relay.passes(600)
        assert relay.dials == []
        relay.has_flow()
        await relay.passes(1)
        assert relay.open_streams == sorted(DEDICATED_STREAMS)
        assert len(relay.connections) == 2

    with_relay(conversation)


def test_they_are_closed_when_they_are_unused() -> None:
    """The last flow is a minute gone; the next datagram opens them again."""

    async def conversation(relay: Relay) -> None:
        relay.has_flow()
        await relay.passes(600)
        flow = relay.outlet.flows.get(FLOW)
        assert flow and len(relay.dials) == 2
        relay.outlet.flows.remove(flow)
        await relay.passes(UNUSED_AFTER - 1)
        assert relay.open_streams == sorted(DEDICATED_STREAMS)
        await relay.passes(2)
        assert relay.open_streams == []
        assert all(connection.is_aborted for connection in relay.connections)
        await relay.passes(600)
        relay.has_flow()
        await relay.passes(2)
        assert relay.open_streams == sorted(DEDICATED_STREAMS)

    with_relay(conversation)


def test_attempts_that_fail_become_seldom() -> None:
    """The pause doubles up to a minute, and the reason is logged once for each stream."""

    async def conversation(relay: Relay) -> None:
        relay.fault = AgentError("the agent turns us away")
        relay.has_flow()
        with capture_logs() as events:
            await relay.passes(300)
        dials = relay.dials[::2]
        assert dials == relay.dials[1::2]
        pauses = [after - before for before, after in pairwise(dials)]
        assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, MAX_STREAM_PAUSE, MAX_STREAM_PAUSE, MAX_STREAM_PAUSE])
        assert [event["stream"] for event in events if event["event"] == "stream_failed"] == [*DEDICATED_STREAMS]

    with_relay(conversation)


@pytest.mark.parametrize(
    ("failure", "limits", "least"),
    [
        (Failure.AUTHENTICATION, Limits(), 60),
        (Failure.AUTHENTICATION, Limits(initial=200, maximum=400), 100),
        (Failure.REFUSED, Limits(), 1),
        (Failure.REFUSED, Limits(initial=30, maximum=60), 15),
        (Failure.NETWORK, Limits(initial=30, maximum=60), 15),
    ],
)
def test_a_login_that_fails_waits_for_the_profiles_floor(failure: Failure, limits: Limits, least: float) -> None:
    """The profile's [backoff] counts for these connections as for the tunnel's own."""

    async def conversation(relay: Relay) -> None:
        relay.fault = SessionError(failure, "no")
        relay.has_flow()
        await relay.passes(2 * least + 1)
        assert relay.dials[2] - relay.dials[0] == pytest.approx(least)

    with_relay(conversation, limits)


def test_a_stream_that_ended_is_opened_anew() -> None:
    """It is tried again after a pause; one that held for a while begins with the first pause again."""

    async def conversation(relay: Relay) -> None:
        relay.has_flow()
        for _ in range(3):
            await relay.passes(2 * MAX_STREAM_PAUSE)
            before = len(relay.dials)
            relay.opened["stream-1"].connection_lost(None)
            await relay.passes(2)
            assert len(relay.dials) == before + 1
            assert relay.open_streams == sorted(DEDICATED_STREAMS)

    with_relay(conversation)


@pytest.mark.parametrize(("heard", "dials_in_the_end"), [("stream-2", 3), ("stream-1", 2), ("", 2)])
def test_a_stream_that_stalls_is_opened_anew_if_another_was_heard(heard: str, dials_in_the_end: int) -> None:
    """When nothing is heard on any stream, the network has gone silent, and a new connection would not help."""

    async def conversation(relay: Relay) -> None:
        relay.has_flow()
        await relay.passes(10)
        relay.outlet.carriers["stream-1"].ping(relay.loop.time())
        for dials in (2, dials_in_the_end):
            for _ in range(5):
                await relay.passes((STALLED_AFTER - 0.5) / 5)
                if heard:
                    relay.outlet.receive(heard, b"", relay.loop.time())
            assert len(relay.dials) == dials

    with_relay(conversation)
