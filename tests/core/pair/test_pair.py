"""Two ends of a pair in conversation."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from tests.core.pair.internet import CLIENT, FAR, SECRET, START, Internet, home, office
from tunneld.core.pair import packet, stun
from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.dispatch import CALM_FLOW, DOUBTING_FLOW
from tunneld.core.pair.packet import Seal
from tunneld.core.pair.pair import Deliver, Event, Gather, Pair
from tunneld.core.stream import frame
from tunneld.core.stream.flow import MAX_DATAGRAM
from tunneld.core.stream.frame import Frame


def pairs() -> tuple[Pair, Pair]:
    """A client's end and a far end that share a stream and have greeted each other."""
    client, far = Pair(bytes(32), START, is_client=True), Pair(bytes(32), START, is_client=False)
    for end in (client, far):
        end.attach("ssh", START)
    assert talk(client, far) == []
    assert talk(far, client) == []
    return client, far


def talk(source: Pair, sink: Pair, now: float = START) -> list[Event]:
    """Bring what `source` has to say on its streams to `sink`; the events there."""
    return [
        event
        for name in list(source.streams)
        if (data := source.outgoing(name, now))
        for event in sink.receive(name, data, now)
    ]


def test_a_datagram_crosses_on_a_stream_and_is_answered() -> None:
    """A datagram arrives unchanged as soon as both ends have greeted each other."""
    client, far = pairs()
    client.send(b"key", START)
    assert talk(client, far) == [Deliver(b"key")]
    far.send(b"echo", START)
    assert talk(far, client) == [Deliver(b"echo")]


def test_what_two_streams_bring_is_passed_on_once() -> None:
    """A small datagram takes both streams, and the second copy is dropped and counted."""
    client, far = pairs()
    for end in (client, far):
        end.attach("second", START)
    talk(client, far)
    talk(far, client)
    client.send(b"key", START)
    assert talk(client, far) == [Deliver(b"key")]
    assert far.counts["datagrams_duplicate"] == 1


def test_a_stream_that_goes_leaves_the_pair() -> None:
    """A later stream carries on with the next numbers, and what was seen stays seen."""
    client, far = pairs()
    client.send(b"one", START)
    assert talk(client, far) == [Deliver(b"one")]
    for end in (client, far):
        end.detach("ssh")
    client.send(b"lost", START)
    for end in (client, far):
        end.attach("again", START)
    talk(client, far)
    talk(far, client)
    client.send(b"two", START)
    assert talk(client, far) == [Deliver(b"two")]


def test_a_hostile_sender_reaches_nothing_and_nothing_grows() -> None:
    """Noise, forged, repeated and foreign packets and unasked STUN are counted, and change nothing."""
    net = Internet(home(None), office(None))
    net.connects()
    net.stands(3)
    net.sends(net.client, b"key")
    net.stands(1)
    end, pair = net.far, net.far.pair
    caught = [data for sink, _, data in net.wiretap if sink is end]
    stranger = Seal(bytes(32), Counter(), is_client=True)
    chance = random.Random(1)
    before = len(end.got), len(pair._paths), net.sent_packets
    for number in range(2000):
        source = UdpAddress(f"198.18.{chance.randrange(256)}.{chance.randrange(256)}", 1 + chance.randrange(65535))
        good = chance.choice(caught)
        place = chance.randrange(len(good))
        for data in (
            chance.randbytes(chance.randrange(1600)),
            good,
            good[:place] + bytes([good[place] ^ 1 + chance.randrange(255)]) + good[place + 1 :],
            stranger.close(packet.PROBE, bytes(chance.randrange(1000))),
            stun.request(bytes(12)),
            stun.respond(stun.request(number.to_bytes(12, "big")), UdpAddress("192.0.2.66", 1)) or b"",
        ):
            end.happens(pair.arrive("4", source, data, net.now))
    assert (len(end.got), len(pair._paths), net.sent_packets) == before
    assert pair.packets(net.now) == []
    assert sum(pair.counts[name] for name in pair.counts if name.startswith("packets_")) == 12_000


