"""STUN, as far as we speak it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.pair import stun
from tunneld.core.pair.candidate import UdpAddress

TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")  # that of RFC 5769's test vectors

REQUEST = "00010000 2112a442 b7e7a701bc34d686fa87dfae"
ANSWER_4 = "0101000c 2112a442 b7e7a701bc34d686fa87dfae 00200008 0001a147 e112a643"
ANSWER_6 = "01010018 2112a442 b7e7a701bc34d686fa87dfae 00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9"
SOURCE_4 = UdpAddress("192.0.2.1", 32853)
SOURCE_6 = UdpAddress("2001:db8:1234:5678:11:2233:4455:6677", 32853)


def test_a_request_on_the_wire() -> None:
    """A header, and no attributes."""
    assert stun.request(TRANSACTION) == bytes.fromhex(REQUEST)


@pytest.mark.parametrize(("source", "answer"), [(SOURCE_4, ANSWER_4), (SOURCE_6, ANSWER_6)])
def test_an_answer_on_the_wire(source: UdpAddress, answer: str) -> None:
    """The addresses of RFC 5769's test vectors, section 2.2 and 2.3, come out as they do there."""
    assert stun.respond(bytes.fromhex(REQUEST), source) == bytes.fromhex(answer)
    assert stun.read_response(bytes.fromhex(answer)) == (TRANSACTION, source)


def test_an_answer_of_another_server_is_read() -> None:
    """RFC 5769, section 2.2: with attributes before and after the one that matters."""
    answer = bytes.fromhex(
        "0101003c 2112a442 b7e7a701bc34d686fa87dfae 8022000b 74657374 20766563 746f7220 00200008 0001a147 e112a643"
        "00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 80280004 c07d4c96"
    )
    assert stun.read_response(answer) == (TRANSACTION, SOURCE_4)


def test_a_request_that_asks_for_more_is_not_answered() -> None:
    """It has an attribute that must be understood; SOFTWARE, which need not, does no harm."""
    username = bytes.fromhex("00010008 2112a442 b7e7a701bc34d686fa87dfae 00060004 61626364")
    software = bytes.fromhex("00010008 2112a442 b7e7a701bc34d686fa87dfae 80220004 61626364")
    assert stun.respond(username, SOURCE_4) is None
    assert stun.respond(software, SOURCE_4)


def test_answers_are_not_answered() -> None:
    """Two reflectors never talk to each other."""
    assert stun.respond(bytes.fromhex(ANSWER_4), SOURCE_4) is None


@given(st.binary(max_size=600))
def test_noise_is_refused(noise: bytes) -> None:
    """With a good beginning, too."""
    for data in (noise, bytes.fromhex(REQUEST[:17]) + noise, bytes.fromhex(ANSWER_4[:17]) + noise):
        stun.respond(data, SOURCE_4)
        stun.read_response(data)


@given(st.binary(min_size=1, max_size=30), st.integers(0, 31))
def test_a_damaged_answer_is_refused_or_another_address(change: bytes, place: int) -> None:
    """Never an error."""
    answer = bytearray(bytes.fromhex(ANSWER_4))
    answer[place : place + len(change)] = change
    stun.read_response(bytes(answer))
