"""What a clean, a lossy, a dark and a slow line cost a person who types, and what is sent more than once there."""

from __future__ import annotations

from functools import partial

import pytest

from tests.core.pair.internet import CLIENT, FAR, START, Internet, Place, home, office, restricted
from tests.core.pair.typist import ROUND_TRIP, Typist, between
from tests.core.stream.simulated import Line, percentile
from tunneld.core.pair.resend import ECHO_RESENDS, RESENDS


def test_a_clean_link_has_each_datagram_once() -> None:
    """Once the path has settled no copies leave, the stream is idle, and an echo takes the network's round trip."""
    net = between(restricted(CLIENT), restricted(FAR))
    net.stands(2)
    typist = Typist(net, 30)
    net.stands(6)
    before = [(end.pair.counts["copies_out"], end.pair.streams["ssh"].sent) for end in net.ends]
    net.stands(30)
    assert [(end.pair.counts["copies_out"], end.pair.streams["ssh"].sent) for end in net.ends] == before
    assert typist.lost == 0
    assert typist.ages[-1] <= ROUND_TRIP + 0.001


@pytest.mark.parametrize(("loss", "p95", "p99", "most"), [(0.05, 0.113, 0.246, 20), (0.15, 0.160, 0.206, 28)])
def test_keys_come_sooner_than_loss_would_have_it(loss: float, p95: float, p99: float, most: float) -> None:
    """The percentiles stay below the promised shares of plain mosh's at this loss, and copies below `most` kbit/s."""
    net = between(restricted(CLIENT), restricted(FAR), loss=loss)
    net.stands(3)
    typist = Typist(net, 40)
    net.stands(42)
    assert percentile(typist.ages, 0.95) < p95
    assert percentile(typist.ages, 0.99) < p99
    assert typist.lost <= 3
    assert all(end.pair.snapshot(net.now)["redundancy"]["spent_kbit"] < most for end in net.ends)


def test_a_moment_of_darkness_costs_little_more_than_itself() -> None:
    """In 200 ms of darkness each 5 s no key waits for mosh's own retransmission, which would take 220 ms more."""
    net = between(restricted(CLIENT), restricted(FAR))
    net.stands(11)
    dark = [(START + second, START + second + 0.2) for second in range(12, 132, 5)]
    for weather in net.weather.values():
        weather.dark = dark
    typist = Typist(net, 120)
    net.stands(125)
    assert typist.lost == 0
    assert typist.ages[-1] < 0.2 + ROUND_TRIP + 0.05
    assert percentile(typist.ages, 0.99) < 0.25
    assert all(end.pair.snapshot(net.now)["redundancy"]["spent_kbit"] < 20 for end in net.ends)


def test_the_newest_leaves_the_dark_first() -> None:
    """mosh takes no round trip from datagrams behind a newer one; in another order it would believe in a slow line."""
    net = between(restricted(CLIENT), restricted(FAR))
    net.stands(11)
    net.weather["up"].dark = [(net.now, net.now + 0.2)]
    for number in range(3):
        net.after(0.05 + 0.04 * number, partial(net.sends, net.client, bytes([number])))
    net.stands(1)
    assert [datagram for _, datagram in net.far.got] == [b"\2", b"\1", b"\0"]


def test_the_newest_leaves_the_dark_first_where_there_are_two_ways() -> None:
    """Both datagrams take the same path each time, though the second was sent between two turns of the first."""
    net = between(restricted(CLIENT), restricted(FAR), has_relay=True)
    net.stands(11)
    net.loses()
    net.weather["down"].dark = [(net.now, net.now + 0.15)]
    for number in range(2):
        net.after(0.01 + 0.135 * number, partial(net.sends, net.far, bytes([number])))
    net.stands(1)
    assert [datagram for _, datagram in net.client.got] == [b"\1", b"\0"]


@pytest.mark.parametrize(("loss", "dark", "p95"), [(0.05, False, 0.15), (0.15, False, 0.2), (0.0, True, 0.25)])
def test_copies_leave_room_on_a_slow_line(loss: float, dark: bool, p95: float) -> None:
    """As many copies as the budget allows would fill a line of 64 kbit/s, and delay each echo by two seconds."""
    net = Internet(home(None), office(None))
    for weather in net.weather.values():
        weather.rate, weather.loss = 8000, loss
        weather.dark = [(START + second, START + second + 0.2) for second in range(12, 72, 5)] if dark else []
    net.connects()
    net.stands(8)
    net.loses()
    typist = Typist(net, 60, echoes=2)
    net.stands(65)
    assert percentile(typist.ages, 0.95) < p95
    assert typist.lost <= len(typist.typed) * 0.02
    for end in net.ends:
        assert 5 < end.pair.snapshot(net.now)["redundancy"]["spent_kbit"] < 30


