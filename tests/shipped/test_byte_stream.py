"""A stream of two file descriptors, neither of which may block."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Iterator

import pytest

from tunneld.shipped.byte_stream import ByteStream


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        yield selector


@pytest.fixture(params=["two pipes", "one socket"])
def peer(request: pytest.FixtureRequest, selector: selectors.BaseSelector) -> Iterator[Peer]:
    if request.param == "one socket":
        one, other = socket.socketpair()
        peer = Peer(selector, (fd := one.detach(), fd), (fd := other.detach(), fd))
    else:
        down, up = os.pipe(), os.pipe()
        peer = Peer(selector, (down[0], up[1]), (up[0], down[1]))
    yield peer
    peer.close()


class Peer:
    """The other end of a stream, and whether the selector has told of something to read."""

    def __init__(self, selector: selectors.BaseSelector, here: tuple[int, int], there: tuple[int, int]) -> None:
        self.stream = ByteStream("any", here)
        self.source, self.sink = there
        self.told = 0
        self.stream.watch(selector, self._tell)

    def _tell(self) -> None:
        self.told += 1

    def close(self) -> None:
        for fd in {self.source, self.sink}:
            os.close(fd)


def turn(selector: selectors.BaseSelector) -> int:
    """What a loop does: tell of what is ready now. How many file descriptors are."""
    ready = selector.select(0)
    for key, mask in ready:
        key.data(mask)
    return len(ready)


def test_what_comes_is_read(peer: Peer, selector: selectors.BaseSelector) -> None:
    """None while there is nothing, nothing at the end."""
    assert peer.stream.read() is None and not turn(selector)
    os.write(peer.sink, b"hello")
    turn(selector)
    assert (peer.told, peer.stream.read()) == (1, b"hello")
    peer.stream.close()


def test_the_end_is_told(selector: selectors.BaseSelector) -> None:
    """Reading gives nothing, and writing raises."""
    one, other = socket.socketpair()
    stream = ByteStream("any", (fd := one.detach(), fd))
    stream.watch(selector, lambda: None)
    other.close()
    assert stream.read() == b""
    with pytest.raises(BrokenPipeError):
        stream.write(lambda: b"hello")
    stream.close()


def test_everything_is_written_in_order(peer: Peer, selector: selectors.BaseSelector) -> None:
    """A sink that is full makes the stream wait, without being asked for more; the selector says when it goes on."""
    pieces = [bytes([number]) * 100_000 for number in range(20)]
    left = list(pieces)

    def more() -> bytes:
        return left.pop(0) if left else b""

    peer.stream.write(more)
    assert left
    asked = len(left)
    peer.stream.write(more)
    assert len(left) == asked and not turn(selector)
    came = bytearray()
    while len(came) < sum(map(len, pieces)):
        came += os.read(peer.source, 1 << 20)
        if turn(selector):
            peer.stream.write(more)
    assert came == b"".join(pieces)
    assert not turn(selector) and not peer.told  # nothing waits for the sink any more, and nothing was to be read
    peer.stream.close()


def test_nothing_is_left_of_a_closed_stream(peer: Peer, selector: selectors.BaseSelector) -> None:
    """Not in the selector, even while it waited for the sink, nor of its file descriptors; its keeper ends as well."""
    theirs, keeper = os.pipe()
    stream = peer.stream
    stream._keeper = keeper
    stream.write(lambda: bytes(1 << 20))
    stream.close()
    assert not selector.get_map()
    assert os.read(theirs, 1) == b""
    for fd in (stream.source, stream.sink):
        with pytest.raises(OSError):
            os.fstat(fd)
    os.close(theirs)
