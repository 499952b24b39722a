"""Two endpoints in conversation over simulated streams: what crosses, how often, and when flows end."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.stream.simulated import (
    MOSH,
    PORT,
    START,
    Conversation,
    Line,
    met,
    numbered,
    slow,
)
from tunneld.core.stream.endpoint import SWEEP_INTERVAL, FlowEnded, Ingress
from tunneld.core.stream.flow import INGRESS_IDLE, OUTLET_IDLE


def test_a_datagram_and_its_answer() -> None:
    """A datagram crosses unchanged, and so does the answer."""
    talk, flow = met()
    talk.server_sends(flow, b"\x80answer")
    talk.passes(1)
    assert [(flow >> 16, datagram) for _, flow, datagram in talk.out] == [(PORT, MOSH)]
    assert [(peer, datagram) for _, peer, datagram in talk.back] == [("client", b"\x80answer")]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_each_datagram_arrives_once_at_most_and_unchanged(data: st.DataObject) -> None:
    """This holds over one to three streams with loss, stalls, slow lines and any cut; sources stay apart."""
    chance = random.Random(data.draw(st.integers(0, 1 << 32)))
    names = data.draw(st.sampled_from([["control"], ["stream-1", "stream-2"], ["control", "stream-1", "stream-2"]]))
    lines = {name: (drawn_line(data, chance), drawn_line(data, chance)) for name in names}
    talk = Conversation(lines, piece=data.draw(st.sampled_from([1, 7, 1000, 1 << 20])))
    sent = defaultdict[tuple[str, int], Counter[bytes]](Counter)
    for number in range(60):
        peer, port = f"client-{chance.randrange(3)}", PORT + chance.randrange(2)
        datagram = number.to_bytes(8, "big") + bytes(chance.choice([16, 62, 1244]))
        sent[(peer, port)][datagram] += 1
        talk.at(START + 0.05 * number, partial(talk.client_sends, datagram, peer, port))
    talk.passes(60)
    out = defaultdict[int, Counter[bytes]](Counter)
    for _, flow, datagram in talk.out:
        out[flow][datagram] += 1
    assert len(out) <= len(sent)
    for flow, received in out.items():
        assert any(received <= of_source for (_, port), of_source in sent.items() if port == flow >> 16)
    assert max([0, *(count for received in out.values() for count in received.values())]) <= 1


def drawn_line(data: st.DataObject, chance: random.Random) -> Line:
    begin = data.draw(st.floats(0, 3))
    return Line(
        delay=data.draw(st.sampled_from([0.001, 0.05, 0.4])),
        rate=data.draw(st.sampled_from([1e9, 8000, 2000])),
        loss=data.draw(st.sampled_from([0, 0.05, 0.3])),
        stalls=[(START + begin, START + begin + data.draw(st.floats(0, 5)))],
        chance=chance,
    )


def test_small_datagrams_take_both_streams_and_large_ones_one() -> None:
    """The second copy is dropped on arrival and counted; the control stream rests."""
    talk, flow = met()
    for size in (100, 1000):
        for datagram in numbered(5, size):
            talk.server_sends(flow, datagram)
    talk.passes(1)
    assert len(talk.back) == 10
    assert {name: carrier.sent for name, carrier in talk.outlet.carriers.items()} == {
        "control": 0,
        "stream-1": 10,
        "stream-2": 5,
    }
    assert talk.ingress.counters()["datagrams_duplicate"] == 5


def test_a_stream_that_goes_takes_no_flow_with_it() -> None:
    """The next datagram takes the other streams."""
    talk, flow = met()
    for side in (talk.ingress, talk.outlet):
        side.detach("stream-1")
    del talk.lines["stream-1"]
    talk.server_sends(flow, bytes(1000))
    talk.passes(1)
    assert len(talk.back) == 1


def test_without_a_stream_datagrams_are_counted() -> None:
    """They are not kept, since they would be stale."""
    ingress = Ingress()
    ingress.arrive(PORT, "client", MOSH, START, source="client")
    assert ingress.counters()["datagrams_without_carrier"] == 1


def test_datagrams_that_a_stream_dropped_are_counted_when_it_is_gone() -> None:
    """The counter goes on from where the stream left it."""
    talk, flow = met(slow(2000))
    for datagram in numbered(60, 1252):
        talk.server_sends(flow, datagram)
    dropped = talk.outlet.counters()["datagrams_stale"]
    assert dropped > 0
    talk.outlet.detach("control")
    assert talk.outlet.counters()["datagrams_stale"] == dropped


@pytest.mark.parametrize("first", [0, 0xFFFFFFFF - 100])
def test_a_long_conversation_crosses(first: int) -> None:
    """Numbers count on, and wrap after 2^32."""
    talk, flow = met()
    known = talk.outlet.flows.get(flow)
    assert known
    known.next_number = first
    for datagram in numbered(300):
        talk.server_sends(flow, datagram)
        talk.passes(0.02)
    talk.passes(1)
    assert len(talk.back) == 300


def test_a_flow_that_was_answered_has_no_rate() -> None:
    """Both ends know that mosh-server answers it."""
    talk, flow = met()
    talk.server_sends(flow, b"\x80answer")
    talk.passes(1)
    for _ in range(200):
        talk.client_sends(MOSH)
    assert "datagrams_refused_rate" not in talk.ingress.counters()
    for side in (talk.ingress, talk.outlet):
        known = side.flows.get(flow)
        assert known and known.answered


def test_a_flow_that_ended_leaves_nothing_waiting() -> None:
    """Datagrams that wait for it are not sent any more."""
    talk, flow = met(slow(2000))
    for datagram in numbered(20, 600):
        talk.server_sends(flow, datagram)
    carrier, known = talk.outlet.carriers["control"], talk.outlet.flows.get(flow)
    assert carrier.queued and known
    talk.outlet.close(known, talk.now)
    assert carrier.queued == 0


def test_a_flow_lives_as_long_as_its_client_sends() -> None:
    """Each datagram from the client counts, at both ends."""
    talk, flow = met()
    for _ in range(12):
        talk.passes(INGRESS_IDLE - 1)
        talk.client_sends(MOSH)
        talk.passes(0.5)
        talk.happened([*talk.ingress.tick(talk.now), *talk.outlet.tick(talk.now)])
    assert talk.ended == []
    assert talk.ingress.flows.get(flow) and talk.outlet.flows.get(flow)


def test_idle_flows_are_searched_for_from_time_to_time() -> None:
    """A tick before the next sweep is due finds none; without flows no tick is needed."""
    ingress = Ingress()
    assert ingress.deadline() is None
    ingress.arrive(PORT, "client", MOSH, START, source="client")
    swept = START + INGRESS_IDLE - 1
    assert ingress.tick(swept) == []
    assert ingress.deadline() == swept + SWEEP_INTERVAL
    assert ingress.tick(swept + SWEEP_INTERVAL - 0.1) == []
    assert len(ingress.tick(swept + SWEEP_INTERVAL)) == 1
    assert ingress.deadline() is None


def test_the_ingress_ends_an_idle_flow_and_the_outlet_follows() -> None:
    """It does so a minute after the client's last datagram."""
    talk, flow = met()
    talk.at(talk.now + INGRESS_IDLE + SWEEP_INTERVAL, lambda: talk.happened(list(talk.ingress.tick(talk.now))))
    talk.passes(INGRESS_IDLE + SWEEP_INTERVAL + 1)
    assert talk.ended == [flow, flow]
    assert len(talk.ingress.flows) == len(talk.outlet.flows) == 0


