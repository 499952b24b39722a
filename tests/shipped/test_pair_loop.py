"""The loop of both ends, over pipes, socket pairs and UDP on this machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.outbox import OutgoingPacket
from tunneld.core.pair.pair import Pair
from tunneld.core.stream import frame
from tunneld.shipped import own_addresses, pair_loop
from tunneld.shipped.pair_loop import PairLoop

PATIENCE = 20.0  # seconds until a test gives up
SECRET = bytes(range(32))


class End:
    """One end of a pair, and what it was told."""

    def __init__(self, *, is_client: bool) -> None:
        self.heard: list[tuple[str, int, dict[str, Any]]] = []
        self.lost: list[tuple[str, str]] = []
        self.noted: list[tuple[str, Any]] = []
        self.loop = PairLoop(
            Pair(SECRET, time.monotonic(), is_client=is_client),
            message=lambda *what: self.heard.append(what),
            stream_lost=lambda *what: self.lost.append(what),
        )

    @property
    def is_greeted(self) -> bool:
        return any(stream.greeted for stream in self.loop.pair.streams.values())

    def step(self, seconds: float = 0.01) -> None:
        """Run for so long."""
        end = time.monotonic() + seconds
        self.loop.call_at(end, lambda: None)
        self.loop.run(lambda: time.monotonic() >= end)


def until(is_so: Callable[[], Any], *ends: End, what: Callable[[], str] = lambda: "it did not come about") -> None:
    """Run the ends in turn until this is true; `what` tells of a failure."""
    give_up = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < give_up, what()
        for end in ends:
            end.step()


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    """A client's end and a far end with a stream of two pipes between them."""
    client, far = End(is_client=True), End(is_client=False)
    here, there = pipes()
    client.loop.add_stream("ssh", *here)
    far.loop.add_stream("first", *there)
    until(lambda: client.is_greeted and far.is_greeted, client, far)
    yield client, far
    client.loop.close()
    far.loop.close()


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
        port = client.loop.open_local(6)
        far.loop.open_local(6, server.getsockname()[1])
        for number, sock in enumerate((first, second, first)):
            sock.sendto(b"question %d" % number, ("::1", port))
            until(lambda: far.loop.pair.counts["datagrams_in"] > number, *ends)  # noqa: B023 - called in this turn
            question, source = server.recvfrom(2000)
            assert question == b"question %d" % number
            server.sendto(b"answer %d" % number, source)
            until(lambda: client.loop.pair.counts["datagrams_in"] > number, *ends)  # noqa: B023
            assert sock.recv(2000) == b"answer %d" % number


@pytest.mark.skipif(os.geteuid() != 0, reason="plays another user")
def test_another_user_takes_no_answers(ends: tuple[End, End]) -> None:
    """Anybody on this machine may send to mosh's local socket; only this user's mosh is listened to and answered."""
    client, far = ends
    os.seteuid(65534)
    stranger = mosh()
    os.seteuid(0)
    with mosh() as server, mosh() as first, stranger:
        port = client.loop.open_local(6)
        far.loop.open_local(6, server.getsockname()[1])
        first.sendto(b"question", ("::1", port))
        stranger.sendto(b"for me!", ("::1", port))
        until(lambda: far.loop.pair.counts["datagrams_in"], *ends)
        question, source = server.recvfrom(2000)
        server.sendto(b"answer", source)
        until(lambda: client.loop.pair.counts["datagrams_in"], *ends)
        assert (question, first.recv(2000)) == (b"question", b"answer")
        assert far.loop.pair.counts["datagrams_in"] == 1


def test_what_is_said_at_once_arrives(ends: tuple[End, End]) -> None:
    """A message may be sent before the other side has greeted."""
    client, far = ends
    one, other = socket.socketpair()
    client.loop.add_stream("second", fd := one.detach(), fd)
    client.loop.say("second", frame.SERVE, {"version": 1})
    client.loop.say("nobody", frame.SERVE, {})
    far.loop.add_stream("second", fd := other.detach(), fd)
    until(lambda: far.heard, *ends)
    assert far.heard == [("second", frame.SERVE, {"version": 1})]


