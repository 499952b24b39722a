"""Frames: how two endpoints talk over a byte stream (an SSH session channel).

A stream starts with the preamble `00 74 75 6e 6e 65 6c 64` (a zero byte and "tunneld"). Whatever comes before it is
noise from shell start-up files, and the decoder skips it. Frames follow, each with a header of 11 bytes; all numbers
are big-endian:

    kind u8 | length u16 | flow u32 | number u32 | payload, `length` bytes

    HELLO     1  payload: JSON (UTF-8) {"versions": [1]}; the first frame in each direction
    DATAGRAM  2  flow, number: the datagram's sequence number in its flow; payload: the datagram
    ACK       3  number: how many DATAGRAM frames this side has received on this stream, modulo 2^32
    CLOSE     4  flow: it has ended
    PING      5  number: any
    PONG      6  number: the PING's
    SERVE     7  to an agent, JSON: what to listen on
    SERVING   8  from an agent, JSON: where it listens, or why it does not
    REPORT    9  from an agent, JSON: its counters
    OFFER    10  to the other end of a pair, JSON: where the sender may be reached over UDP (see core/pair/offer.py)

A flow's number is its ingress port (upper 16 bits) and a serial (lower 16 bits), so no frame has to open a flow. An
endpoint ignores frames of an unknown kind, so that a later version may add kinds.
"""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

PREAMBLE = b"\0tunneld"

PROTOCOL_VERSION = 1

MAX_NOISE = 64 * 1024
"""Bytes of shell noise before the preamble: a generous message of the day. More does not come from our agent."""

MAX_PAYLOAD = 16 * 1024
"""Bytes of payload in one frame: enough for a JSON message; a datagram is smaller (see flow.MAX_DATAGRAM)."""

_HEADER = struct.Struct(">BHII")

HELLO, DATAGRAM, ACK, CLOSE, PING, PONG, SERVE, SERVING, REPORT, OFFER = range(1, 11)


class ProtocolError(Exception):
    """The peer broke the protocol; the text says how. The carrier ends, and its endpoint goes on."""


class Frame(NamedTuple):
    """One frame; `flow` and `number` are unsigned 32-bit integers, 0 where the kind has none."""

    kind: int
    flow: int = 0
    number: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        """The frame as it stands in the stream; `number` is taken modulo 2^32."""
        return _HEADER.pack(self.kind, len(self.payload), self.flow, self.number & 0xFFFFFFFF) + self.payload


def message(kind: int, body: dict[str, Any]) -> Frame:
    """A frame of this kind that carries `body` as JSON."""
    return Frame(kind, payload=json.dumps(body, separators=(",", ":")).encode())


def body(frame: Frame) -> dict[str, Any]:
    """The JSON object in a frame.

    Raises:
        ProtocolError: the payload is not a JSON object.
    """
    try:
        value = json.loads(frame.payload.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ProtocolError(f"frame of kind {frame.kind} does not carry a JSON object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")  # Python's parser takes NaN and Infinity


class FrameDecoder:
    """Cuts a byte stream into frames; the pieces in which the stream arrives may end anywhere.

    `noise` is what came before the preamble, for error texts.
    """

    def __init__(self) -> None:
        self.noise = b""
        self._buffer = bytearray()
        self._synchronised = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; return the frames that they complete.

        Raises:
            ProtocolError: the preamble does not come within MAX_NOISE bytes, or a frame is longer than MAX_PAYLOAD.
        """
        self._buffer += data
        if not self._synchronised and not self._synchronise():
            return []
        frames = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            kind, length, flow, number = _HEADER.unpack_from(self._buffer, start)
            if length > MAX_PAYLOAD:
                raise ProtocolError(f"frame of kind {kind} announces {length} bytes; at most {MAX_PAYLOAD} are allowed")
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append(Frame(kind, flow, number, bytes(self._buffer[start + _HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames

    def _synchronise(self) -> bool:
        found = self._buffer.find(PREAMBLE)
        if found < 0:
            # The last bytes may be the beginning of a preamble: they stay in the buffer.
            if len(self._buffer) - len(PREAMBLE) + 1 > MAX_NOISE:
                raise ProtocolError(f"no preamble in the first {MAX_NOISE} bytes")
            return False
        if found > MAX_NOISE:
            raise ProtocolError(f"no preamble in the first {MAX_NOISE} bytes")
        self.noise = bytes(self._buffer[:found])
        del self._buffer[: found + len(PREAMBLE)]
        self._synchronised = True
        return True

    @property
    def pending(self) -> bytes:
        """Bytes that have arrived and complete no frame yet; before the preamble they are the noise so far."""
        return bytes(self._buffer)
