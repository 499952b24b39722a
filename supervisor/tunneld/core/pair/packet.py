"""Packets: how the two ends of a pair talk over UDP, where anybody may listen, repeat and invent.

A packet is one UDP payload, all numbers big-endian:

    kind u8 | identity 8 bytes | number u48 | body | tag 16 bytes

    DATAGRAM  0x41  body: the datagram's sequence number u32, then the datagram
    PROBE     0x42  body: empty, or as many zeros as the size under test asks for
    ANSWER    0x43  body: the number u48 of the answered packet, then u32: how many packets have come on this path
    ASKING    0x44  body: as DATAGRAM's; the receiver answers this packet, as it answers a probe

`identity` says which end sent the packet, and `number` counts that end's packets, on all paths together. `tag` is a
keyed BLAKE2s (RFC 7693) over everything before it. Each direction has a key and an identity of its own; all four are
derived from the 32 bytes that the ends share. A datagram in a packet is 35 bytes longer than mosh made it. The first
two bits of a packet are 01; STUN messages have 00 there (RFC 8489, section 5), mosh's datagrams 00 or 10.
"""

from __future__ import annotations

import hmac
from collections import Counter
from hashlib import blake2s
from typing import NamedTuple

from tunneld.core.stream.flow import MAX_DATAGRAM, SeenNumbers

DATAGRAM, PROBE, ANSWER, ASKING = 0x41, 0x42, 0x43, 0x44

SECRET_SIZE = 32
"""Bytes that both ends share; they travel over SSH alone."""

IDENTITY_SIZE = 8
TAG_SIZE = 16
"""Bytes: a forger needs 2^127 tries, and is not told which of them was right."""

_NUMBER_SIZE = 6
_HEADER_SIZE = 1 + IDENTITY_SIZE + _NUMBER_SIZE
_DATAGRAM_NUMBER_SIZE = 4
PACKET_OVERHEAD = _HEADER_SIZE + TAG_SIZE + _DATAGRAM_NUMBER_SIZE
"""Bytes that a datagram grows by (35); mosh over ::1 leaves 36 free in a packet of 1280 bytes over IPv4."""

LARGEST_PACKET = MAX_DATAGRAM + PACKET_OVERHEAD

NUMBER_BITS = 8 * _NUMBER_SIZE
"""The width of packet numbers: no pair lives long enough for 2^48 packets, so no number comes twice."""


class Packet(NamedTuple):
    """A packet that passed all checks."""

    kind: int
    number: int
    body: bytes


def identities(secret: bytes) -> tuple[bytes, bytes]:
    """The identities of the client's and of the server end's packets, in this order, 8 bytes each.

    They are not secret: a relay on the way is told them, so that it can tell the two ends apart.
    """
    return _derive(secret, b"client identity", IDENTITY_SIZE), _derive(secret, b"far identity", IDENTITY_SIZE)


def identity_of(packet: bytes) -> bytes:
    """The identity that a packet claims; nothing is checked, and a short packet gives a short identity."""
    return packet[1 : 1 + IDENTITY_SIZE]


class Seal:
    """Seals one end's packets and opens those of its peer. `counts` says what was refused, and why.

    Raises:
        ValueError: the secret does not have SECRET_SIZE bytes.
    """

    def __init__(self, secret: bytes, counts: Counter[str], *, is_client: bool) -> None:
        if len(secret) != SECRET_SIZE:
            raise ValueError(f"a secret has {SECRET_SIZE} bytes, not {len(secret)}")
        keys = _derive(secret, b"client key", 32), _derive(secret, b"far key", 32)
        mine = 0 if is_client else 1
        self._identity, self._their_identity = identities(secret)[mine], identities(secret)[1 - mine]
        self._key, self._their_key = keys[mine], keys[1 - mine]
        self._number = 0
        self._seen = SeenNumbers(bits=NUMBER_BITS)
        self._counts = counts

    @property
    def number(self) -> int:
        """The number that the next packet will have."""
        return self._number

    def close(self, kind: int, body: bytes) -> bytes:
        """Make the next packet, ready to be sent."""
        sealed = bytes([kind]) + self._identity + self._number.to_bytes(_NUMBER_SIZE, "big") + body
        self._number += 1
        return sealed + _tag(self._key, sealed)

    def open(self, packet: bytes) -> Packet | None:
        """Check what came in. None, and counted by its reason, unless it is a packet of the peer's that is new."""
        reason = self._refusal(packet)
        if reason:
            self._counts[reason] += 1
            return None
        return Packet(packet[0], _number(packet), packet[_HEADER_SIZE:-TAG_SIZE])

    def _refusal(self, packet: bytes) -> str | None:
        if not _HEADER_SIZE + TAG_SIZE <= len(packet) <= LARGEST_PACKET:
            return "packets_wrong_size"
        if identity_of(packet) != self._their_identity:
            return "packets_of_strangers"
        if not hmac.compare_digest(_tag(self._their_key, packet[:-TAG_SIZE]), packet[-TAG_SIZE:]):
            return "packets_forged"
        # The last check, because `accepts` remembers the number: a forged packet must not use it up.
        if not self._seen.accepts(_number(packet)):
            return "packets_repeated"
        return None


def datagram_body(number: int, datagram: bytes) -> bytes:
    """The body of a DATAGRAM or ASKING packet; `number` is the datagram's, not the packet's."""
    return number.to_bytes(_DATAGRAM_NUMBER_SIZE, "big") + datagram


def read_datagram(body: bytes) -> tuple[int, bytes] | None:
    """The datagram's sequence number, and the datagram; None when the body is too short."""
    if len(body) < _DATAGRAM_NUMBER_SIZE:
        return None
    return int.from_bytes(body[:_DATAGRAM_NUMBER_SIZE], "big"), body[_DATAGRAM_NUMBER_SIZE:]


def probe_body(size: int) -> bytes:
    """A body of zeros, as long as that of a datagram of `size` bytes."""
    return bytes(_DATAGRAM_NUMBER_SIZE + size)


def answer_body(number: int, received: int) -> bytes:
    """The body of an ANSWER to packet `number`; `received` packets have come on this path (modulo 2^32)."""
    return number.to_bytes(_NUMBER_SIZE, "big") + (received & 0xFFFFFFFF).to_bytes(4, "big")


def read_answer(body: bytes) -> tuple[int, int] | None:
    """The number of the answered packet, and how many packets had come; None when the length is not an ANSWER's."""
    if len(body) != _NUMBER_SIZE + 4:
        return None
    return int.from_bytes(body[:_NUMBER_SIZE], "big"), int.from_bytes(body[_NUMBER_SIZE:], "big")


def _number(packet: bytes) -> int:
    return int.from_bytes(packet[1 + IDENTITY_SIZE : _HEADER_SIZE], "big")


def _tag(key: bytes, data: bytes) -> bytes:
    return blake2s(data, key=key, digest_size=TAG_SIZE).digest()


def _derive(secret: bytes, purpose: bytes, size: int) -> bytes:
    return blake2s(purpose, key=secret, digest_size=size, person=b"tunneld").digest()
