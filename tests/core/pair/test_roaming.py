"""A person types while paths appear, die and change: how soon each key's echo comes."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pytest

from tests.core.pair.internet import CLIENT, FAR, START, Internet, Nat, Place, cone, home, office, restricted, symmetric
from tests.core.pair.typist import EVERY, ROUND_TRIP, Typist, between
from tests.core.stream.simulated import Line

CAFE = "203.0.113.99"


def carriers(net: Internet) -> list[str]:
    """What each end uses: the kind of path, or "stream"."""
    return [str(end.pair.snapshot(net.now)["in_use"].get("kind", "stream")) for end in net.ends]


class Case(NamedTuple):
    client: Nat | None
    far: Nat | None
    expected: str


DIRECT, MEETS_ONLY_AT_A_RELAY = "direct", "relay"
CASES = [
    (None, None, DIRECT),
    (None, restricted(FAR), DIRECT),
    (cone(CLIENT), cone(FAR), DIRECT),
    (restricted(CLIENT), restricted(FAR), DIRECT),
    (restricted(CLIENT, keeps_port=False), restricted(FAR, keeps_port=False), DIRECT),
    (symmetric(CLIENT), None, DIRECT),
    (symmetric(CLIENT), cone(FAR), DIRECT),
    (Nat(CLIENT, "each", "all"), Nat(FAR, "each", "all"), DIRECT),
    (symmetric(CLIENT), restricted(FAR), MEETS_ONLY_AT_A_RELAY),
    (restricted(CLIENT), symmetric(FAR), MEETS_ONLY_AT_A_RELAY),
    (symmetric(CLIENT), symmetric(FAR), MEETS_ONLY_AT_A_RELAY),
]


@pytest.mark.parametrize(("client", "far", "expected"), CASES)
def test_where_a_path_can_be_it_is_found_within_two_seconds(client: Nat | None, far: Nat | None, expected: str) -> None:
    """Through any pair of NATs that allows one a direct path is found, and a relay is used otherwise."""
    net = between(client, far, has_relay=True)
    net.stands(2)
    for carrier in carriers(net):
        assert (carrier == "relay") == (expected == "relay")
        assert carrier != "stream"


def test_port_keeping_nats_need_no_server() -> None:
    """The address that SSH shows and the socket's own port are enough."""
    net = Internet(home(restricted(CLIENT)), office(restricted(FAR)), has_stun=False)
    net.connects()
    net.stands(2)
    assert carriers(net) == ["visible", "visible"]


def test_on_one_lan_the_lan_is_used() -> None:
    """The LAN's path is used, though both ends are visible from outside as well."""
    nat = cone(CLIENT)
    net = Internet(Place("192.168.1.7", "home", nat), Place("192.168.1.9", "home", nat))
    net.connects()
    net.stands(2)
    assert carriers(net) == ["lan", "lan"]


@pytest.mark.parametrize("ways", [("up", "down"), ("up",), ("down",)])
def test_a_path_that_dies_loses_no_key(ways: tuple[str, ...]) -> None:
    """In both directions or in one: what the path swallowed goes over the stream, and no echo takes 0.7 s."""
    net = between(restricted(CLIENT), restricted(FAR))
    net.stands(5)
    typist = Typist(net, 20)
    net.stands(5)
    for way in ways:
        net.weather[way].is_blocked = True
    net.stands(20)
    assert carriers(net) == ["stream", "stream"]
    assert typist.lost <= 3  # mosh sends these again: a burst of more than the last eight
    assert typist.ages[-1] < 0.7
    for weather in net.weather.values():
        weather.is_blocked = False
    net.stands(60)
    assert carriers(net) == ["reflexive", "reflexive"]


def test_udp_that_appears_is_used_within_a_minute() -> None:
    """Even after an hour without UDP a path is in use 35 s after it passes."""
    net = between(restricted(CLIENT), restricted(FAR))
    for weather in net.weather.values():
        weather.is_blocked = True
    net.stands(3600)
    assert carriers(net) == ["stream", "stream"]
    for weather in net.weather.values():
        weather.is_blocked = False
    net.stands(35)
    assert carriers(net) == ["reflexive", "reflexive"]


def test_a_path_that_died_in_silence_costs_one_key_less_than_half_a_second() -> None:
    """Either end misses an answer after a round trip, long before it doubts the path, and takes the stream as well."""
    net = between(restricted(CLIENT), restricted(FAR))
    net.stands(11)
    for weather in net.weather.values():
        weather.is_blocked = True
    typist = Typist(net, EVERY)
    net.stands(5)
    assert 2 * ROUND_TRIP < typist.ages[-1] < 0.42


def test_what_went_over_a_stream_that_died_as_well_is_rescued() -> None:
    """When both the path and the stream that took over are dead, the relay's path takes the datagram."""
    net = Internet(home(None, lan="one"), office(None, lan="one"), has_relay=True)
    lines = Line(stalls=[(START + 12, START + 60)]), Line(stalls=[(START + 12, START + 60)])
    net.connects(up=lines[0], down=lines[1])
    net.stands(12.5)
    net.lan_weather.is_blocked = True
    net.sends(net.client, b"key")
    net.stands(0.7)
    assert [datagram for _, datagram in net.far.got] == [b"key"]


def test_a_round_trip_that_grows_is_no_death() -> None:
    """A round trip that grows by 1.2 s leads to doubt, but the earliest questions are still answered."""
    net = Internet(home(None), office(None))
    net.connects()
    net.stands(12)
    net.loses()
    typist = Typist(net, 20)
    net.stands(5)
    net.weather["up"].delay += 1.2
    net.stands(20)
    assert typist.lost == 0
    assert [len(end.pair.history) for end in net.ends] == [1, 1]


