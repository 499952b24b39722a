"""STUN's Binding method (RFC 8489), as little as tells an address: a request, its success response, nothing else.

A message has a header of 20 bytes, all numbers big-endian: type u16 (0x0001 request, 0x0101 success response), length
of what follows u16, the magic cookie 0x2112A442, and the transaction's 12 bytes (section 5). Attributes follow: type
u16, length u16, value padded to 4 bytes (section 14). The response's XOR-MAPPED-ADDRESS (0x0020, section 14.2) holds
the address that the server saw as the request's source."""

from __future__ import annotations

import ipaddress
import struct

from tunneld.core.pair.candidate import UdpAddress

TRANSACTION_SIZE = 12
"""Bytes; whoever cannot guess them cannot answer."""

LARGEST_RESPONSE = 548
"""Bytes: what a server may send over IPv4 without knowing the path (RFC 8489, section 6.1); more is not read."""

_REQUEST, _SUCCESS = 0x0001, 0x0101
_COOKIE = 0x2112A442
_XOR_MAPPED_ADDRESS = 0x0020
_FAMILIES = {1: 4, 2: 16}  # bytes of an address

_MESSAGE_HEADER = struct.Struct(">HHI12s")
_ATTRIBUTE_HEADER = struct.Struct(">HH")


def is_stun(data: bytes) -> bool:
    """Whether this looks like a STUN message: by its first two bits and its magic cookie (RFC 8489, section 5)."""
    return len(data) >= _MESSAGE_HEADER.size and data[0] < 0x40 and data[4:8] == _COOKIE.to_bytes(4, "big")


def request(transaction: bytes) -> bytes:
    """A Binding request without attributes; `transaction` is 12 bytes that nobody can guess."""
    return _MESSAGE_HEADER.pack(_REQUEST, 0, _COOKIE, transaction)


def respond(data: bytes, source: UdpAddress) -> bytes | None:
    """A server's response to `data`, which came from `source`; None: send nothing.

    A request with an attribute that must be understood (type below 0x8000) gets no response; other attributes are
    ignored. A response (32 or 44 bytes) is at most 2.2 times as long as its request, and goes to its source alone.
    """
    if not is_stun(data):
        return None
    kind, length, _, transaction = _MESSAGE_HEADER.unpack_from(data)
    attributes = _attributes(data[_MESSAGE_HEADER.size :], length)
    if kind != _REQUEST or attributes is None or any(attribute < 0x8000 for attribute, _ in attributes):
        return None
    value = _mapped(source, transaction)
    body = _ATTRIBUTE_HEADER.pack(_XOR_MAPPED_ADDRESS, len(value)) + value
    return _MESSAGE_HEADER.pack(_SUCCESS, len(body), _COOKIE, transaction) + body


def read_response(data: bytes) -> tuple[bytes, UdpAddress] | None:
    """The transaction, and the address that the server saw; None when `data` is no valid success response.

    The caller must compare the transaction with that of its request: anybody can make a response.
    """
    if not is_stun(data) or len(data) > LARGEST_RESPONSE:
        return None
    kind, length, _, transaction = _MESSAGE_HEADER.unpack_from(data)
    attributes = _attributes(data[_MESSAGE_HEADER.size :], length)
    if kind != _SUCCESS or attributes is None:
        return None
    for attribute, value in attributes:
        if attribute == _XOR_MAPPED_ADDRESS:
            address = _unmapped(value, transaction)
            return (transaction, address) if address else None
    return None


def _attributes(data: bytes, length: int) -> list[tuple[int, bytes]] | None:
    """Types and values; None when their length is not what the header says, or an attribute runs over the end."""
    if length != len(data) or length % 4:
        return None
    found = []
    while data:
        kind, size = _ATTRIBUTE_HEADER.unpack_from(data)
        end = _ATTRIBUTE_HEADER.size + size
        if end > len(data):
            return None
        found.append((kind, data[_ATTRIBUTE_HEADER.size : end]))
        data = data[end + -size % 4 :]
    return found


def _mapped(address: UdpAddress, transaction: bytes) -> bytes:
    packed = ipaddress.ip_address(address.host).packed
    family = 1 if len(packed) == 4 else 2
    return struct.pack(">BBH", 0, family, address.port ^ _COOKIE >> 16) + _xor(packed, transaction)


def _unmapped(value: bytes, transaction: bytes) -> UdpAddress | None:
    if len(value) < 4 or _FAMILIES.get(value[1]) != len(value) - 4:
        return None
    host = str(ipaddress.ip_address(_xor(value[4:], transaction)))
    return UdpAddress(host, int.from_bytes(value[2:4], "big") ^ _COOKIE >> 16)


def _xor(packed: bytes, transaction: bytes) -> bytes:
    mask = _COOKIE.to_bytes(4, "big") + transaction
    return bytes(one ^ other for one, other in zip(packed, mask))
