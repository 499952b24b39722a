"""A third machine passes two ends' packets on, to the two ends alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.packet import DATAGRAM, LARGEST_PACKET, Seal, identities
from tunneld.core.pair.relaying import PACKET_RATE, SILENT_AFTER, Relaying

SECRET = bytes(range(32))
NEAR, NEAR_6 = UdpAddress("203.0.113.1", 1111), UdpAddress("2001:db8::1", 1116)
FAR, FAR_6 = UdpAddress("198.51.100.2", 2222), UdpAddress("2001:db8::2", 2226)


@pytest.fixture
def relaying() -> Relaying:
    return Relaying(identities(SECRET), Counter())


def packet_of(*, client: bool, size: int = 30) -> bytes:
    return Seal(SECRET, Counter(), is_client=client).close(DATAGRAM, bytes(size))


CLIENTS, FARS = packet_of(client=True), packet_of(client=False)


def test_each_ends_packets_go_to_where_the_others_come_from(relaying: Relaying) -> None:
    """The first packet has nowhere to go yet, and an end that moves is followed."""
    assert relaying.pass_on(CLIENTS, NEAR, 0) is None
    assert relaying.pass_on(FARS, FAR, 1) == NEAR
    assert relaying.pass_on(CLIENTS, NEAR, 2) == FAR
    moved = UdpAddress("203.0.113.9", 999)
    assert relaying.pass_on(CLIENTS, moved, 3) == FAR
    assert relaying.pass_on(FARS, FAR, 4) == moved
    assert relaying.heard == (3, 4)


def test_each_family_is_a_path_of_its_own(relaying: Relaying) -> None:
    """Two ends that have both families try both, and an answer takes its question's path back."""
    for now, (near, far) in enumerate([(NEAR, FAR), (NEAR_6, FAR_6)]):
        relaying.pass_on(CLIENTS, near, now)
        relaying.pass_on(FARS, far, now)
    assert relaying.pass_on(CLIENTS, NEAR, 2) == FAR
    assert relaying.pass_on(CLIENTS, NEAR_6, 2) == FAR_6
    assert relaying.pass_on(FARS, FAR, 2) == NEAR
    assert relaying.pass_on(FARS, FAR_6, 2) == NEAR_6


def test_families_are_crossed_where_they_must_be(relaying: Relaying) -> None:
    """Packets change the family when an end has only the other one, or has lost one of the two."""
    relaying.pass_on(CLIENTS, NEAR_6, 0)
    assert relaying.pass_on(FARS, FAR, 0) == NEAR_6
    relaying.pass_on(CLIENTS, NEAR, 1)
    relaying.pass_on(CLIENTS, NEAR_6, 1 + SILENT_AFTER + 0.1)
    assert relaying.pass_on(FARS, FAR, 1 + SILENT_AFTER + 0.2) == NEAR_6


@given(st.binary(max_size=80))
def test_what_strangers_send_goes_nowhere(data: bytes) -> None:
    """Who does not know an identity reaches nobody, and changes nothing."""
    relaying = Relaying(identities(SECRET), Counter())
    relaying.pass_on(CLIENTS, NEAR, 0)
    relaying.pass_on(FARS, FAR, 0)
    assert relaying.pass_on(data, UdpAddress("192.0.2.66", 6666), 1) is None
    assert relaying.pass_on(CLIENTS, NEAR, 2) == FAR


@pytest.mark.parametrize("size", [24, LARGEST_PACKET + 1])
def test_no_packet_of_another_size_is_passed_on(relaying: Relaying, size: int) -> None:
    """A packet too short for a tag, or longer than any end takes, goes nowhere."""
    relaying.pass_on(FARS, FAR, 0)
    assert relaying.pass_on(CLIENTS[:9].ljust(size, b"x"), NEAR, 0) is None


def test_a_flood_is_cut(relaying: Relaying) -> None:
    """A thousand packets a second pass, however fast the two ends, or somebody who pretends to be one, send."""
    relaying.pass_on(FARS, FAR, 0)
    passed = sum(relaying.pass_on(CLIENTS, NEAR, now / 10000) is not None for now in range(30000))
    assert PACKET_RATE * 3 <= passed <= PACKET_RATE * 4


def test_a_packet_of_any_size_between_passes(relaying: Relaying) -> None:
    """The shortest has one byte beside its identity and its tag; the longest is the longest that an end takes."""
    relaying.pass_on(FARS, FAR, 0)
    for size in (25, LARGEST_PACKET):
        assert relaying.pass_on(CLIENTS[:9].ljust(size, b"x"), NEAR, 0) == FAR


def test_what_is_refused_is_counted() -> None:
    """A thousand packets pass at once, and one more each millisecond; a stranger's packet takes no place of theirs."""
    counts = Counter[str]()
    relaying = Relaying(identities(SECRET), counts)
    relaying.pass_on(b"noise", NEAR, 1000)
    assert counts == {"packets_of_strangers": 1}
    for _ in range(1000):
        relaying.pass_on(FARS, FAR, 1000)
    assert counts == {"packets_of_strangers": 1}
    relaying.pass_on(FARS, FAR, 1000)
    assert counts == {"packets_of_strangers": 1, "packets_refused_rate": 1}
    assert [relaying.pass_on(CLIENTS, NEAR, 1000 + 1 / 512) for _ in range(2)] == [FAR, None]


@pytest.mark.parametrize(("later", "source"), [(30, NEAR), (30.1, NEAR_6)])
def test_a_family_is_silent_after_half_a_minute(relaying: Relaying, later: float, source: UdpAddress) -> None:
    """As long as the end was heard there within 30 s of its last packet, an answer keeps the family."""
    relaying.pass_on(CLIENTS, NEAR, 1000)
    relaying.pass_on(CLIENTS, NEAR_6, 1000 + later)
    assert relaying.pass_on(FARS, FAR, 1000 + later) == source
