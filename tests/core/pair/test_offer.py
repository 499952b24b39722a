"""OFFER on the wire, and what a peer may say wrong in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.pair import offer
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.offer import MAX_CANDIDATES, Offer
from tunneld.core.stream import frame

LAN = Candidate("lan", UdpAddress("192.168.1.7", 41000))


def test_an_offer_on_the_wire() -> None:
    """An offer is JSON as the module's docstring shows it, and is read back as it was."""
    encoded = Offer(3, {4: 41000}, (LAN, Candidate("relay", UdpAddress("2001:db8::1", 7)))).encode()
    assert encoded.kind == 10
    assert json.loads(encoded.payload) == {
        "round": 3,
        "ports": {"4": 41000},
        "candidates": [["lan", "192.168.1.7", 41000], ["relay", "2001:db8::1", 7]],
    }
    assert offer.read(frame.body(encoded)) == Offer(
        3, {4: 41000}, (LAN, Candidate("relay", UdpAddress("2001:db8::1", 7)))
    )


def test_an_address_is_written_with_its_port() -> None:
    """An IPv6 address stands in brackets, as RFC 3986 has it in section 3.2.2."""
    assert [str(UdpAddress(host, 7)) for host in ("192.0.2.1", "2001:db8::1")] == ["192.0.2.1:7", "[2001:db8::1]:7"]


@pytest.mark.parametrize(
    "candidate",
    [
        *(
            ["lan", host, 5]
            for host in ("127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "169.254.169.254")
        ),
        *(
            ["lan", host, 5]
            for host in ("fe80::1", "2001:db8::1%eth0", "::ffff:192.0.2.1", "255.255.255.255", "host", "", 7)
        ),
        *(["lan", "192.0.2.1", port] for port in (0, -1, 65536, "5", 5.0, True, None)),
        *([kind, "192.0.2.1", 5] for kind in ("peer", "", None, ["lan"])),
        *([], "lan", None, ["lan", "192.0.2.1"], ["lan", "192.0.2.1", 5, 6]),
    ],
)
def test_a_candidate_that_makes_no_sense_is_left_out(candidate: object) -> None:
    """A peer cannot make us probe our own machine or our own network."""
    read = offer.read({"round": 1, "ports": {}, "candidates": [candidate, ["lan", "192.168.1.7", 41000]]})
    assert read == Offer(1, {}, (LAN,))


def test_the_first_sixteen_candidates_count() -> None:
    """Of any number of candidates the first sixteen are read."""
    read = offer.read({"round": 1, "ports": {}, "candidates": [["lan", "192.168.1.7", 1 + port] for port in range(99)]})
    assert read
    assert [candidate.address.port for candidate in read.candidates] == [*range(1, 17)]


texts = st.text("46:.%lan\0é", max_size=8)  # of few letters: Hypothesis's table of all of them takes a second to make
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(texts, inner, max_size=5),
)


@given(st.fixed_dictionaries({}, optional={"round": json_values, "ports": json_values, "candidates": json_values}))
def test_any_offer_is_read_or_refused(body: dict[str, Any]) -> None:
    """Whatever JSON comes, reading it raises no error and gives no more candidates than allowed."""
    read = offer.read(body)
    assert read is None or len(read.candidates) <= MAX_CANDIDATES


@pytest.mark.parametrize(
    ("count", "is_read"),
    [(1, True), (2**32 - 1, True), (0, False), (2**32, False), (True, False), (1.0, False), ("1", False)],
)
def test_a_round_is_a_number_of_32_bits(count: object, is_read: bool) -> None:
    """An offer without one is refused as a whole, and so is one without ports or candidates."""
    body = {"round": count, "ports": {}, "candidates": []}
    assert (offer.read(body) is not None) is is_read
    for missing in ("ports", "candidates"):
        assert offer.read({**body, missing: None}) is None


def test_ports_are_numbers_by_family() -> None:
    """What is no port, or of no family, is left out."""
    for ports, expected in (
        ({"4": 1, "6": 65535}, {4: 1, 6: 65535}),
        ({"4": 0, "6": 65536}, {}),
        ({"5": 7, "7": 7, "6": True, "4": "7"}, {}),
    ):
        assert offer.read({"round": 1, "ports": ports, "candidates": []}) == Offer(1, expected, ())


def test_a_candidates_port_and_address_may_be_the_largest() -> None:
    """Port 65535, and an address of 45 characters, which is written in its usual spelling."""
    longest = "2001:0db8:0000:0000:0000:0000:192.168.100.200"
    read = offer.read({"round": 1, "ports": {}, "candidates": [["lan", longest, 65535]]})
    assert read == Offer(1, {}, (Candidate("lan", UdpAddress("2001:db8::c0a8:64c8", 65535)),))


def test_each_candidate_is_offered_once() -> None:
    """In order, and sixteen of them at most."""
    several = [Candidate("lan", UdpAddress("192.168.1.7", port)) for port in range(1, 20)]
    assert offer.distinct([LAN, LAN, *several, LAN]) == (LAN, *several[:15])