def test_an_echo_goes_again_for_longer_than_a_key() -> None:
    """Somebody waits for the echo, while mosh-client sends a key anew by itself."""
    net = between(restricted(CLIENT), restricted(FAR))
    net.stands(11)
    net.loses()
    for weather in net.weather.values():
        weather.is_blocked = True
    for end, times in ((net.client, RESENDS), (net.far, RESENDS + ECHO_RESENDS)):
        net.sends(end, b"one")
        net.stands(0.45)
        assert end.pair.counts["copies_out"] == times


def test_a_longer_way_after_a_move_is_no_queue() -> None:
    """The room for copies stays, just when a lossy new path needs them most."""
    net = between(restricted(CLIENT), restricted(FAR), loss=0.1)
    net.stands(3)
    Typist(net, 20)
    net.stands(10)
    for weather in net.weather.values():
        weather.delay += 0.04
    net.moves(net.client, Place("10.9.9.9", "cafe", restricted("203.0.113.99")))
    net.stands(5)
    assert net.client.pair.snapshot(net.now)["redundancy"]["room_kbit"] > 40


@pytest.mark.parametrize("jitter", [0.02, 0.1])
def test_jitter_is_no_queue(jitter: float) -> None:
    """Where delays vary, one short round trip among the last eight keeps the room for copies."""
    net = between(restricted(CLIENT), restricted(FAR), loss=0.05)
    for weather in net.weather.values():
        weather.jitter = jitter
    net.stands(3)
    Typist(net, 20)
    net.stands(22)
    for end in net.ends:
        assert end.pair.snapshot(net.now)["redundancy"]["room_kbit"] > 40


@pytest.mark.parametrize(("jitter", "late", "most"), [(0.0, 0.67, 1), (0.1, 0.75, 1)])
def test_a_slow_long_line_is_not_filled(jitter: float, late: float, most: float) -> None:
    """At 64 kbit/s and a round trip of 600 ms, a datagram that waits behind another one is not taken for lost."""
    net = Internet(home(None), office(None))
    for weather in net.weather.values():
        weather.delay, weather.jitter, weather.rate = 0.3 - jitter / 2, jitter, 8000
    net.connects(up=Line(delay=0.3, rate=8000), down=Line(delay=0.3, rate=8000))
    net.stands(12)
    typist = Typist(net, 60)
    net.stands(65)
    assert typist.lost == 0
    assert percentile(typist.ages, 0.99) < late
    for end in net.ends:
        assert end.pair.snapshot(net.now)["redundancy"]["spent_kbit"] < most
        assert len(end.pair.history) == 1


def test_a_lossy_path_has_a_stream_by_its_side() -> None:
    """At 40 % loss the path and the stream both carry, and what comes first counts."""
    net = Internet(home(restricted(CLIENT)), office(restricted(FAR)))
    net.connects()
    net.stands(3)
    for weather in net.weather.values():
        weather.loss = 0.4
    typist = Typist(net, 30)
    net.stands(10)
    before = net.far.pair.streams["ssh"].sent
    net.stands(22)
    assert net.far.pair.streams["ssh"].sent > before + 80
    assert typist.lost <= 3
    assert percentile(typist.ages, 0.99) < 2 * ROUND_TRIP


def test_the_budget_bounds_the_copies() -> None:
    """A flood of small datagrams at 15 % loss has copies for 16 kbit/s, and without a budget it has none."""
    for budget, least, most in ((16.0, 10, 18), (0.0, 0, 0)):
        net = Internet(home(None), office(None), budget=budget)
        for weather in net.weather.values():
            weather.loss = 0.15
        net.connects()
        for number in range(2000):
            net.after(0.01 * number, partial(net.sends, net.client, number.to_bytes(4, "big") + bytes(200)))
        net.stands(20)
        assert least <= net.client.pair.snapshot(net.now)["redundancy"]["spent_kbit"] <= most