def test_a_peer_that_speaks_from_elsewhere_is_answered_on_the_stream_as_well() -> None:
    """Until it is clear whether the peer has moved, both carry, so that not even the first echo is late."""
    net = between(restricted(CLIENT), cone(FAR))
    net.stands(11)
    net.moves(net.client, Place("10.9.9.9", "cafe", restricted(CAFE)), notices=False)
    typist = Typist(net, EVERY)
    net.stands(5)
    assert typist.ages == [pytest.approx(ROUND_TRIP, abs=0.001)]


@pytest.mark.parametrize("notices", [True, False])
def test_a_laptop_that_moves_has_its_echo_within_two_seconds(notices: bool) -> None:
    """Whether the operating system tells of the move or not, no echo takes 0.7 s; the SSH connection survives."""
    net = between(restricted(CLIENT), restricted(FAR))
    net.stands(5)
    typist = Typist(net, 20)
    net.stands(5)
    net.moves(net.client, Place("10.9.9.9", "cafe", restricted(CAFE)), notices=notices)
    net.stands(16)
    assert typist.lost <= 3
    assert typist.ages[-1] < 0.7
    assert "stream" not in carriers(net)


def test_a_laptop_that_moves_takes_the_path_along_without_ssh() -> None:
    """SSH died with the old address, but a far end that anybody reaches sees the new one in the packets."""
    net = between(restricted(CLIENT), cone(FAR))
    net.stands(5)
    net.loses()
    typist = Typist(net, 20)
    net.stands(5)
    net.moves(net.client, Place("10.9.9.9", "cafe", symmetric(CAFE)))
    net.stands(16)
    assert typist.lost <= 6  # until the far end has seen three round trips go by
    assert net.client.got[-1][0] > net.now - 2
    assert all(
        later - earlier < 2 for (earlier, _), (later, _) in zip(net.client.got, net.client.got[1:], strict=False)
    )


def test_a_laptop_that_moves_behind_a_strict_nat_has_its_echo_through_the_relay() -> None:
    """SSH died and the far end's NAT lets only known addresses in, so the relay, which both know, carries at once."""
    net = between(restricted(CLIENT), restricted(FAR), has_relay=True)
    net.stands(15)
    net.loses()
    net.moves(net.client, Place("10.9.9.9", "cafe", restricted(CAFE)))
    typist = Typist(net, 10)
    net.stands(11)
    assert typist.lost <= 8  # the far end's echoes of the first half second
    assert net.client.got[0][0] < START + 15.8
    assert carriers(net) == ["relay", "relay"]


def test_the_path_carries_on_when_ssh_dies_and_a_later_connection_joins() -> None:
    """No key is lost and none is late, neither when SSH dies nor when a connection joins."""
    net = between(restricted(CLIENT), restricted(FAR))
    net.stands(5)
    typist = Typist(net, 20)
    net.after(5, net.loses)
    net.after(10, partial(net.connects, "again"))
    net.stands(22)
    assert typist.lost == 0
    assert typist.ages[-1] <= ROUND_TRIP + 0.001


def test_a_lan_is_found_when_one_comes_home() -> None:
    """When the laptop comes to the far end's own network, the LAN's path is used within three seconds."""
    net = between(restricted(CLIENT), restricted(FAR))
    net.stands(10)
    net.moves(net.client, Place("10.0.0.55", "office", net.far.place.nat))
    net.stands(3)
    assert carriers(net) == ["lan", "lan"]


def test_a_nat_that_forgets_is_entered_again() -> None:
    """The far end finds the NAT's new port by the packets that come from there."""
    net = between(restricted(CLIENT, keeps_port=False), cone(FAR))
    net.stands(10)
    assert net.client.place.nat
    net.client.place.nat.forgets()
    typist = Typist(net, 20)
    net.stands(22)
    assert typist.lost <= 3
    assert typist.ages[-1] < 0.7
    assert "stream" not in carriers(net)


def test_a_path_too_narrow_for_full_datagrams_is_not_used() -> None:
    """Small probes pass, but the stream carries, because a large screen would be lost on the path."""
    net = between(None, None)
    for weather in net.weather.values():
        weather.mtu = 1200
    net.stands(10)
    assert carriers(net) == ["stream", "stream"]
    assert {path["state"] for path in net.client.pair.snapshot(net.now)["paths"]} == {"narrow"}


def test_a_path_that_becomes_narrow_is_left() -> None:
    """When full datagrams stop passing, full probes without an answer reveal it."""
    net = between(None, None)
    net.stands(5)
    for weather in net.weather.values():
        weather.mtu = 1200
    for number in range(300):
        net.after(0.1 * number, partial(net.sends, net.far, number.to_bytes(4, "big") + bytes(1200)))
    net.stands(30)
    assert carriers(net)[1] == "stream"
    last = net.client.got[-1]
    assert last[0] > START + 34


def test_datagrams_larger_than_mosh_over_ipv6_sends_are_tried_first() -> None:
    """The first one takes the stream, and the path takes the next once a probe of that size was answered."""
    net = between(None, None)
    net.stands(5)
    net.sends(net.far, bytes(1252))
    assert net.far.pair.streams["ssh"].sent == 1
    net.stands(1)
    net.sends(net.far, bytes(1252))
    net.stands(1)
    assert net.far.pair.streams["ssh"].sent == 1
    assert len(net.client.got) == 2
