"""A SOCKS client from its first byte to its pipe, where it does not behave, and where the relay does not."""

from __future__ import annotations

from typing import Any

import asyncssh
import pytest
import structlog

from tests.leaping import Leaping, run
from tunneld.profile import Direction, Forward, TcpAddress
from tunneld.ssh.forward import dynamic
from tunneld.ssh.forward.dynamic import HANDSHAKE_TIMEOUT, MOST_EARLY, EarlyReader, serve_socks
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.forward.pipe import PipeEnd

DYNAMIC = Forward(TcpAddress("127.0.0.1", 0), None, Direction.DYNAMIC)
GREETING = b"\x05\x01\x00"
REQUEST = GREETING + b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x16"


class ClientTransport:
    """A SOCKS client's connection: what is written to it, whether it is read, how it ended."""

    def __init__(self, *said: bytes) -> None:
        self.said = list(said)
        self.heard = b""
        self.is_reading = False
        self.ended = ""
        self.protocol: Any = None

    def get_extra_info(self, _: str) -> None:
        return None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self.heard += data

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True
        while self.said:
            self.protocol.data_received(self.said.pop(0))

    def close(self) -> None:
        self.ended = "close"

    def abort(self) -> None:
        self.ended = "abort"


def admitted(transport: ClientTransport) -> tuple[OpenForward, PipeEnd]:
    opened = OpenForward(DYNAMIC, structlog.get_logger())
    here = opened.admit()
    assert here is not None
    here.connection_made(transport)
    return opened, here


def served(transport: ClientTransport, monkeypatch: pytest.MonkeyPatch, relay: Any = None) -> tuple[OpenForward, float]:
    """The forward, and how long it took. `relay` opens the channel, or raises."""
    loop = Leaping()

    async def main() -> OpenForward:
        opened, here = admitted(transport)
        await serve_socks(None, opened, here)  # type: ignore[arg-type]
        return opened

    if relay is not None:
        monkeypatch.setattr(dynamic, "open_channel", relay)
    return run(main(), loop), loop.time()


def test_a_client_that_never_says_where_to_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is another's."""
    transport = ClientTransport(GREETING)
    opened, seconds = served(transport, monkeypatch)
    assert seconds == pytest.approx(HANDSHAKE_TIMEOUT) == 15
    assert (transport.ended, opened.connections) == ("close", 0)


def test_a_client_that_floods_before_its_answer_is_not_read_on() -> None:
    """64 KiB are kept, which a client that behaves does not fill."""
    reader, transport = EarlyReader(), ClientTransport()
    reader.take(transport)
    reader.data_received(bytes(MOST_EARLY))
    assert transport.is_reading
    reader.data_received(b"x")
    assert not transport.is_reading


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, 2),
        (asyncssh.OPEN_CONNECT_FAILED, 5),
        (asyncssh.OPEN_RESOURCE_SHORTAGE, 1),
    ],
)
def test_the_relays_refusal_is_told_in_socks_own_code(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 1928, section 6: not allowed, refused, and everything else."""

    async def refuse(*_: Any) -> PipeEnd:
        raise asyncssh.ChannelOpenError(number, "no")

    transport = ClientTransport(REQUEST)
    opened, _ = served(transport, monkeypatch, refuse)
    assert transport.heard[2:4] == bytes((5, code))
    assert (transport.ended, opened.failed, opened.target_error) == ("close", 1, None)


def test_a_client_that_left_meanwhile_takes_its_channel_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has sent is passed on before."""
    transport, far = ClientTransport(REQUEST + b"early"), ClientTransport()

    async def connect(*_: Any) -> PipeEnd:
        there = PipeEnd()
        there.connection_made(far)
        transport.protocol.connection_lost(None)
        return there

    opened, _ = served(transport, monkeypatch, connect)
    assert far.heard == b"early"
    assert (far.ended, opened.connections) == ("close", 0)


def test_a_client_that_has_said_all_still_hears_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end of file is passed on, and the pipe stays."""
    transport, far = ClientTransport(REQUEST), ClientTransport()
    passed_on: list[str] = []
    far.write_eof = lambda: passed_on.append("eof")  # type: ignore[attr-defined]

    async def connect(*_: Any) -> PipeEnd:
        there = PipeEnd()
        there.connection_made(far)
        transport.protocol.eof_received()
        return there

    opened, _ = served(transport, monkeypatch, connect)
    assert passed_on == ["eof"]
    assert (far.ended, opened.connections) == ("", 1)
