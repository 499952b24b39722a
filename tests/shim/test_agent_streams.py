"""The streams to the agent without SSH: programs that do not greet, that are refused, that flood."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import asyncssh
import pytest

from tests.leaping import Leaping, run
from tunneld.core.printable import LONGEST_QUOTE
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import MAX_CONTROL
from tunneld.core.stream.endpoint import EndpointEvent, Message, Outlet
from tunneld.core.stream.frame import Frame
from tunneld.shim.agent_streams import START_TIMEOUT, AgentError, AgentStreams
from tunneld.ssh.remote.remote import RemoteProgram

HELLO = frame.PREAMBLE + frame.message(frame.HELLO, {"versions": [1]}).encode()
Start = Callable[[RemoteProgram], Awaitable[None]]


def opened(start: Start, monkeypatch: pytest.MonkeyPatch) -> tuple[AgentStreams, Outlet, list[EndpointEvent]]:
    """Open a stream whose program does as `start` says; returns the streams, the outlet and its events."""
    events: list[EndpointEvent] = []
    outlet = Outlet(range(60001, 60004))

    async def main() -> AgentStreams:
        streams = AgentStreams(outlet, events.extend)
        monkeypatch.setattr("tunneld.ssh.remote.remote.start", lambda connection, text, program: start(program))
        await streams.open(cast(asyncssh.SSHClientConnection, None), "control", b"program")
        return streams

    return run(main(), Leaping()), outlet, events


async def greets(program: RemoteProgram) -> None:
    program.data_received(HELLO, None)


def test_a_program_that_greets_is_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says from then on is handed to the outlet, and its events to the owner."""

    async def start(program: RemoteProgram) -> None:
        program.data_received(b"a message of the day\n" + HELLO, None)
        program.data_received(frame.message(frame.SERVING, {"join": "/x"}).encode(), None)

    streams, outlet, events = opened(start, monkeypatch)
    assert [status.name for status in streams.status()] == ["control"]
    assert outlet.carriers["control"].greeted
    assert not outlet.carriers["control"].dedicated
    assert events == [Message(frame.SERVING, {"join": "/x"})]


def test_a_program_that_does_not_greet_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login as long as any may be; and the error shows what the program said instead, on one line."""

    loops = []

    async def start(program: RemoteProgram) -> None:
        loops.append(asyncio.get_running_loop())
        program.data_received(b"\x1b[2Jonly a\nshell here" + 999 * b".", None)

    with pytest.raises(AgentError) as caught:
        opened(start, monkeypatch)
    assert loops[0].time() == START_TIMEOUT
    text = str(caught.value)
    assert text.startswith(f"the relay did not start our agent within {START_TIMEOUT:g} s (it said: [2Jonly a shell")
    assert text.isprintable()
    assert len(text) < LONGEST_QUOTE + 100


def test_a_relay_that_refuses_is_quoted_on_one_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay chooses its words; it does not choose what a terminal does with them."""

    async def start(program: RemoteProgram) -> None:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "\x1b[2Jno\nx" + 9999 * "y")

    with pytest.raises(AgentError, match=r"the relay runs no commands for us \(\[2Jno xyyy") as caught:
        opened(start, monkeypatch)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < LONGEST_QUOTE + 100


def test_a_program_that_ends_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that greets and ends in one breath; the stream is gone from the outlet."""

    async def start(program: RemoteProgram) -> None:
        program.data_received(HELLO, None)
        program.exit_status_received(3)
        program.connection_lost(None)

    with pytest.raises(AgentError, match="the command ended with exit status 3"):
        opened(start, monkeypatch)


def test_a_program_that_breaks_the_protocol_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how; the outlet counts it and lives on."""

    async def start(program: RemoteProgram) -> None:
        program.data_received(frame.PREAMBLE + Frame(frame.PING).encode(), None)

    with pytest.raises(AgentError, match="broke the protocol: the first frame is of kind 5, not a hello"):
        opened(start, monkeypatch)


def test_a_stream_that_asks_for_more_than_it_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers that wait for it are bounded."""
    streams, outlet, _ = opened(greets, monkeypatch)
    program = streams._programs["control"]
    pings = Frame(frame.PING).encode() * (MAX_CONTROL // 11 + 1)
    monkeypatch.setattr(RemoteProgram, "is_full", True)
    program.data_received(pings, None)
    assert outlet.carriers == {}
    assert program.ended.is_set()
    assert (
        streams.why_control_ended(program)
        == "the agent on the relay broke the protocol: it asks for more than it reads"
    )
