"""Packets on the wire, and that strangers can do nothing with them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.pair import packet
from tunneld.core.pair.packet import ANSWER, DATAGRAM, LARGEST_PACKET, PACKET_OVERHEAD, PROBE, Seal, identities

SECRET = bytes(range(32))


def seals(secret: bytes = SECRET) -> tuple[Seal, Seal]:
    """The client's and the far end's."""
    return Seal(secret, Counter(), is_client=True), Seal(secret, Counter(), is_client=False)


def test_packets_on_the_wire() -> None:
    """A packet is kind, identity, number, body and tag; each direction has its own identity and key."""
    client, far = seals()
    sent = [
        client.close(DATAGRAM, packet.datagram_body(7, b"hi")),
        client.close(PROBE, b""),
        far.close(ANSWER, packet.answer_body(1, 2)),
    ]
    assert [one.hex() for one in sent] == [
        bytes.fromhex(text).hex()
        for text in (
            "41 6f2a2ea24a522fb9 000000000000 000000076869 77547ceefef7b595ff3b97b0a94f9259",
            "42 6f2a2ea24a522fb9 000000000001  0579068f8b793d2173c77623545a710c",
            "43 eb8374f074005e2b 000000000000 00000000000100000002 03cc12cd81541384ef30bcfe90028109",
        )
    ]


def test_a_datagram_grows_by_what_mosh_leaves_free() -> None:
    """At most 36 bytes fit between mosh's largest datagram over ::1 and a packet of 1280 bytes."""
    client, _ = seals()
    assert len(client.close(DATAGRAM, packet.datagram_body(0, bytes(1216)))) - 1216 == PACKET_OVERHEAD <= 36


@given(st.integers(0, (1 << 32) - 1), st.binary(max_size=1472))
def test_a_datagram_comes_out_as_it_went_in(number: int, datagram: bytes) -> None:
    """Any datagram with any number survives sealing and opening."""
    client, far = seals()
    opened = far.open(client.close(DATAGRAM, packet.datagram_body(number, datagram)))
    assert opened and (opened.kind, packet.read_datagram(opened.body)) == (DATAGRAM, (number, datagram))


@given(st.integers(0, 1 << 20), st.integers(1, 255))
def test_a_packet_with_any_byte_changed_is_refused(place: int, change: int) -> None:
    """A changed byte anywhere, or a missing one, makes the tag wrong."""
    client, far = seals()
    sealed = bytearray(client.close(PROBE, bytes(10)))
    sealed[place % len(sealed)] ^= change
    assert far.open(bytes(sealed)) is None
    assert far.open(bytes(sealed[:-1])) is None


@given(st.binary(max_size=1600))
def test_noise_is_refused(noise: bytes) -> None:
    """Random bytes of any length are no packet."""
    assert seals()[1].open(noise) is None


def test_what_is_refused_is_counted_by_reason() -> None:
    """Each reason has its counter: wrong size, strangers (our own packets sent back, too), forged, repeated."""
    counts = Counter[str]()
    client, _ = seals()
    far = Seal(SECRET, counts, is_client=False)
    stranger, _ = seals(bytes(32))
    good = client.close(PROBE, b"")
    assert far.open(good)
    for refused in (
        b"",
        bytes(LARGEST_PACKET + 1),
        stranger.close(PROBE, b""),
        good[:-1] + b"!",
        good,
        far.close(PROBE, b""),
    ):
        assert far.open(refused) is None
    assert counts == {"packets_wrong_size": 2, "packets_of_strangers": 2, "packets_forged": 1, "packets_repeated": 1}


def test_a_refused_number_stays_free() -> None:
    """A forged packet cannot use up the number of a good one, nor move the window of numbers on."""
    client, far = seals()
    good = client.close(PROBE, b"")
    forged = bytearray(good)
    forged[9] = 0xFF
    assert far.open(bytes(forged)) is None
    assert far.open(good)


def test_packets_may_overtake_each_other() -> None:
    """The last thousand numbers are taken in any order, each once; older ones are refused."""
    client, far = seals()
    sealed = [client.close(PROBE, b"") for _ in range(1100)]
    assert far.open(sealed[-1])
    assert far.open(sealed[100])
    assert not far.open(sealed[100])
    assert not far.open(sealed[50])


def test_a_number_counts_once_in_48_bits() -> None:
    """Numbers that differ by 2^32 are two numbers, and a packet recorded 2^32 packets ago stays refused."""
    client, far = seals()
    recorded = [client.close(PROBE, b"") for _ in range(20)]
    assert far.open(recorded[0])
    client._number = 1 << 32
    assert far.open(client.close(PROBE, b""))
    assert not far.open(recorded[10])


def test_a_secret_has_32_bytes() -> None:
    """A secret of another size is our own mistake, and raises ValueError."""
    with pytest.raises(ValueError, match="32 bytes"):
        Seal(b"short", Counter(), is_client=True)


@given(st.binary(max_size=40))
def test_bodies_of_any_shape_are_read_or_refused(body: bytes) -> None:
    """Even an authenticated peer may send a wrong body; reading it raises no error."""
    answer, datagram = packet.read_answer(body), packet.read_datagram(body)
    assert answer is None or packet.answer_body(*answer) == body
    assert datagram is None or packet.datagram_body(*datagram) == body


def test_the_ends_have_identities_of_their_own() -> None:
    """Identities differ by end and secret: a relay can tell the ends, and each end refuses its own packets."""
    assert len({*identities(SECRET), *identities(bytes(32))}) == 4


def test_the_count_in_an_answer_wraps() -> None:
    """It has 32 bits; a path that lives long enough passes them."""
    assert packet.read_answer(packet.answer_body(1, (1 << 32) + 5)) == (1, 5)