def test_the_outlet_ends_a_flow_by_itself_in_the_end() -> None:
    """This is for an ingress that has gone without a CLOSE."""
    talk, flow = met()
    assert talk.outlet.tick(talk.now + INGRESS_IDLE + 1) == []
    ended = talk.outlet.tick(talk.now + OUTLET_IDLE + SWEEP_INTERVAL)
    assert [end.flow.number for end in ended if isinstance(end, FlowEnded)] == [flow]


def test_each_datagram_is_counted_once() -> None:
    """At both ends: what came in from the other end, what went out to it, and what is refused."""
    talk, flow = met()
    talk.server_sends(flow, b"\x80answer")
    talk.server_sends(flow, bytes(1473))
    talk.client_sends(MOSH + bytes(1473))
    talk.client_sends(b"short")
    talk.passes(1)
    counted = ("datagrams_in", "datagrams_out", "datagrams_oversize", "datagrams_not_mosh")
    ingress, outlet = ([side.counters().get(name, 0) for name in counted] for side in (talk.ingress, talk.outlet))
    assert (ingress, outlet) == ([1, 1, 1, 1], [1, 1, 1, 0])


@pytest.mark.parametrize(
    ("datagram", "counter"),
    [
        (bytes(23), "datagrams_not_mosh"),
        (bytes(24), "datagrams_out"),
        (b"\x80" + bytes(23), "datagrams_not_mosh"),
        (b"\x7f" + bytes([0xFF] * 23), "datagrams_out"),
        (bytes(1472), "datagrams_out"),
        (bytes(1473), "datagrams_oversize"),
    ],
)
def test_what_a_client_may_send(datagram: bytes, counter: str) -> None:
    """It has 24 to 1472 bytes, and the top bit of the first one is 0."""
    ingress = Ingress()
    ingress.arrive(PORT, "client", datagram, START, source="client")
    counts = {name: count for name, count in ingress.counters().items() if name.startswith("datagrams")}
    assert counts.pop("datagrams_without_carrier", 0) == (counter == "datagrams_out")
    assert counts == {counter: 1, "datagrams_stale": 0}


def test_a_client_without_an_answer_sends_twenty_at_once() -> None:
    """The next one is refused, and counted once."""
    ingress = Ingress()
    for _ in range(21):
        ingress.arrive(PORT, "client", MOSH, START, source="client")
    assert (ingress.counters()["datagrams_out"], ingress.counters()["datagrams_refused_rate"]) == (20, 1)


def test_datagrams_are_numbered_one_by_one() -> None:
    """After 2^32 of them the numbers begin anew."""
    talk, number = met()
    flow = talk.outlet.flows.get(number)
    assert flow
    numbers = []
    for flow.next_number in (0, 1, 0xFFFFFFFF):
        talk.outlet.send(flow, MOSH, talk.now)
        numbers.append(flow.next_number)
    assert numbers == [1, 2, 0]
