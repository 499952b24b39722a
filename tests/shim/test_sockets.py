"""The flows' sockets: real UDP on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from tunneld.core.stream.flow import MAX_DATAGRAM, Flow
from tunneld.shim.sockets import FlowSockets
from tunneld.shipped.udp_sockets import MAX_BATCH


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """mosh-server's stand-in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        made.bind(("127.0.0.1", 0))
        yield made


class Sockets(FlowSockets):
    """Flow sockets, and what they told."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", self._note_answer, self._note_refusal)
        self.answers: list[tuple[Flow, bytes]] = []
        self.refused: list[Flow] = []
        self.news = asyncio.Event()

    def _note_answer(self, flow: Flow, datagram: bytes) -> None:
        self.answers.append((flow, datagram))
        self.news.set()

    def _note_refusal(self, flow: Flow) -> None:
        self.refused.append(flow)
        self.news.set()


def flow_to(port: int, serial: int = 0) -> Flow:
    return Flow(port << 16 | serial, serial, None, 0.0)


async def test_each_flow_has_an_address_of_its_own(server: socket.socket) -> None:
    """The server can tell them apart, and each answer comes back on its own flow."""
    sockets, loop = Sockets(), asyncio.get_running_loop()
    flows = [flow_to(server.getsockname()[1], serial) for serial in range(2)]
    addresses = []
    for flow in flows:
        sockets.send(flow, b"hello")
        datagram, address = await loop.sock_recvfrom(server, 2000)
        assert datagram == b"hello"
        addresses.append(address)
    assert len(set(addresses)) == 2
    await loop.sock_sendto(server, b"back", addresses[1])
    await sockets.news.wait()
    assert sockets.answers == [(flows[1], b"back")]
    sockets.close_all()


async def test_an_answer_that_is_too_large_is_seen_as_such(server: socket.socket) -> None:
    """It is cut, but longer than any datagram that is passed on, so that the outlet drops it."""
    sockets, loop, flow = Sockets(), asyncio.get_running_loop(), flow_to(server.getsockname()[1])
    sockets.send(flow, b"hello")
    _, address = await loop.sock_recvfrom(server, 2000)
    await loop.sock_sendto(server, bytes(9000), address)
    await sockets.news.wait()
    assert len(sockets.answers[0][1]) == MAX_DATAGRAM + 1
    sockets.close_all()


async def test_one_busy_flow_leaves_the_others_their_turn(server: socket.socket) -> None:
    """No more than a batch is read at a time."""
    sockets, loop, flow = Sockets(), asyncio.get_running_loop(), flow_to(server.getsockname()[1])
    sockets.send(flow, b"hello")
    _, address = await loop.sock_recvfrom(server, 2000)
    for _ in range(MAX_BATCH + 1):
        await loop.sock_sendto(server, b"back", address)
    sockets.answers.clear()
    sockets._read(flow, sockets._sockets[flow.number])
    assert len(sockets.answers) <= MAX_BATCH
    sockets.close_all()


async def test_a_port_where_nothing_listens_is_told_of(server: socket.socket) -> None:
    """The system says so after the first datagram."""
    sockets, flow = Sockets(), flow_to(server.getsockname()[1])
    server.close()
    sockets.send(flow, b"hello")
    async with asyncio.timeout(5):
        await sockets.news.wait()
    assert sockets.refused == [flow]
    descriptor = sockets._sockets[flow.number].fileno()
    sockets.close(flow)
    sockets.close(flow)
    assert not asyncio.get_running_loop().remove_reader(descriptor)


async def test_a_datagram_after_a_refusal_tells_of_it(server: socket.socket) -> None:
    """A system that knows already that nothing listens refuses the next datagram."""
    sockets, flow = Sockets(), flow_to(server.getsockname()[1])
    server.close()
    sockets.send(flow, b"hello")
    sockets.send(flow, b"hello")  # on loopback the ICMP answer to the first is there already
    assert sockets.refused == [flow]
    sockets.close_all()


async def test_a_datagram_for_which_there_is_no_room_is_lost(server: socket.socket) -> None:
    """It costs neither the flow nor anything else."""
    sockets, flow = Sockets(), flow_to(server.getsockname()[1])
    sockets.send(flow, b"hello")

    class Full:
        def send(self, datagram: bytes) -> None:
            raise BlockingIOError

    real = sockets._sockets[flow.number]
    sockets._sockets[flow.number] = Full()  # type: ignore[assignment]
    sockets.send(flow, b"hello")
    assert sockets.refused == []
    sockets._sockets[flow.number] = real
    sockets.close_all()