def test_a_hostile_peer_makes_nothing_grow() -> None:
    """A peer that holds the secret and sends what it likes, on the stream and over UDP, stays within all bounds."""
    pair = Pair(bytes(32), START, is_client=True)
    pair.open("4", 4, 41000, START)
    pair.attach("ssh", START)
    pair.receive("ssh", frame.PREAMBLE + frame.message(frame.HELLO, {"versions": [1]}).encode(), START)
    seal, chance = Seal(bytes(32), Counter(), is_client=False), random.Random(2)
    sent = now = 0.0
    for number in range(3000):
        now = START + number / 100
        candidates = [["lan", f"10.{number % 256}.0.{place}", 1 + number] for place in range(40)]
        offer = frame.message(frame.OFFER, {"round": number + 1, "ports": {"4": 1 + number}, "candidates": candidates})
        pair.receive("ssh", offer.encode() + Frame(frame.DATAGRAM, 1, number, b"x").encode(), now)
        kind = chance.choice([packet.PROBE, packet.ANSWER, packet.DATAGRAM, packet.ASKING, 0xFF])
        source = UdpAddress(f"10.1.{chance.randrange(256)}.1", 1 + chance.randrange(65535))
        pair.arrive("4", source, seal.close(kind, chance.randbytes(chance.choice([0, 3, 4, 10, 1476]))), now)
        pair.send(bytes(60), now)
        pair.tick(now)
        sent += len(pair.packets(now))
        pair.outgoing("ssh", now)
        assert len(pair._paths) <= 32
    assert sent < 100 + 100 * 30 + 3000  # probes, and an answer to each packet that asked for one
    assert len(json.dumps(pair.snapshot(now))) < 32_768


def test_a_datagram_is_ready_at_once() -> None:
    """A datagram can be taken before all that is merely due, and is not given a second time."""
    net = Internet(home(None), office(None))
    net.connects()
    net.stands(5)
    client, far = net.client.pair, net.far.pair
    client.use_stun_servers([UdpAddress("192.0.2.3", 3478)], net.now)
    client.send(b"key", net.now)
    (key,) = client.ready()
    assert far.arrive("4", UdpAddress(CLIENT, 41000), key.data, net.now) == [Deliver(b"key")]
    (question,) = client.packets(net.now)
    assert stun.is_stun(question.data)


def test_an_unsendable_packet_puts_its_path_in_doubt() -> None:
    """When the system refuses to send, the stream carries what was sent last and what follows."""
    net = Internet(home(None), office(None))
    net.connects()
    net.stands(5)
    end = net.client
    net.sends(end, b"one")
    assert end.pair.streams["ssh"].sent == 0
    end.pair.unsendable("4", UdpAddress(FAR, 42000), net.now)
    net.sends(end, b"two")
    assert end.pair.streams["ssh"].sent == 2  # "one" may be lost, too


def test_a_move_makes_the_peer_try_again() -> None:
    """After a move even the same addresses are offered again: a NAT on the way may be another one."""
    client, far = pairs()
    client.open("4", 4, 41000, START)
    client.offer([], START)
    talk(client, far)
    client.offer([], START)
    assert client.outgoing("ssh", START) == b""
    assert client.moved(START) == [Gather("the network changed")]
    client.offer([], START)
    assert b'"round":2' in client.outgoing("ssh", START)


def test_the_snapshot_says_what_carries_and_why() -> None:
    """The snapshot names the carrier in use before a path is found, while it is used, and after it died."""
    net = Internet(home(None), office(None))
    assert net.client.pair.snapshot(net.now)["in_use"]["carrier"] == "none"
    net.connects()
    net.stands(0.1)
    assert net.client.pair.snapshot(net.now)["in_use"]["carrier"] == "stream"
    net.stands(5)
    snapshot = net.client.pair.snapshot(net.now)
    assert snapshot["in_use"] == {
        "carrier": "path",
        "since": 4.9,
        "why": "it answers",
        "kind": "lan",
        "local": "4",
        "remote": f"{FAR}:42000",
        "rtt": 0.08,
        "loss": None,
    }
    assert [(path["state"], path["in_use"]) for path in snapshot["paths"]] == [("open", True)]
    assert snapshot["history"] == [{"ago": 4.9, "what": f"lan {FAR}:42000: it answers"}]
    for weather in net.weather.values():
        weather.is_blocked = True
    net.stands(60)
    snapshot = net.client.pair.snapshot(net.now)
    assert (snapshot["in_use"]["carrier"], snapshot["in_use"]["why"]) == ("stream", "went silent")


def test_a_pair_without_anything_waits_quietly() -> None:
    """With neither a stream nor a socket a pair sends nothing, and its deadline is far off."""
    pair = Pair(bytes(32), START, is_client=True)
    pair.send(b"key", START)
    assert pair.packets(START) == []
    assert pair.deadline() > START + 1
    assert pair.counts["datagrams_without_carrier"] == 1


def settled() -> Internet:
    """Two ends that have used a path for ten seconds."""
    net = Internet(home(None), office(None))
    net.connects()
    net.stands(10)
    return net


