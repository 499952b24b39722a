"""Frames: their bytes on the wire, and a decoder that raises nothing but a ProtocolError."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunneld.core.stream import frame
from tunneld.core.stream.frame import (
    ACK,
    CLOSE,
    DATAGRAM,
    HELLO,
    MAX_NOISE,
    MAX_PAYLOAD,
    PING,
    PONG,
    PREAMBLE,
    PROTOCOL_VERSION,
    REPORT,
    SERVE,
    SERVING,
    Frame,
    FrameDecoder,
    ProtocolError,
    body,
    message,
)

u32 = st.integers(0, 0xFFFFFFFF)
frames = st.builds(Frame, st.integers(0, 255), u32, u32, st.binary(max_size=200))

# kind | length | flow | number | payload
GOLDEN = [
    (message(HELLO, {"versions": [1]}), "01 0010 00000000 00000000 7b2276657273696f6e73223a5b315d7d"),
    (Frame(DATAGRAM, 60001 << 16 | 7, 3, b"hi"), "02 0002 ea610007 00000003 6869"),
    (Frame(DATAGRAM, 0xFFFFFFFF, 0xFFFFFFFF), "02 0000 ffffffff ffffffff"),
    (Frame(ACK, number=258), "03 0000 00000000 00000102"),
    (Frame(ACK, number=(1 << 32) + 2), "03 0000 00000000 00000002"),
    (Frame(CLOSE, 60001 << 16 | 7), "04 0000 ea610007 00000000"),
    (Frame(PING, number=9), "05 0000 00000000 00000009"),
    (Frame(PONG, number=9), "06 0000 00000000 00000009"),
    (message(SERVE, {}), "07 0002 00000000 00000000 7b7d"),
    (message(SERVING, {"error": "é"}), "08 0012 00000000 00000000 7b226572726f72223a225c7530306539227d"),
    (message(REPORT, {"datagrams_in": 1}), "09 0012 00000000 00000000 7b22646174616772616d735f696e223a317d"),
    (Frame(200, 1, 2, b"?"), "c8 0001 00000001 00000002 3f"),
]


@pytest.mark.parametrize(("sent", "wire"), GOLDEN)
def test_frames_on_the_wire(sent: Frame, wire: str) -> None:
    """Every kind has these bytes."""
    assert sent.encode() == bytes.fromhex(wire)


def test_the_documentation_shows_the_same_bytes() -> None:
    """The worked example of the document is a real frame."""
    text = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
    assert f"    {PREAMBLE.hex(' ')} " in text
    assert f"    {Frame(DATAGRAM, 60001 << 16 | 1, 0, bytes(8) + b'...').encode().hex(' ')}\n" in text


def test_the_version_on_the_wire() -> None:
    """An endpoint of another version would refuse this one."""
    assert PROTOCOL_VERSION == 1


def test_the_preamble_on_the_wire() -> None:
    """A stream starts with a zero byte and our name."""
    assert PREAMBLE.hex(" ") == "00 74 75 6e 6e 65 6c 64"


@pytest.mark.parametrize(("sent", "wire"), GOLDEN)
def test_the_wire_makes_the_same_frames(sent: Frame, wire: str) -> None:
    """A frame that was encoded is decoded as it was; numbers are modulo 2^32."""
    (received,) = synchronised().feed(bytes.fromhex(wire))
    assert received == sent._replace(number=sent.number & 0xFFFFFFFF)


@given(st.lists(frames, max_size=8), st.binary(max_size=50), st.data())
def test_a_stream_cut_anywhere_gives_the_same_frames(sent: list[Frame], noise: bytes, data: st.DataObject) -> None:
    """TCP and SSH may cut the stream anywhere."""
    noise = noise.replace(b"\0", b"")
    stream = noise + PREAMBLE + b"".join(one.encode() for one in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    decoder = FrameDecoder()
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[start:end])
    assert received == sent
    assert decoder.noise == noise
    assert decoder.pending == b""


noises = st.lists(
    st.one_of(st.binary(max_size=20), st.sampled_from([PREAMBLE[:n] for n in range(1, 8)]), st.just(PREAMBLE[1:]))
).map(b"".join)


@given(noises.filter(lambda noise: PREAMBLE not in noise + PREAMBLE[:-1]), st.integers(1, 9))
@example(b"\0tunnel", 1)
@example(b"\0\0tunnel\0", 3)
def test_noise_may_look_like_a_preamble(noise: bytes, step: int) -> None:
    """Parts of the preamble in the noise do not mislead the decoder, however they arrive."""
    stream = noise + PREAMBLE + Frame(PING).encode()
    decoder = FrameDecoder()
    received = [one for at in range(0, len(stream), step) for one in decoder.feed(stream[at : at + step])]
    assert received == [Frame(PING)]
    assert decoder.noise == noise


def test_noise_is_there_to_be_read_before_the_preamble() -> None:
    """Error texts show what a start-up file printed, also when no preamble ever comes."""
    decoder = FrameDecoder()
    decoder.feed(b"This account is currently not available.\n")
    assert decoder.pending == b"This account is currently not available.\n"


@pytest.mark.parametrize("step", [1000, MAX_NOISE + 100])
def test_noise_without_end_is_refused(step: int) -> None:
    """A far side that does not speak our protocol is recognised within 64 KiB."""
    decoder = FrameDecoder()
    with pytest.raises(ProtocolError, match="no preamble in the first 65536 bytes"):
        for _ in range(0, MAX_NOISE + 2 * step, step):
            decoder.feed(b"y\n" * (step // 2))


def test_as_much_noise_as_is_allowed() -> None:
    """Exactly the bound is accepted, however it arrives, and one byte more is not."""
    decoder = FrameDecoder()
    assert decoder.feed(b"x" * MAX_NOISE + PREAMBLE[:-1]) == []
    assert decoder.feed(PREAMBLE[-1:] + Frame(PING).encode()) == [Frame(PING)]
    assert FrameDecoder().feed(b"x" * MAX_NOISE + PREAMBLE + Frame(PING).encode()) == [Frame(PING)]
    with pytest.raises(ProtocolError):
        FrameDecoder().feed(b"x" * (MAX_NOISE + 1) + PREAMBLE)


def test_what_cannot_become_a_preamble_is_noise() -> None:
    """The last seven bytes may be the beginning of one; those before them are bounded as soon as they come."""
    decoder = FrameDecoder()
    assert decoder.feed(b"x" * (65536 + 7)) == []
    with pytest.raises(ProtocolError, match="no preamble in the first 65536 bytes"):
        decoder.feed(b"x")


def test_a_length_over_the_bound_is_refused_before_its_payload_comes() -> None:
    """Nobody can make us wait for, or hold, more than the bound."""
    largest = Frame(DATAGRAM, payload=bytes(MAX_PAYLOAD))
    assert synchronised().feed(largest.encode()) == [largest]
    with pytest.raises(ProtocolError, match="announces 16385 bytes; at most 16384"):
        synchronised().feed(Frame(DATAGRAM, payload=bytes(MAX_PAYLOAD + 1)).encode()[:11])


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_garbage_raises_nothing_but_a_protocol_error(chunks: list[bytes]) -> None:
    """Any bytes make frames, wait for more, or break the protocol; those that wait are bounded."""
    decoder = synchronised()
    with contextlib.suppress(ProtocolError):
        for chunk in chunks:
            for received in decoder.feed(chunk):
                with contextlib.suppress(ProtocolError):
                    body(received)
            assert len(decoder.pending) <= MAX_PAYLOAD + 11


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"[]", b"1", b"null", b'"x"', b"{", b'{"a":}', b"\xff\xfe", b"\xff", b"{}{}", b"\0", b"\xef\xbb\xbf{}"),
        *(
            b'{"a":' + b"9" * 5000 + b"}",
            b'{"a":' * 3000,
            b"[" * 16000,
            b'{"a":NaN}',
            b'{"a":-Infinity}',
            '{"a":1}'.encode("utf-16"),
        ),
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_json_of_a_wrong_shape_breaks_the_protocol(payload: bytes) -> None:
    """Text that is no JSON, no object, too deep or has too many digits all raises the same kind of error."""
    with pytest.raises(ProtocolError, match="kind 7 does not carry a JSON object"):
        body(Frame(SERVE, payload=payload))


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.lists(st.integers())), max_size=5))
def test_json_comes_back_as_it_was(sent: dict[str, object]) -> None:
    """Text of any script crosses, as ASCII on the wire."""
    assert body(message(SERVING, sent)) == sent
    assert message(SERVING, sent).payload.isascii()


def synchronised() -> FrameDecoder:
    decoder = FrameDecoder()
    assert decoder.feed(frame.PREAMBLE) == []
    return decoder
