"""A stream carrier alone, and two of them in conversation."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.frame import Frame, FrameDecoder, ProtocolError
from tunneld.core.stream.queue import Waiting
from tunneld.core.stream.window import FIRST_WINDOW, MAX_WINDOW

HELLO = frame.PREAMBLE + frame.message(frame.HELLO, {"versions": [1]}).encode()
NOW = 1000.0


def fresh() -> StreamCarrier:
    return StreamCarrier("stream-1", NOW, dedicated=True)


def greeted() -> StreamCarrier:
    """A carrier whose far side has greeted, and whose own greeting is out."""
    carrier = fresh()
    carrier.receive(HELLO, NOW)
    carrier.outgoing(NOW)
    return carrier


def said(data: bytes) -> list[Frame]:
    """The frames in what a carrier wrote after its greeting."""
    decoder = FrameDecoder()
    decoder.feed(frame.PREAMBLE)
    return decoder.feed(data)


def offer(carrier: StreamCarrier, count: int, now: float = NOW) -> None:
    for number in range(count):
        carrier.offer(Waiting(1, number, bytes([number]), now))


def test_it_greets_first() -> None:
    """The preamble and HELLO go out at once, and datagrams only after the far side's."""
    carrier = fresh()
    assert (carrier.sent, carrier.received, carrier.heard) == (0, 0, NOW)
    offer(carrier, 1)
    assert carrier.outgoing(NOW) == HELLO
    assert carrier.receive(b"motd\n" + HELLO, NOW) == []
    assert said(carrier.outgoing(NOW)) == [Frame(frame.DATAGRAM, 1, 0, b"\0")]
    assert carrier.sent == 1
    assert carrier.noise == b"motd\n"


def test_datagrams_are_acknowledged_once_for_all_that_came() -> None:
    """One ACK answers a batch."""
    carrier = greeted()
    sent = [Frame(frame.DATAGRAM, 1, number, b"x") for number in range(3)]
    assert carrier.receive(b"".join(one.encode() for one in sent), NOW) == sent
    assert said(carrier.outgoing(NOW)) == [Frame(frame.ACK, number=3)]
    assert carrier.received == 3


def test_a_ping_is_answered() -> None:
    """The answer has the number of the ping, and goes out ahead of datagrams."""
    carrier = greeted()
    offer(carrier, 1)
    carrier.receive(Frame(frame.PING, number=77).encode(), NOW)
    assert said(carrier.outgoing(NOW))[0] == Frame(frame.PONG, number=77)


def test_one_ping_at_a_time_measures_the_round_trip() -> None:
    """No further ping is sent while one is unanswered."""
    carrier = greeted()
    carrier.ping(NOW)
    carrier.ping(NOW + 1)
    assert said(carrier.outgoing(NOW)) == [Frame(frame.PING)]
    assert carrier.waited(NOW + 2) == 2
    carrier.receive(Frame(frame.PONG).encode(), NOW + 2)
    assert (carrier.rtt, carrier.waited(NOW + 3)) == (2, 0)


def test_the_oldest_that_is_unanswered_counts() -> None:
    """Whether it is a datagram or a ping, the older of the two says for how long the peer has been silent."""
    carrier = greeted()
    offer(carrier, 1)
    carrier.outgoing(NOW)
    carrier.ping(NOW + 1)
    assert carrier.waited(NOW + 3) == 3
    carrier.receive(Frame(frame.ACK, number=1).encode(), NOW + 3)
    assert carrier.waited(NOW + 3) == 2
    assert carrier.heard == NOW + 3


def test_noise_is_known_before_the_greeting() -> None:
    """An error text shows what a far side printed that never greets."""
    carrier = fresh()
    carrier.receive(b"This account is currently not available.\n", NOW)
    assert carrier.noise == b"This account is currently not available.\n"


def test_the_window_holds_datagrams_back() -> None:
    """No more go out than the window allows, until the far side acknowledges some."""
    carrier = greeted()
    offer(carrier, FIRST_WINDOW + 3)
    assert len(said(carrier.outgoing(NOW))) == FIRST_WINDOW
    assert carrier.queued == 3
    assert carrier.outgoing(NOW) == b""
    carrier.receive(Frame(frame.ACK, number=2).encode(), NOW + 0.05)
    assert [one.number for one in said(carrier.outgoing(NOW + 0.05))] == [FIRST_WINDOW, FIRST_WINDOW + 1]