def test_a_peers_doubt_makes_us_doubt_the_path() -> None:
    """A datagram on the doubting flow says so; both carriers take what follows, and the peer hears no alarm of ours."""
    net = settled()
    pair = net.client.pair
    pair.receive("ssh", Frame(frame.DATAGRAM, DOUBTING_FLOW, 7, b"echo").encode(), net.now)
    assert [path["state"] for path in pair.snapshot(net.now)["paths"]] == ["doubtful"]
    pair.send(b"key", net.now)
    assert Frame(frame.DATAGRAM, CALM_FLOW, 0, b"key").encode() in pair.outgoing("ssh", net.now)


def test_an_answered_datagram_is_not_sent_again() -> None:
    """Neither on the path nor on the stream."""
    net = settled()
    net.sends(net.client, b"key")
    net.stands(2)
    assert net.client.pair.counts["copies_out"] == 0
    assert net.client.pair.streams["ssh"].sent == 0
    assert [datagram for _, datagram in net.far.got] == [b"key"]


def test_streams_are_pinged_while_they_are_idle() -> None:
    """Each three seconds, so that a stream that died is noticed."""
    client, far = pairs()
    assert client.outgoing("ssh", START) == b""
    client.tick(START + 2.9)
    assert client.outgoing("ssh", START + 2.9) == b""
    client.tick(START + 3)
    ping = Frame(frame.PING).encode()
    assert client.outgoing("ssh", START + 3) == ping
    client.tick(START + 4)
    assert far.receive("ssh", ping, START + 3) == []
    assert client.outgoing("ssh", START + 4) == b""


def offers(data: bytes) -> list[int]:
    """The rounds of the offers among the bytes of a stream."""
    frames = frame.FrameDecoder().feed(frame.PREAMBLE + data)
    return [frame.body(each)["round"] for each in frames if each.kind == frame.OFFER]


def test_a_path_that_died_makes_both_ends_try_again() -> None:
    """The addresses are offered again, and this machine's own are gathered anew."""
    net = settled()
    client = net.client.pair
    assert client.outgoing("ssh", net.now) == b""
    client.unsendable("4", UdpAddress(FAR, 42000), net.now)
    client.packets(net.now)
    events = client.tick(net.now + 10)
    assert Gather("went silent") in events
    assert len(offers(client.outgoing("ssh", net.now + 10))) >= 1


def test_an_unsendable_packet_to_nowhere_is_only_counted() -> None:
    """No path leads there, or the one that does has never answered."""
    client, _ = pairs()
    client.open("4", 4, 41000, START)
    client.sees_peer([FAR], START)
    client.unsendable("4", UdpAddress("192.0.2.66", 1), START)
    client.unsendable("4", UdpAddress(FAR, 42000), START)
    assert client.counts["packets_unsendable"] == 2


def test_a_move_pings_the_streams() -> None:
    """A stream that did not survive it is noticed."""
    client, _ = pairs()
    client.moved(START)
    assert client.outgoing("ssh", START) == Frame(frame.PING).encode()


def test_thirty_two_changes_are_remembered() -> None:
    """The oldest are forgotten."""
    client, _ = pairs()
    for number in range(40):
        client.moved(START + number)
    assert [when - START for when, _ in client.history] == [*range(8, 40)]


def test_datagrams_and_offers_are_counted() -> None:
    """Each datagram once at either end; an offer that came before is ignored."""
    client, far = pairs()
    client.open("4", 4, 41000, START)
    client.offer([], START)
    data = client.outgoing("ssh", START)
    assert offers(data) == [1]
    for _ in range(2):
        far.receive("ssh", data, START)
    assert far.counts["offers_ignored"] == 1
    client.send(b"key", START)
    talk(client, far)
    assert (client.counts["datagrams_out"], far.counts["datagrams_in"]) == (1, 1)


def test_a_datagram_over_the_largest_is_dropped() -> None:
    """And counted; the largest passes."""
    client, far = pairs()
    client.send(bytes(MAX_DATAGRAM + 1), START)
    assert client.counts == {"datagrams_oversize": 1}
    client.send(bytes(MAX_DATAGRAM), START)
    assert talk(client, far) == [Deliver(bytes(MAX_DATAGRAM))]


def probes(net: Internet) -> int:
    """How many probes have reached the far end since the wiretap was cleared."""
    opener = Seal(SECRET, Counter(), is_client=False)
    came = [opener.open(data) for sink, _, data in net.wiretap if sink is net.far]
    return sum(each.kind == packet.PROBE for each in came if each)


@pytest.mark.parametrize(("datagrams", "count"), [(3, 0), (4, 2)])
def test_somebody_types_who_causes_four_datagrams_in_three_seconds(datagrams: int, count: int) -> None:
    """The path is probed each second for these three seconds; otherwise each ten."""
    net = settled()
    net.wiretap.clear()
    for _ in range(datagrams):
        net.sends(net.client, b"key")
    net.stands(4)
    assert probes(net) == count


