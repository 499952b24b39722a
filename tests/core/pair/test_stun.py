"""The part of STUN that we speak."""

from __future__ import annotations

from ipaddress import ip_address

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
    """A request is a header without attributes."""
    assert stun.request(TRANSACTION) == bytes.fromhex(REQUEST)


@pytest.mark.parametrize(("source", "answer"), [(SOURCE_4, ANSWER_4), (SOURCE_6, ANSWER_6)])
def test_an_answer_on_the_wire(source: UdpAddress, answer: str) -> None:
    """The addresses of RFC 5769, sections 2.2 and 2.3, are encoded as they are there, and read back."""
    assert stun.respond(bytes.fromhex(REQUEST), source) == bytes.fromhex(answer)
    assert stun.read_response(bytes.fromhex(answer)) == (TRANSACTION, source)


def test_an_answer_of_another_server_is_read() -> None:
    """RFC 5769's answer of section 2.2 has attributes before and after the one that matters."""
    answer = bytes.fromhex(
        "0101003c 2112a442 b7e7a701bc34d686fa87dfae 8022000b 74657374 20766563 746f7220 00200008 0001a147 e112a643"
        "00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 80280004 c07d4c96"
    )
    assert stun.read_response(answer) == (TRANSACTION, SOURCE_4)


def test_a_request_that_asks_for_more_is_not_answered() -> None:
    """An attribute that must be understood forbids an answer; SOFTWARE, which need not be, does not."""
    username = bytes.fromhex("00010008 2112a442 b7e7a701bc34d686fa87dfae 00060004 61626364")
    software = bytes.fromhex("00010008 2112a442 b7e7a701bc34d686fa87dfae 80220004 61626364")
    assert stun.respond(username, SOURCE_4) is None
    assert stun.respond(software, SOURCE_4)


def test_answers_are_not_answered() -> None:
    """So two servers never talk to each other forever."""
    assert stun.respond(bytes.fromhex(ANSWER_4), SOURCE_4) is None


@pytest.mark.parametrize(
    "message",
    [
        "00110000 2112a442 b7e7a701bc34d686fa87dfae",  # an indication
        "01010000 2112a442 b7e7a701bc34d686fa87dfae",  # an answer
        "00030000 2112a442 b7e7a701bc34d686fa87dfae",  # another method
        "00010000 2112a443 b7e7a701bc34d686fa87dfae",  # another cookie: RFC 3489's STUN
        "40010000 2112a442 b7e7a701bc34d686fa87dfae",  # no STUN at all, by the first two bits
        "00010004 2112a442 b7e7a701bc34d686fa87dfae",  # cut
        "00010000 2112a442 b7e7a701bc34d686fa87df",
        "00010002 2112a442 b7e7a701bc34d686fa87dfae 8022",  # half an attribute
        "00010004 2112a442 b7e7a701bc34d686fa87dfae 80220004",  # an attribute that runs over the end
    ],
)
def test_nothing_but_a_binding_request_is_answered(message: str) -> None:
    """Other types, other protocols and cut messages get no answer."""
    assert stun.respond(bytes.fromhex(message), SOURCE_4) is None
    assert stun.read_response(bytes.fromhex(message)) is None


@pytest.mark.parametrize("beginning", ["0111000c 2112a442", "0001000c 2112a442", "0101000c 2112a443"])
def test_nothing_but_a_success_response_is_read(beginning: str) -> None:
    """An error response, a request, or another cookie tells no address, though the attribute is there."""
    assert stun.read_response(bytes.fromhex(beginning + ANSWER_4[17:])) is None


@pytest.mark.parametrize(
    "attribute",
    ["00200000", "0020000400010000", "002000080002a147e112a643", "002000080003a147e112a643", "80220004 00000000"],
)
def test_an_answer_without_a_whole_address_is_refused(attribute: str) -> None:
    """An address that is missing, cut, of the other family's length, or of no family."""
    body = bytes.fromhex(attribute)
    head = bytes.fromhex(f"0101{len(body):04x} 2112a442 b7e7a701bc34d686fa87dfae")
    assert stun.read_response(head + body) is None


def test_what_is_no_stun_is_told_by_its_first_two_bits_and_its_cookie() -> None:
    """So that our packets, mosh's datagrams and STUN share one socket."""
    request = bytes.fromhex(REQUEST)
    assert stun.is_stun(request)
    assert not stun.is_stun(b"\x40" + request[1:])
    assert not stun.is_stun(request[:7] + b"\0" + request[8:])
    assert not stun.is_stun(request[:-1])


@given(st.binary(max_size=600))
def test_noise_is_refused(noise: bytes) -> None:
    """With a good beginning, too; what happens to be a message is taken as that message and no other."""
    for data in (noise, bytes.fromhex(REQUEST[:17]) + noise, bytes.fromhex(ANSWER_4[:17]) + noise):
        answer, read = stun.respond(data, SOURCE_4), stun.read_response(data)
        assert answer is None or stun.read_response(answer) == (data[8:20], SOURCE_4)
        assert read is None or read[0] == data[8:20]
        assert stun.is_stun(data) or (answer, read) == (None, None)


@given(st.binary(min_size=1, max_size=30), st.integers(0, 31))
def test_a_damaged_answer_is_refused_or_another_address(change: bytes, place: int) -> None:
    """Never an error; with another type or cookie it is no answer."""
    good, answer = bytes.fromhex(ANSWER_4), bytearray.fromhex(ANSWER_4)
    answer[place : place + len(change)] = change
    read = stun.read_response(bytes(answer))
    is_another = bytes(answer[:2] + answer[4:8]) != good[:2] + good[4:8]
    assert read is None or not is_another
    assert read is None or (read[0] == answer[8:20] and ip_address(read[1].host).version == read[1].family)
