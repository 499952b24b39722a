"""The little that a hostile sender can do to an ingress, and a rogue peer to either endpoint."""

from __future__ import annotations

import contextlib
import random
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.stream.simulated import MOSH, PORT, START, ages, met, number_of, numbered, percentile, slow
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import MAX_CONTROL, StreamCarrier
from tunneld.core.stream.endpoint import Endpoint, Ingress, Outlet
from tunneld.core.stream.flow import MAX_DATAGRAM, MAX_FLOWS, MAX_FLOWS_OF_SOURCE
from tunneld.core.stream.frame import Frame, ProtocolError
from tunneld.core.stream.queue import MAX_BYTES
from tunneld.core.stream.window import FIRST_WINDOW

HELLO = frame.PREAMBLE + frame.message(frame.HELLO, {"versions": [1]}).encode()


def test_what_is_not_mosh_makes_no_flow() -> None:
    """A datagram that is too short, too long, or of a server's direction is dropped and counted."""
    ingress = Ingress()
    for junk in (b"", bytes(23), b"\x80" + bytes(39), b"\xff" * 40, bytes(MAX_DATAGRAM + 1)):
        assert ingress.arrive(PORT, "x", junk, START, source="x") == []
    assert len(ingress.flows) == 0
    assert ingress.counters() == {"datagrams_not_mosh": 4, "datagrams_oversize": 1, "datagrams_stale": 0}


def test_a_flood_from_many_addresses_is_bounded_everywhere() -> None:
    """Flows and waiting bytes stay in bounds on both sides, and a person's keystrokes cross throughout."""
    talk, flow = met(slow(32_000))
    talk.server_sends(flow, b"\x80hello")  # a person: answered
    talk.passes(1)
    chance = random.Random(3)
    keys = {}

    def flood() -> None:
        for _ in range(40):
            source = chance.randrange(8)
            talk.client_sends(bytes(chance.choice([24, 1472])), (source, chance.randrange(5000)), PORT)
        assert len(talk.ingress.flows) <= MAX_FLOWS
        for _, carrier in talk.sides():
            assert carrier._queue.cost <= MAX_BYTES

    def key(number: int, datagram: bytes) -> None:
        keys[number] = talk.now
        talk.client_sends(datagram)

    for step in range(200):
        talk.at(talk.now + 0.1 * step, flood)
    for number, datagram in enumerate(numbered(100, 70)):
        talk.at(talk.now + 5 + 0.125 * number, partial(key, number, datagram))
    talk.passes(30)
    came = [(when, number_of(datagram)) for when, at, datagram in talk.out if at == flow and len(datagram) == 70]
    assert len(came) == 100
    assert percentile(ages(keys, came), 0.95) < 0.5


def test_one_source_has_its_share_and_no_more() -> None:
    """One address gets no more flows, whatever ports it sends from."""
    ingress = Ingress()
    for port in range(2000):
        ingress.arrive(PORT, ("6.6.6.6", port), MOSH, START + port / 100, source="6.6.6.6")
    assert len(ingress.flows) == MAX_FLOWS_OF_SOURCE


def test_an_unanswered_flow_has_a_rate() -> None:
    """Until mosh-server answers, a client may send little."""
    talk, _ = met()
    for _ in range(1000):
        talk.client_sends(MOSH, "stranger")
    talk.passes(1)
    assert talk.ingress.counters()["datagrams_refused_rate"] == 980


def attached(endpoint: Endpoint) -> StreamCarrier:
    carrier = StreamCarrier("control", START, dedicated=False)
    endpoint.attach(carrier)
    endpoint.receive("control", HELLO, START)
    carrier.outgoing(START)
    return carrier


def test_wrong_ports_reach_nothing() -> None:
    """The host sends only to the profile's ports, whatever the relay says."""
    outlet = Outlet(range(60001, 60004))
    attached(outlet)
    for port in (0, 22, 60000, 60004, 0xFFFF):
        assert outlet.receive("control", Frame(frame.DATAGRAM, port << 16 | 1, 0, MOSH).encode(), START) == []
    assert outlet.counters()["datagrams_wrong_port"] == 5
    assert len(outlet.flows) == 0


def test_endless_flows_are_bounded() -> None:
    """A relay that invents a flow for each datagram gets a burst, then a rate, and 256 flows at most."""
    outlet = Outlet(range(60001, 60004))
    attached(outlet)
    for serial in range(8_000):
        now = START + serial / 1000
        outlet.receive("control", Frame(frame.DATAGRAM, 60001 << 16 | serial & 0xFFFF, 0, MOSH).encode(), now)
        outlet.outgoing("control", now)
        assert len(outlet.flows) <= MAX_FLOWS
    counts = outlet.counters()
    assert counts["flows_opened"] < 128 + 8 * 32 + 1


def test_endings_of_nothing_are_nothing() -> None:
    """A CLOSE for a flow that does not exist does nothing."""
    outlet = Outlet(range(60001, 60004))
    attached(outlet)
    assert outlet.receive("control", b"".join(Frame(frame.CLOSE, n).encode() for n in range(1000)), START) == []
    assert outlet.counters() == {"datagrams_stale": 0}


def test_an_oversize_datagram_is_dropped() -> None:
    """A frame may be larger than a datagram; its payload is then not passed on."""
    outlet = Outlet(range(60001, 60004))
    attached(outlet)
    assert outlet.receive("control", Frame(frame.DATAGRAM, 60001 << 16, 0, bytes(1473)).encode(), START) == []
    assert outlet.counters()["datagrams_oversize"] == 1


def test_a_peer_that_never_acknowledges_holds_little() -> None:
    """It gets the first window of datagrams, and the queue stays in its bounds."""
    ingress = Ingress()
    carrier = attached(ingress)
    for number in range(4_000):
        ingress.arrive(PORT, ("a", number % 300), bytes(1252), START + number / 1000, source=number % 10)
        ingress.outgoing("control", START + number / 1000)
    assert carrier.sent == FIRST_WINDOW
    assert carrier._queue.cost <= MAX_BYTES


@settings(deadline=None)
@given(st.data())
def test_a_rogue_ends_its_carrier_and_nothing_else(data: st.DataObject) -> None:
    """Any frames in any order end in a ProtocolError, or leave bounded state."""
    endpoint: Endpoint = Ingress() if data.draw(st.booleans()) else Outlet(range(60001, 60004))
    carrier = attached(endpoint)
    if isinstance(endpoint, Ingress):
        endpoint.arrive(PORT, "client", MOSH, START, source="client")
    kinds, flows = st.integers(0, 12), st.sampled_from([0, PORT << 16, PORT << 16 | 1, 0xFFFFFFFF])
    payloads = st.one_of(st.binary(max_size=40), st.sampled_from([b"{}", b'{"a":[]}', bytes(1472), bytes(16384)]))
    frames = st.builds(Frame, kinds, flows, st.sampled_from([0, 1, 2, 9, 0xFFFFFFFF]), payloads)
    now = START
    with contextlib.suppress(ProtocolError):
        for one in data.draw(st.lists(frames, max_size=40)):
            now += 1
            endpoint.receive("control", one.encode(), now)
            endpoint.tick(now)
            endpoint.outgoing("control", now)
    assert len(endpoint.flows) <= MAX_FLOWS
    assert len(carrier._control) <= MAX_CONTROL
    endpoint.detach("control")
    assert endpoint.carriers == {}
