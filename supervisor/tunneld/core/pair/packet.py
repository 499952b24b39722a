"""Packets: how the two ends of a pair talk over UDP, where anybody may listen, repeat and invent.

A packet is one UDP payload, all numbers big-endian:

    kind u8 | identity 8 bytes | number u48 | body | tag 16 bytes

    DATAGRAM  0x41  body: the datagram's sequence number u32, then the datagram
    PROBE     0x42  body: zeros, as many as the size that is tried asks for
    ANSWER    0x43  body: that packet's number u48, and u32: how many packets have come on this path
    ASKING    0x44  body: as DATAGRAM's; it wants an answer, as a probe does

`identity` says whose packet it is and `number` counts that end's packets, on all paths together; `tag` is a keyed
BLAKE2s (RFC 7693) over everything before it. Each direction has its own key and its own identity, both made of the 32
bytes that the ends share. A datagram is 35 bytes longer than mosh made it. The first two bits are 01: STUN has 00
there, mosh 00 or 10.
"""

from __future__ import annotations

import hmac
from collections import Counter
from hashlib import blake2s
from typing import NamedTuple

from tunneld.core.stream.flow import MAX_DATAGRAM, SeenNumbers

DATAGRAM, PROBE, ANSWER, ASKING = 0x41, 0x42, 0x43, 0x44

SECRET = 32
"""Bytes that both ends share; they travel over SSH alone."""

IDENTITY = 8
TAG = 16
"""Bytes: a forger needs 2^127 tries, and is not told which one was right."""

_NUMBER = 6
_HEADER = 1 + IDENTITY + _NUMBER
_DATAGRAM_NUMBER = 4
OVERHEAD = _HEADER + TAG + _DATAGRAM_NUMBER
"""Bytes that a datagram grows by; 36 is what mosh over ::1 leaves free in a packet of 1280 bytes over IPv4."""

LARGEST = MAX_DATAGRAM + OVERHEAD

KEY_BITS = 8 * _NUMBER


class Packet(NamedTuple):
    kind: int
    number: int
    body: bytes


def identities(secret: bytes) -> tuple[bytes, bytes]:
    """What the client's packets and the far end's carry, in this order; no secret: a relay on the way tells by them."""
    return _derive(secret, b"client identity", IDENTITY), _derive(secret, b"far identity", IDENTITY)


def identity_of(packet: bytes) -> bytes:
    """Whose packet this seems to be."""
    return packet[1 : 1 + IDENTITY]


class Seal:
    """One end's half of the work: makes its packets, and takes the peer's. `counts` says what was refused and why.

    Raises:
        ValueError: the secret does not have SECRET bytes.
    """

    def __init__(self, secret: bytes, counts: Counter[str], *, is_client: bool) -> None:
        if len(secret) != SECRET:
            raise ValueError(f"a secret has {SECRET} bytes, not {len(secret)}")
        keys = _derive(secret, b"client key", 32), _derive(secret, b"far key", 32)
        mine = 0 if is_client else 1
        self._identity, self._their_identity = identities(secret)[mine], identities(secret)[1 - mine]
        self._key, self._their_key = keys[mine], keys[1 - mine]
        self._number = 0
        self._seen = SeenNumbers(bits=KEY_BITS)
        self._counts = counts

    @property
    def number(self) -> int:
        """The next packet's."""
        return self._number

    def close(self, kind: int, body: bytes) -> bytes:
        """A packet, ready to be sent."""
        sealed = bytes([kind]) + self._identity + self._number.to_bytes(_NUMBER, "big") + body
        self._number += 1
        return sealed + _tag(self._key, sealed)

    def open(self, packet: bytes) -> Packet | None:
        """What came from the peer; None, and counted, when it is anything but a fresh packet of the peer's."""
        reason = self._refusal(packet)
        if reason:
            self._counts[reason] += 1
            return None
        return Packet(packet[0], _number(packet), packet[_HEADER:-TAG])

    def _refusal(self, packet: bytes) -> str | None:
        if not _HEADER + TAG <= len(packet) <= LARGEST:
            return "packets_wrong_size"
        if identity_of(packet) != self._their_identity:
            return "packets_of_strangers"
        if not hmac.compare_digest(_tag(self._their_key, packet[:-TAG]), packet[-TAG:]):
            return "packets_forged"
        if not self._seen.accepts(_number(packet)):
            return "packets_repeated"
        return None


def datagram_body(number: int, datagram: bytes) -> bytes:
    return number.to_bytes(_DATAGRAM_NUMBER, "big") + datagram


def read_datagram(body: bytes) -> tuple[int, bytes] | None:
    """Its sequence number and the datagram; None when the body is too short."""
    if len(body) < _DATAGRAM_NUMBER:
        return None
    return int.from_bytes(body[:_DATAGRAM_NUMBER], "big"), body[_DATAGRAM_NUMBER:]


def probe_body(size: int) -> bytes:
    """As long as that of a datagram of `size` bytes."""
    return bytes(_DATAGRAM_NUMBER + size)


def answer_body(number: int, received: int) -> bytes:
    return number.to_bytes(_NUMBER, "big") + (received & 0xFFFFFFFF).to_bytes(4, "big")


def read_answer(body: bytes) -> tuple[int, int] | None:
    """The number of what is answered, and how many packets had come; None when the body is not an answer's."""
    if len(body) != _NUMBER + 4:
        return None
    return int.from_bytes(body[:_NUMBER], "big"), int.from_bytes(body[_NUMBER:], "big")


def _number(packet: bytes) -> int:
    return int.from_bytes(packet[1 + IDENTITY : _HEADER], "big")


def _tag(key: bytes, data: bytes) -> bytes:
    return blake2s(data, key=key, digest_size=TAG).digest()


def _derive(secret: bytes, purpose: bytes, size: int) -> bytes:
    return blake2s(purpose, key=secret, digest_size=size, person=b"tunneld").digest()