def test_datagrams_longer_ago_do_not_mean_that_somebody_types() -> None:
    """The first of the four counts: three seconds after it the path is no longer probed each second."""
    net = settled()
    net.sends(net.client, b"key")
    net.stands(1)
    net.wiretap.clear()
    for _ in range(3):
        net.sends(net.client, b"key")
    net.stands(4)
    assert probes(net) == 1


def test_no_datagram_is_rescued_from_a_path_that_answers() -> None:
    """The answer to one datagram leaves the next one where it is."""
    net = settled()
    for _ in range(3):
        net.sends(net.client, b"key")
        net.stands(0.03)
    net.stands(2)
    assert net.client.pair.counts["datagrams_rescued"] == 0


def test_a_new_stream_carries_the_offer_again() -> None:
    """The peer may never have had it."""
    client, _ = pairs()
    client.open("4", 4, 41000, START)
    client.offer([], START)
    assert offers(client.outgoing("ssh", START)) == [1]
    client.attach("second", START)
    assert offers(client.outgoing("second", START).removeprefix(frame.PREAMBLE)) == [2]


def test_a_pair_without_a_path_tries_again_after_five_seconds() -> None:
    """It gathers its addresses anew, and offers them again, whether or not they have changed."""
    client, _ = pairs()
    client.open("4", 4, 41000, START)
    client.offer([], START)
    client.outgoing("ssh", START)
    assert client.tick(START + 4.9) == []
    client.outgoing("ssh", START + 4.9)
    assert client.tick(START + 5) == [Gather("time to try again")]
    assert offers(client.outgoing("ssh", START + 5)) == [2]


def test_what_a_stream_dropped_is_counted_when_it_goes() -> None:
    """60 datagrams of 1000 bytes do not fit into its queue; a stream that is not there changes nothing."""
    client, _ = pairs()
    for _ in range(60):
        client.send(bytes(1000), START)
    dropped = client.streams["ssh"].dropped
    assert dropped > 0
    client.detach("ssh")
    client.detach("ssh")
    assert client.counts["datagrams_stale"] == dropped


def test_what_the_peer_sends_too_large_is_dropped() -> None:
    """And counted; the largest is passed on."""
    _, far = pairs()
    largest = bytes(MAX_DATAGRAM)
    assert far._deliver(0, largest + b"x", START) == []
    assert far._deliver(1, largest, START) == [Deliver(largest)]
    assert (far.counts["datagrams_oversize"], far.counts["datagrams_in"]) == (1, 1)


def test_an_answer_that_no_stun_server_was_asked_for_is_counted() -> None:
    """It changes nothing."""
    client, _ = pairs()
    assert client.arrive("4", UdpAddress("192.0.2.66", 1), stun.request(bytes(12)), START) == []
    assert client.counts == {"packets_unasked": 1}


def test_the_snapshot_says_what_copies_cost() -> None:
    """In tenths of a kbit/s, of 64 by default; times are tenths of a second."""
    net = settled()
    pair = net.client.pair
    assert pair.snapshot(net.now)["redundancy"] == {
        "copies": 1,
        "budget_kbit": 64.0,
        "room_kbit": 64.0,
        "spent_kbit": 0.0,
    }
    (path,) = pair._paths
    assert path.headroom
    path.headroom.halve(net.now + 1)
    pair._outbox.budget.allows(1800, net.now)
    shown = pair.snapshot(net.now + 2.3)
    assert shown["redundancy"]["room_kbit"] == 33.4  # 32, and 1.3 s of 64 in a minute
    assert shown["redundancy"]["spent_kbit"] == 1.2  # 1800 bytes in 12.3 s
    pair.moved(net.now)
    assert pair.snapshot(net.now + 1.26)["history"][-1] == {"ago": 1.3, "what": "the network changed"}


def test_copies_may_cost_64_kbit_by_default() -> None:
    """Until a path is in use, there is no room to show, and a datagram leaves once."""
    client, _ = pairs()
    assert client.snapshot(START)["redundancy"] == {
        "copies": 1,
        "budget_kbit": 64.0,
        "room_kbit": None,
        "spent_kbit": 0.0,
    }


def test_an_answer_to_no_question_of_ours_is_counted() -> None:
    """So is an answer that cannot be read."""
    client, _ = pairs()
    seal = Seal(bytes(32), Counter(), is_client=False)
    for body in (packet.answer_body(7, 1), b""):
        client.arrive("4", UdpAddress(FAR, 42000), seal.close(packet.ANSWER, body), START)
    assert client.counts == {"packets_unasked": 2}