def test_unknown_kinds_are_skipped() -> None:
    """A later version may have more kinds; the endpoint gets such a frame and ignores it."""
    carrier = greeted()
    later = Frame(200, 1, 2, b"new")
    assert carrier.receive(later.encode() + Frame(frame.PING).encode(), NOW) == [later]
    assert said(carrier.outgoing(NOW)) == [Frame(frame.PONG)]


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (Frame(frame.PING), "the first frame is of kind 5, not a hello"),
        (Frame(frame.HELLO), "does not carry a JSON object"),
        (frame.message(frame.HELLO, {}), r"speaks versions \[\], this side 1"),
        (frame.message(frame.HELLO, {"versions": 1}), r"speaks versions \[\], this side 1"),
        (frame.message(frame.HELLO, {"versions": [2, 3]}), r"speaks versions \[2, 3\], this side 1"),
        (
            frame.message(frame.HELLO, {"versions": ["\x1b[2J" * 99, *range(2, 99)]}),
            r"versions \[2, 3, 4, 5, 6, 7, 8, 9\],",
        ),
    ],
)
def test_a_wrong_greeting_ends_it(first: Frame, why: str) -> None:
    """The text says what was wrong, and is short whatever the far side sent."""
    with pytest.raises(ProtocolError, match=why) as caught:
        fresh().receive(frame.PREAMBLE + first.encode(), NOW)
    assert len(str(caught.value)) < 100


def test_a_later_version_may_still_speak_ours() -> None:
    """Versions are a list, so that both sides can find one."""
    carrier = fresh()
    carrier.receive(frame.PREAMBLE + frame.message(frame.HELLO, {"versions": [2, 1], "new": {}}).encode(), NOW)
    assert carrier.greeted


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (Frame(frame.ACK, number=1), "acknowledges datagrams that were never sent"),
        (Frame(frame.ACK, number=0xFFFFFFFF), "acknowledges datagrams that were never sent"),
        (Frame(frame.PONG), "answers a ping that was never sent"),
    ],
)
def test_answers_to_nothing_end_it(wrong: Frame, why: str) -> None:
    """A far side that answers what was never sent is broken."""
    with pytest.raises(ProtocolError, match=why):
        greeted().receive(wrong.encode(), NOW)


def test_a_peer_that_asks_and_does_not_read_chokes_the_carrier() -> None:
    """The answers that wait are bounded; the owner looks at `is_choked` and ends the stream."""
    carrier = greeted()
    ping = Frame(frame.PING).encode()
    carrier.receive(ping * (64 * 1024 // len(ping)), NOW)
    left = 64 * 1024 % len(ping)
    assert not carrier.is_choked
    carrier.receive(ping, NOW)
    assert carrier.is_choked
    assert len(carrier.outgoing(NOW)) == 64 * 1024 - left + len(ping)
    assert not carrier.is_choked


def test_64_kib_may_wait_and_no_byte_more() -> None:
    """The bound counts all frames but datagrams, with their headers."""
    carrier = greeted()
    header = len(Frame(frame.REPORT).encode())
    for _ in range(4):
        carrier.say(Frame(frame.REPORT, payload=bytes(16 * 1024 - header)))
    assert not carrier.is_choked
    carrier.say(Frame(frame.PONG))
    assert carrier.is_choked


def test_an_answer_is_late_in_proportion_to_the_round_trip() -> None:
    """It is late after twice the usual round trip, and at least 0.1 s above it."""
    carrier = greeted()
    offer(carrier, 1)
    carrier.outgoing(NOW)
    assert not carrier.is_late(NOW + 1.9)
    assert carrier.is_late(NOW + 2.1)
    carrier.receive(Frame(frame.ACK, number=1).encode(), NOW + 0.02)
    assert not carrier.is_late(NOW + 99)
    offer(carrier, 1, now=NOW + 100)
    carrier.outgoing(NOW + 100)
    assert not carrier.is_late(NOW + 100 + 0.02 + 0.099)
    assert carrier.is_late(NOW + 100 + 0.02 + 0.101)


def test_a_flow_that_ended_waits_no_more() -> None:
    """Its datagrams are dropped."""
    carrier = greeted()
    offer(carrier, FIRST_WINDOW + 3)
    carrier.outgoing(NOW)
    carrier.forget(1)
    assert carrier.queued == 0


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_garbage_after_the_greeting_raises_nothing_but_a_protocol_error(chunks: list[bytes]) -> None:
    """The state that it leaves is bounded."""
    carrier = greeted()
    with contextlib.suppress(ProtocolError):
        for chunk in chunks:
            carrier.receive(chunk, NOW)
    assert len(carrier.outgoing(NOW)) < 2000


kinds = st.sampled_from([frame.HELLO, frame.DATAGRAM, frame.ACK, frame.CLOSE, frame.PING, frame.PONG, 10, 255])


@given(st.lists(st.builds(Frame, kinds, st.integers(0, 3), st.integers(0, 20), st.binary(max_size=5)), max_size=50))
def test_frames_in_any_order_raise_nothing_but_a_protocol_error(frames: list[Frame]) -> None:
    """Well-formed nonsense is nonsense as well."""
    carrier = greeted()
    with contextlib.suppress(ProtocolError):
        for at, one in enumerate(frames):
            carrier.offer(Waiting(1, at, b"x", NOW))
            carrier.outgoing(NOW)
            carrier.ping(NOW)
            carrier.receive(one.encode(), NOW)
            assert carrier.waited(NOW) >= 0
            assert len(carrier._window._sent) <= MAX_WINDOW
