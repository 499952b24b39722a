"""The server's half of a SOCKS handshake: version 5 (RFC 1928) without authentication, 4 and 4a; CONNECT only.

SOCKS 5 on the wire, after the client's greeting `05 N METHODS..` and our `05 00`:

    05 CMD 00 TYPE ADDRESS PORT     TYPE 1 = IPv4, 3 = a length byte and a name, 4 = IPv6; PORT two bytes
    05 CODE 00 01 00000000 0000     our answer

SOCKS 4 on the wire, with a name behind the user in 4a, where the address is 0.0.0.x:

    04 CMD PORT ADDRESS USER.. 00 [NAME.. 00]
    00 CODE 000000000000            our answer: 5a = granted, 5b = refused
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

CONNECT = 1
LONGEST_SOCKS4_WORD = 255  # bytes of a name or a user in SOCKS 4, which a NUL ends

# Codes of RFC 1928, section 6
SUCCEEDED, FAILURE, NOT_ALLOWED, REFUSED, NO_COMMAND, NO_ADDRESS_TYPE = 0, 1, 2, 5, 7, 8
NO_METHOD = b"\x05\xff"

Read = Callable[[int], Awaitable[bytes]]  # exactly so many bytes; raises EOFError


class SocksError(Exception):
    """The client asks for something that we do not serve; `reply` is what to send it before the close."""

    def __init__(self, text: str, reply: bytes = b"") -> None:
        super().__init__(text)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Request:
    """Where a SOCKS client wants to go, and the version in which to answer it."""

    host: str
    port: int
    version: int

    def answer(self, code: int) -> bytes:
        """The bytes that tell the client the outcome, a code of RFC 1928, section 6."""
        if self.version == 4:
            return bytes((0, 90 if code == SUCCEEDED else 91)) + bytes(6)
        return _answer(code)


async def read_request(read: Read, write: Callable[[bytes], None]) -> Request:
    """Do the handshake up to the request.

    Raises:
        SocksError: the client asks for something that we do not serve.
        EOFError: from `read`: the client has ended.
    """
    version = (await read(1))[0]
    if version == 5:
        return await _version_5(read, write)
    if version == 4:
        return await _version_4(read)
    raise SocksError(f"SOCKS version {version} does not exist")


async def _version_5(read: Read, write: Callable[[bytes], None]) -> Request:
    methods = await read((await read(1))[0])
    if 0 not in methods:
        raise SocksError("the client insists on a password", NO_METHOD)
    write(b"\x05\x00")
    _, command, _, kind = await read(4)
    if kind == 1:
        host = str(ipaddress.IPv4Address(await read(4)))
    elif kind == 3:
        host = _name(await read((await read(1))[0]), _answer(FAILURE))
    elif kind == 4:
        host = str(ipaddress.IPv6Address(await read(16)))
    else:
        raise SocksError(f"address type {kind} does not exist", _answer(NO_ADDRESS_TYPE))
    port = int.from_bytes(await read(2), "big")
    if command != CONNECT:
        raise SocksError(f"command {command} is not served", _answer(NO_COMMAND))
    return Request(host, port, 5)


async def _version_4(read: Read) -> Request:
    command = (await read(1))[0]
    port = int.from_bytes(await read(2), "big")
    address = await read(4)
    await _until_nul(read)  # the user's name, which nobody checks
    refusal = Request("", 0, 4).answer(FAILURE)
    if command != CONNECT:
        raise SocksError(f"command {command} is not served", refusal)
    # 4a: an address 0.0.0.x says that a name follows.
    named = address[:3] == bytes(3) and address[3] != 0
    host = _name(await _until_nul(read), refusal) if named else str(ipaddress.IPv4Address(address))
    return Request(host, port, 4)


async def _until_nul(read: Read) -> bytes:
    found = bytearray()
    while (byte := await read(1)) != b"\x00":
        found += byte
        if len(found) > LONGEST_SOCKS4_WORD:
            raise SocksError(f"a name is longer than {LONGEST_SOCKS4_WORD} bytes")
    return bytes(found)


def _name(raw: bytes, refusal: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise SocksError("a host's name is not ASCII", refusal) from None


def _answer(code: int) -> bytes:
    return bytes((5, code, 0, 1)) + bytes(6)