def test_last_words_are_heard(ends: tuple[End, End]) -> None:
    """A peer that speaks and leaves is heard, though nothing can be written to it any more; the loss is told once."""
    client, far = ends
    far.loop.say("first", frame.SERVING, {"error": "no"})
    far.step()
    far.loop.drop_stream("first")
    client.loop.say("ssh", frame.SERVE, {})
    until(lambda: client.lost, *ends)
    assert client.heard == [("ssh", frame.SERVING, {"error": "no"})]
    assert [name for name, _ in client.lost] == ["ssh"] and not far.lost


# Addresses


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the machine's addresses are said to be, and for how long it has slept."""
    said: dict[str, Any] = {"own": ["192.0.2.7"], "slept": 0.0}
    monkeypatch.setattr(own_addresses, "own", lambda: said["own"])
    monkeypatch.setattr(own_addresses, "signature", lambda: list(said["own"]))
    monkeypatch.setattr(own_addresses, "slept", lambda: said["slept"])
    monkeypatch.setattr(pair_loop, "NETWORK_LOOK_EVERY", 0.02)
    return said


@pytest.fixture
def client(machine: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[End]:
    """A client's end with UDP sockets, whose pair notes what it is told."""
    end = End(is_client=True)
    for name in ("offer", "moved", "shut"):
        monkeypatch.setattr(end.loop.pair, name, noting(end, name))
    end.loop.open_udp()
    yield end
    end.loop.close()


def noting(end: End, name: str) -> Callable[..., Any]:
    its_own = getattr(end.loop.pair, name)

    def note(*arguments: Any) -> Any:
        end.noted.append((name, arguments[0]))
        return its_own(*arguments)

    return note


def offered(end: End) -> list[tuple[str, str]]:
    """Kind and host of what was offered last."""
    candidates = [what for name, what in end.noted if name == "offer"][-1]
    return [(candidate.kind, candidate.address.host) for candidate in candidates]


def test_own_addresses_are_offered(client: End) -> None:
    """With the port of the socket of their family, after those that others opened for us."""
    mapped = Candidate("mapped", UdpAddress("203.0.113.9", 1234))
    client.loop.offer_also([mapped])
    assert offered(client) == [("mapped", "203.0.113.9"), ("lan", "192.0.2.7")]
    (_, (_, mine)) = client.noted[-1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, pytest.raises(OSError):
        taken.bind(("0.0.0.0", mine.address.port))


def test_a_new_address_is_offered(client: End, machine: dict[str, Any]) -> None:
    """Within a look, once; nothing is said while nothing changes."""
    client.step(0.1)
    assert len(client.noted) == 1
    machine["own"] = ["198.51.100.7", "2001:db8::7"]
    until(lambda: ("lan", "198.51.100.7") in offered(client), client)
    client.step(0.1)
    assert [name for name, _ in client.noted] == ["offer", "moved", "offer"]


def test_a_sleep_is_noticed(client: End, machine: dict[str, Any]) -> None:
    """The addresses are the same, and what they were good for is unknown."""
    machine["slept"] = 1.0
    client.step(0.1)
    assert len(client.noted) == 1
    machine["slept"] = 60.0
    until(lambda: len(client.noted) > 1, client)
    client.step(0.1)
    assert [name for name, _ in client.noted] == ["offer", "moved", "offer"]


def test_a_stop_that_nobody_tells_of_is_noticed(client: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was stopped, say: a look is late, by more than a busy machine makes it."""
    its_own = client.loop._now
    for late, is_noted in ((2.0, False), (6.0, True)):
        monkeypatch.setattr(client.loop, "_now", lambda late=late: its_own() + late)
        client.step(0.1)
        assert ("moved" in [name for name, _ in client.noted]) is is_noted


def test_sockets_may_be_closed_and_opened_again(client: End, machine: dict[str, Any]) -> None:
    """A change meanwhile matters to streams, and there is nothing to offer; afterwards nothing is new."""
    client.loop.close_udp()
    assert {name for name, _ in client.noted[1:]} == {"shut"}
    client.noted.clear()
    machine["own"] = ["198.51.100.7"]
    client.step(0.1)
    assert [name for name, _ in client.noted] == ["moved"]
    client.loop.open_udp()
    client.step(0.1)
    assert [name for name, _ in client.noted] == ["moved", "offer"]


def test_the_network_may_be_watched_without_sockets(machine: dict[str, Any]) -> None:
    """Streams have to answer anew after a sleep, whether or not there is UDP."""
    end = End(is_client=True)
    end.loop.moved = lambda: end.noted.append(("moved", None))
    end.loop.watch_network()
    end.step(0.1)
    assert not end.noted
    machine["slept"] = 60.0
    until(lambda: end.noted, end)
    end.loop.close()


def test_a_refused_packet_is_told(client: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system knows no way there: the pair hears of it; a socket that is full is nobody's fault."""
    nowhere = UdpAddress("255.255.255.255", 9)
    packets: list[OutgoingPacket] = []
    refused: list[Any] = []
    monkeypatch.setattr(client.loop.pair, "packets", lambda now: packets)
    monkeypatch.setattr(client.loop.pair, "unsendable", lambda *what: refused.append(what[:2]))
    packets += [OutgoingPacket("4", nowhere, b"x"), OutgoingPacket("gone", nowhere, b"x")]
    client.step()
    assert set(refused) == {("4", nowhere)}  # EACCES: a broadcast


def test_a_key_waits_for_nothing(client: End, monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram of mosh has left before the next one is read, paths are judged anew, or a stream is written."""
    monkeypatch.setattr(own_addresses, "is_own_port", lambda family, port: True)
    one, other = socket.socketpair()
    client.loop.add_stream("ssh", fd := one.detach(), fd)
    client.step()
    with mosh() as typing, mosh(4) as peer, other:
        port = client.loop.open_local(6)
        packets: list[OutgoingPacket] = []
        noted: list[tuple[str, bytes]] = []

        def note(what: str, nothing: Any) -> Any:
            """What is done, and what the peer had before it."""
            if what == "read" or noted:
                noted.append((what, peer.recv(2000) if 0 < len(noted) < 3 else b""))
            return nothing

        def send(datagram: bytes, now: float) -> None:
            note("read", None)
            packets.append(OutgoingPacket("4", UdpAddress(*peer.getsockname()), datagram))

        def take(*_: float) -> list[OutgoingPacket]:
            taken, packets[:] = packets.copy(), []
            return taken

        monkeypatch.setattr(client.loop.pair, "send", send)
        monkeypatch.setattr(client.loop.pair, "ready", take)
        monkeypatch.setattr(client.loop.pair, "packets", take)
        monkeypatch.setattr(client.loop.pair, "outgoing", lambda name, now: note("written", b""))
        monkeypatch.setattr(client.loop.pair, "tick", lambda now: note("judged", []))
        typing.sendto(b"one", ("::1", port))
        typing.sendto(b"two", ("::1", port))
        client.step()
        assert noted[:4] == [("read", b""), ("read", b"one"), ("judged", b"two"), ("written", b"")]


# Streams that go wrong


def test_a_peer_that_breaks_the_protocol_loses_that_stream(ends: tuple[End, End]) -> None:
    """In words; the other streams go on."""
    client, far = ends
    one, other = socket.socketpair()
    client.loop.add_stream("second", fd := one.detach(), fd)
    other.sendall(frame.PREAMBLE + frame.Frame(frame.PING).encode())
    until(lambda: client.lost, *ends)
    assert client.lost == [("second", "the first frame is of kind 5, not a hello")]
    other.close()
    client.loop.say("ssh", frame.SERVE, {"still": "here"})
    until(lambda: far.heard, *ends)


def test_a_peer_that_reads_nothing_loses_its_stream(ends: tuple[End, End]) -> None:
    """What waits for it is bounded."""
    client, _ = ends
    one, other = socket.socketpair()
    client.loop.add_stream("second", fd := one.detach(), fd)
    for _ in range(100):
        client.loop.say("second", frame.SERVE, {"much": "x" * 10000})
        client.step(0.001)
    assert client.lost == [("second", "it does not read what it asks for")]
    other.close()
