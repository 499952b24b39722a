"""What a visit hears from the relay's side. Whole visits through real servers are tested in test_canary_visit.py."""

from __future__ import annotations

import asyncio
import socket
import sys
import zlib
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import PacketDecodeError

from tests.sshd import free_port
from tunneld.core.supervise.canary import Step, Visit
from tunneld.profile import ForwardAddress, TcpAddress, UnixAddress
from tunneld.ssh.remote import canary_caller
from tunneld.ssh.remote.canary_caller import LONGEST_PROGRAM_LINE, CallerChannel, CallerProgram, program

THERE = TcpAddress("127.0.0.1", 2222)


def visit() -> Visit:
    return Visit("127.0.0.1", lambda: None)


class RefusingConnection:
    """Opens no channel."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def create_connection(self, *_: Any, **settings: Any) -> None:
        raise self._error

    create_unix_connection = create_connection


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused"), Step.REFUSED),
        (asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "[Errno 111] Connect call failed"), Step.REFUSED),
        (asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "[Errno 2] No such file"), Step.REFUSED),
        (asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "[Errno 21] Is a directory"), Step.FORBIDDEN),
        (asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Name or service not known"), Step.FORBIDDEN),
        (asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "refused by policy"), Step.FORBIDDEN),
        (PacketDecodeError("Incomplete packet"), Step.FORBIDDEN),
    ],
)
@pytest.mark.parametrize("address", [THERE, UnixAddress("/run/x")], ids=str)
async def test_nobody_there_is_told_from_not_allowed(address: ForwardAddress, error: Exception, step: Step) -> None:
    """Only the first says that the forward is broken."""
    seen = visit()
    await CallerChannel(seen).call(RefusingConnection(error), address)  # type: ignore[arg-type]
    assert seen.steps == {Step.TRIED, step}
    assert seen.why


async def test_a_relays_words_are_fit_to_be_shown() -> None:
    """They come from another machine."""
    seen = visit()
    error = asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "\x1b[2J" + "no " * 1000)
    await CallerChannel(seen).call(RefusingConnection(error), THERE)  # type: ignore[arg-type]
    assert seen.why.isprintable()
    assert len(seen.why) <= 200


class OpenedChannel:
    def __init__(self) -> None:
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1


def test_a_channel_that_opens_after_the_visit_is_closed() -> None:
    """asyncssh would lose it if its opening were cancelled."""
    seen, channel = visit(), OpenedChannel()
    caller = CallerChannel(seen)
    caller.leave()
    caller.connection_made(channel)
    caller.session_started()
    assert channel.aborted == 1
    caller = CallerChannel(seen)
    caller.connection_made(channel)
    caller.session_started()
    assert channel.aborted == 1
    caller.leave()
    assert channel.aborted == 2
    assert seen.steps == {Step.OPENED}


# As a program


def test_the_programs_words_are_found_among_others() -> None:
    """A shell may print anything before them, and a line may come in pieces."""
    seen = visit()
    caller = CallerProgram(seen)
    for piece in (b"Welcome!\nOPENED\ntunneld-canary NONSENSE\ntunneld-can", b"ary TRIED\r\ntunneld-canary TRI"):
        caller._received(piece)
    assert seen.steps == set()
    caller._received(b"ED\ntunneld-canary OPENED\n tunneld-canary SPOKE\n")
    assert seen.steps == {Step.TRIED, Step.OPENED}


def test_a_line_without_an_end_fills_no_memory() -> None:
    """And the program's own words are still found behind it."""
    seen = visit()
    caller = CallerProgram(seen)
    for _ in range(100):
        caller._received(bytes(10_000))
        assert len(caller._line) <= LONGEST_PROGRAM_LINE
    caller._received(b"\ntunneld-canary REFUSED\n")
    assert seen.steps == {Step.REFUSED}


@pytest.mark.parametrize(
    ("told", "steps"),
    [
        (b"", {Step.FORBIDDEN}),
        (b"TRIED", {Step.TRIED, Step.FORBIDDEN}),
        (b"REFUSED", {Step.REFUSED, Step.ENDED}),
        (b"OPENED", {Step.OPENED, Step.ENDED}),
    ],
)
def test_a_program_that_ends_without_a_result_was_not_allowed(told: bytes, steps: set[Step]) -> None:
    """Python is missing there, or the shell runs something else."""
    seen = visit()
    caller = CallerProgram(seen)
    caller._received(b"tunneld-canary " + told + b"\n")
    caller._ended()
    assert seen.steps == steps


async def test_a_program_that_starts_after_the_visit_is_told_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the end of its input."""
    caller = CallerProgram(visit())
    closed: list[str] = []

    async def start(*_: Any) -> None:
        caller.leave()
        monkeypatch.setattr(caller._remote, "close", lambda: closed.append("again"))

    monkeypatch.setattr(canary_caller, "start", start)
    await caller.call(None, THERE)  # type: ignore[arg-type]
    assert closed == ["again"]


# The program itself, here


async def told(address: ForwardAddress) -> list[str]:
    """What the program says, with an input that has ended."""
    code = zlib.decompress(program(address))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return [line.split()[1] for line in output.decode().splitlines()]


async def test_the_program_reaches_every_kind_of_address(tmp_path: Path) -> None:
    """And leaves when its input ends."""
    addresses: list[tuple[int, Any]] = [
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET6, ("::1", 0)),
        (socket.AF_UNIX, str(tmp_path / "socket")),
    ]
    for family, address in addresses:
        with socket.socket(family) as listener:
            listener.bind(address)
            listener.listen()
            name = listener.getsockname()
            where: ForwardAddress = UnixAddress(name) if isinstance(name, str) else TcpAddress(*name[:2])
            assert await told(where) == ["TRIED", "OPENED"]


async def test_the_program_says_that_nobody_listens(tmp_path: Path) -> None:
    """A port that is closed, and a socket that is not there."""
    assert await told(TcpAddress("127.0.0.1", free_port())) == ["TRIED", "REFUSED"]
    assert await told(UnixAddress(str(tmp_path / "none"))) == ["TRIED", "REFUSED"]
