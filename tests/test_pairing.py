"""The loop of both ends, over pipes, socket pairs and UDP on this machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tunneld.core import frame
from tunneld.core.pair import Pair
from tunneld.pairing import Pairing

PATIENCE = 10.0  # seconds until a test gives up
SECRET = bytes(range(32))


class End:
    """One end of a pair, and what it was told."""

    def __init__(self, *, is_client: bool) -> None:
        self.heard: list[tuple[str, int, dict[str, Any]]] = []
        self.lost: list[tuple[str, str]] = []
        self.pairing = Pairing(
            Pair(SECRET, time.monotonic(), is_client=is_client),
            message=lambda *what: self.heard.append(what),
            stream_lost=lambda *what: self.lost.append(what),
        )

    @property
    def is_greeted(self) -> bool:
        return any(stream.greeted for stream in self.pairing.pair.streams.values())

    def step(self, seconds: float = 0.01) -> None:
        """Run for so long."""
        end = time.monotonic() + seconds
        self.pairing.call_at(end, lambda: None)
        self.pairing.run(lambda: time.monotonic() >= end)


def until(is_so: Callable[[], Any], *ends: End) -> None:
    """Run the ends in turn until this is true."""
    give_up = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < give_up, "it did not come about"
        for end in ends:
            end.step()


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    """A client's end and a far end with a stream of two pipes between them."""
    client, far = End(is_client=True), End(is_client=False)
    here, there = pipes()
    client.pairing.add_stream("ssh", *here)
    far.pairing.add_stream("first", *there)
    until(lambda: client.is_greeted and far.is_greeted, client, far)
    yield client, far
    client.pairing.close()
    far.pairing.close()


def pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    down, up = os.pipe(), os.pipe()
    return (down[0], up[1]), (up[0], down[1])


def mosh(family: int = 6) -> socket.socket:
    """What plays a mosh on the loopback."""
    sock = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("::1" if family == 6 else "127.0.0.1", 0))
    sock.settimeout(PATIENCE)
    return sock


def test_a_datagram_and_its_answer(ends: tuple[End, End]) -> None:
    """From mosh-client's socket to mosh-server's and back, whatever port mosh-client uses."""
    client, far = ends
    with mosh() as server, mosh() as first, mosh() as second:
        port = client.pairing.open_local(6)
        far.pairing.open_local(6, server.getsockname()[1])
        for number, sock in enumerate((first, second, first)):
            sock.sendto(b"question %d" % number, ("::1", port))
            until(lambda: far.pairing.pair.counts["datagrams_in"] > number, *ends)  # noqa: B023 - called in this turn
            question, source = server.recvfrom(2000)
            assert question == b"question %d" % number
            server.sendto(b"answer %d" % number, source)
            until(lambda: client.pairing.pair.counts["datagrams_in"] > number, *ends)  # noqa: B023
            assert sock.recv(2000) == b"answer %d" % number


def test_what_is_said_at_once_arrives(ends: tuple[End, End]) -> None:
    """A message may be sent before the other side has greeted."""
    client, far = ends
    one, other = socket.socketpair()
    client.pairing.add_stream("second", fd := one.detach(), fd)
    client.pairing.say("second", frame.SERVE, {"version": 1})
    client.pairing.say("nobody", frame.SERVE, {})
    far.pairing.add_stream("second", fd := other.detach(), fd)
    until(lambda: far.heard, *ends)
    assert far.heard == [("second", frame.SERVE, {"version": 1})]


def test_last_words_are_heard(ends: tuple[End, End]) -> None:
    """A peer that speaks and leaves is heard, though nothing can be written to it any more; the loss is told once."""
    client, far = ends
    far.pairing.say("first", frame.SERVING, {"error": "no"})
    far.step()
    far.pairing.drop_stream("first")
    client.pairing.say("ssh", frame.SERVE, {})
    until(lambda: client.lost, *ends)
    assert client.heard == [("ssh", frame.SERVING, {"error": "no"})]
    assert [name for name, _ in client.lost] == ["ssh"] and not far.lost
