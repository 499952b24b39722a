"""Whatever happens to the network between two ends, datagrams flow, each once, and nothing swings or grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.core.pair.internet import CLIENT, FAR, End, Internet, Nat, Place, cone, home, office
from tests.core.stream.simulated import Line
from tunneld.core.pair.outbox import MAX_PACKETS
from tunneld.core.pair.paths import MAX_PATHS

WHOLE = (Phase.explicit, Phase.reuse, Phase.generate)  # making an example small would take minutes

CAFE, TRAIN = "203.0.113.99", "203.0.113.201"

nats = st.sampled_from([None, ("one", "all"), ("one", "answers"), ("each", "answers"), ("each", "all")])


def nat(drawn: tuple[str, str] | None, public: str, *, keeps_port: bool = True) -> Nat | None:
    return Nat(public, *drawn, keeps_port) if drawn else None


@st.composite
def worlds(draw: st.DrawFn) -> Internet:
    """Two ends behind any NATs, with any loss and delay between them, and an SSH connection."""
    keeps = draw(st.booleans())
    net = Internet(
        home(nat(draw(nats), CLIENT, keeps_port=keeps)),
        office(nat(draw(nats), FAR)),
        seed=draw(st.integers(0, 1 << 32)),
        has_relay=draw(st.booleans()),
        has_stun=draw(st.booleans()),
        sees=draw(st.booleans()),
    )
    for weather in net.weather.values():
        weather.delay = draw(st.sampled_from([0.002, 0.04, 0.3]))
        weather.jitter = draw(st.sampled_from([0.0, 0.01, 0.1]))
        weather.loss = draw(st.sampled_from([0.0, 0.0, 0.02, 0.15, 0.4]))
        weather.mtu = draw(st.sampled_from([1472, 1472, 1200, 1252]))
        weather.is_blocked = draw(st.sampled_from([False, False, True]))
    net.connects(up=Line(delay=net.weather["up"].delay), down=Line(delay=net.weather["down"].delay))
    return net


Deed = Callable[[Internet], None]


def moves(net: Internet, where: str, lan: str, drawn: tuple[str, str] | None, *, notices: bool) -> None:
    """The client goes elsewhere; its SSH connection stays behind."""
    if net.lines:
        net.loses()
    place = Place("10.77.0.3", lan, Nat(where, *drawn)) if drawn else Place(where, lan)
    net.moves(net.client, place, notices=notices)


def blocks(net: Internet, ways: tuple[str, ...], *, is_blocked: bool) -> None:
    for way in ways:
        net.weather[way].is_blocked = is_blocked


def forgets(net: Internet) -> None:
    for end in net.ends:
        if end.place.nat:
            end.place.nat.forgets()


def reconnects(net: Internet) -> None:
    if net.lines:
        net.loses()
    net.connects()


def sleeps(net: Internet) -> None:
    net.client.happens(net.client.pair.moved(net.now))


ways = st.sampled_from([("up", "down"), ("up",), ("down",)])
deeds = st.one_of(
    st.builds(
        lambda where, lan, drawn, notices: partial(moves, where=where, lan=lan, drawn=drawn, notices=notices),
        st.sampled_from([CAFE, TRAIN]),
        st.sampled_from(["cafe", "office"]),
        nats,
        st.booleans(),
    ),
    st.builds(lambda ways, is_blocked: partial(blocks, ways=ways, is_blocked=is_blocked), ways, st.booleans()),
    st.sampled_from([forgets, reconnects, sleeps]),
)
calendars = st.lists(st.tuples(st.floats(0, 60), deeds), max_size=8)


def chatters(net: Internet, seconds: float, every: float = 0.2) -> dict[int, list[float]]:
    """Both ends send all the time; the moments at which the client (0) and the far end (1) sent."""
    sent: dict[int, list[float]] = {0: [], 1: []}

    def speaks(which: int, end: End, number: int) -> None:
        sent[which].append(net.now)
        net.sends(end, number.to_bytes(4, "big") + bytes(1216 if number % 20 == 0 else 60))

    for number in range(int(seconds / every)):
        for which, end in enumerate(net.ends):
            net.after(0.1 * which + number * every, partial(speaks, which, end, number))
    return sent


def longest_gap(end: End, since: float, until: float) -> float:
    """The longest time without a datagram between two moments, in seconds."""
    moments = [since, *(when for when, _ in end.got if since <= when <= until), until]
    return max(later - earlier for earlier, later in pairwise(moments))


@settings(max_examples=25, deadline=None, phases=WHOLE)
@given(worlds(), calendars)
def test_no_datagram_comes_twice_and_nothing_grows_or_swings(net: Internet, calendar: list[tuple[float, Deed]]) -> None:
    """In any world, and whatever happens in it."""
    chatters(net, 90)
    for when, deed in calendar:
        net.after(when, partial(deed, net))
    for _ in range(90):
        net.stands(1)
        for end in net.ends:
            assert len(end.pair._paths) <= MAX_PATHS
            assert len(end.pair._outbox) <= MAX_PACKETS
    # Each false alarm is a move away and one back; the patience before the latter doubles each time.
    most = 14 + 4 * len(calendar)
    for end in net.ends:
        assert max(Counter(datagram for _, datagram in end.got).values(), default=0) <= 1
        assert len(end.pair.history) <= most
        assert end.ticks < 90 * 60
    assert net.sent_bytes * 8 / 1000 / 90 < 2 * (64 + 45 + 40)  # copies, both ways; datagrams; probes


@settings(max_examples=25, deadline=None, phases=WHOLE)
@given(worlds(), calendars)
def test_with_a_stream_datagrams_flow_within_seconds(net: Internet, calendar: list[tuple[float, Deed]]) -> None:
    """Whatever the paths look like, no gap is longer than three seconds, because the stream is always there."""
    for when, deed in calendar:
        net.after(when, partial(deed, net))
    net.stands(60)
    reconnects(net)
    chatters(net, 20)
    net.stands(3)
    since = net.now
    net.stands(17)
    for end in net.ends:
        assert longest_gap(end, since, net.now) < 3, end.pair.snapshot(net.now)


@settings(max_examples=25, deadline=None, phases=WHOLE)
@given(worlds(), calendars)
def test_without_a_stream_datagrams_flow_when_a_path_exists(net: Internet, calendar: list[tuple[float, Deed]]) -> None:
    """When the client can reach the far end, which is on the open Internet, datagrams flow within half a minute."""
    net.far.place = office(None)
    net.connects("first")
    net.stands(1)
    net.loses("first")
    for when, deed in calendar:
        net.after(when, partial(deed, net))
    net.stands(60)
    for name in list(net.lines):
        net.loses(name)
    for weather in net.weather.values():
        weather.is_blocked, weather.loss, weather.mtu = False, 0.0, 1472
    net.stands(32)
    chatters(net, 10)
    since = net.now
    net.stands(10)
    for end in net.ends:
        assert longest_gap(end, since, net.now) < 1, end.pair.snapshot(net.now)


@pytest.mark.parametrize("jitter", [0.0, 0.01])
@settings(max_examples=3, deadline=None, phases=WHOLE)
@given(st.integers(0, 1 << 32), st.sampled_from([0.0, 0.02, 0.1]))
def test_paths_that_are_alike_never_swing(jitter: float, seed: int, loss: float) -> None:
    """Over the LAN, through the NAT or by the relay: the path in use is left for one false alarm at most."""
    nat = cone(CLIENT)
    net = Internet(Place("192.168.1.7", "home", nat), Place("192.168.1.9", "home", nat), seed=seed, has_relay=True)
    for weather in (*net.weather.values(), net.lan_weather):
        weather.delay, weather.jitter, weather.loss = 0.04, jitter, loss
    net.connects()
    chatters(net, 70)
    net.stands(10)
    before = [len(end.pair.history) for end in net.ends]
    net.stands(60)
    moves = [len(end.pair.history) - count for end, count in zip(net.ends, before, strict=True)]
    assert max(moves) <= (2 if loss else 0)  # away, and back
