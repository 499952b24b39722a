"""STUN Binding, the least of it that tells an address (RFC 8489): a request, its answer, and nothing else.

A message has a header of 20 bytes, all numbers big-endian: type u16 (0x0001 request, 0x0101 success), length of what
follows u16, the magic cookie 0x2112A442, and the transaction's 12 bytes. Attributes follow: type u16, length u16, value
padded to 4 bytes. The answer's XOR-MAPPED-ADDRESS (0x0020) holds what the server saw as the request's source.
"""

from __future__ import annotations

import ipaddress
import struct

from tunneld.core.pair.path import UdpAddress

TRANSACTION = 12
"""Bytes; whoever cannot guess them cannot answer."""

LARGEST = 548
"""Bytes: what any server may send without knowing the path (RFC 8489, section 6.1); more is not read."""

_REQUEST, _SUCCESS = 0x0001, 0x0101
_COOKIE = 0x2112A442
_XOR_MAPPED_ADDRESS = 0x0020
_FAMILIES = {1: 4, 2: 16}  # bytes of an address

_HEADER = struct.Struct(">HHI12s")
_ATTRIBUTE = struct.Struct(">HH")


def is_stun(data: bytes) -> bool:
    """By the first two bits and the cookie."""
    return len(data) >= _HEADER.size and data[0] < 0x40 and data[4:8] == _COOKIE.to_bytes(4, "big")


def request(transaction: bytes) -> bytes:
    """What to ask a server; `transaction` is 12 bytes of chance."""
    return _HEADER.pack(_REQUEST, 0, _COOKIE, transaction)


def respond(data: bytes, source: UdpAddress) -> bytes | None:
    """A reflector's answer to `data` from `source`; None: say nothing.

    Attributes of the request do not matter, but for those that must be understood: a request that has any is not
    answered. So an answer (32 or 44 bytes) is at most 2.2 times its request, and goes to nobody but its source.
    """
    if not is_stun(data):
        return None
    kind, length, _, transaction = _HEADER.unpack_from(data)
    attributes = _attributes(data[_HEADER.size :], length)
    if kind != _REQUEST or attributes is None or any(known < 0x8000 for known, _ in attributes):
        return None
    value = _mapped(source, transaction)
    body = _ATTRIBUTE.pack(_XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEADER.pack(_SUCCESS, len(body), _COOKIE, transaction) + body


def read_response(data: bytes) -> tuple[bytes, UdpAddress] | None:
    """The transaction and the address that the server saw; None when this is not such an answer."""
    if not is_stun(data) or len(data) > LARGEST:
        return None
    kind, length, _, transaction = _HEADER.unpack_from(data)
    attributes = _attributes(data[_HEADER.size :], length)
    if kind != _SUCCESS or attributes is None:
        return None
    for attribute, value in attributes:
        if attribute == _XOR_MAPPED_ADDRESS:
            address = _unmapped(value, transaction)
            return (transaction, address) if address else None
    return None


def _attributes(data: bytes, length: int) -> list[tuple[int, bytes]] | None:
    """None when they are not what the header says, or run over the end."""
    if length != len(data) or length % 4:
        return None
    found = []
    while data:
        kind, size = _ATTRIBUTE.unpack_from(data)
        end = _ATTRIBUTE.size + size
        if end > len(data):
            return None
        found.append((kind, data[_ATTRIBUTE.size : end]))
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
