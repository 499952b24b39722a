"""SOCKS on the wire, byte by byte."""

from __future__ import annotations

import pytest

from tunneld.ssh.forward.socks import NO_METHOD, REFUSED, SUCCEEDED, Request, SocksError, read_request


async def shake(sent: str) -> tuple[Request, bytes]:
    """A handshake with a client that sends these bytes, in hexadecimal; the request, and what we said meanwhile."""
    left, said = bytearray.fromhex(sent), bytearray()

    async def read(size: int) -> bytes:
        if len(left) < size:
            raise EOFError
        piece = bytes(left[:size])
        del left[:size]
        return piece

    return await read_request(read, said.extend), bytes(said)


@pytest.mark.parametrize(
    ("sent", "request_", "said"),
    [
        ("05 01 00  05 01 00 01 7f 00 00 01 00 16", Request("127.0.0.1", 22, 5), "05 00"),
        ("05 02 02 00  05 01 00 03 02 70 69 08 ae", Request("pi", 2222, 5), "05 00"),
        ("05 01 00  05 01 00 04" + " 00" * 15 + " 01 00 50", Request("::1", 80, 5), "05 00"),
        ("04 01 00 16 7f 00 00 01 6d 65 00", Request("127.0.0.1", 22, 4), ""),
        ("04 01 00 16 00 00 00 01 00 70 69 00", Request("pi", 22, 4), ""),
        ("04 01 00 16 00 00 00 00 00", Request("0.0.0.0", 22, 4), ""),
        ("04 01 00 16 7f 00 00 01" + " 61" * 255 + " 00", Request("127.0.0.1", 22, 4), ""),
    ],
)
async def test_a_request_is_read(sent: str, request_: Request, said: str) -> None:
    """Version 5 with an address or a name, version 4, and 4a with a name; 0.0.0.0 is an address."""
    assert await shake(sent) == (request_, bytes.fromhex(said))


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        ("06", ""),
        ("05 01 02", NO_METHOD.hex()),
        ("05 01 00  05 02 00 01 7f 00 00 01 00 16", "05 07 00 01" + " 00" * 6),
        ("05 01 00  05 01 00 09", "05 08 00 01" + " 00" * 6),
        ("05 01 00  05 01 00 03 01 ff 00 16", "05 01 00 01" + " 00" * 6),
        ("04 02 00 16 7f 00 00 01 00", "00 5b" + " 00" * 6),
        ("04 01 00 16 7f 00 00 01" + " 61" * 256 + " 00", ""),
        ("04 01 00 16 00 00 00 01 00" + " 61" * 256 + " 00", ""),
        ("04 01 00 16 00 00 00 01 00 ff 00", "00 5b" + " 00" * 6),
    ],
)
async def test_what_is_not_served_is_refused_in_its_own_words(sent: str, reply: str) -> None:
    """The client hears why, where its version has a word for it."""
    with pytest.raises(SocksError) as caught:
        await shake(sent)
    assert caught.value.reply == bytes.fromhex(reply)


async def test_a_client_that_leaves_early_ends_the_handshake() -> None:
    """The end of file passes through."""
    with pytest.raises(EOFError):
        await shake("05 01")


def test_the_answers_of_both_versions() -> None:
    """RFC 1928, section 6, and its older form."""
    assert Request("h", 1, 5).answer(SUCCEEDED).hex(" ") == "05 00 00 01 00 00 00 00 00 00"
    assert Request("h", 1, 5).answer(REFUSED).hex(" ") == "05 05 00 01 00 00 00 00 00 00"
    assert Request("h", 1, 4).answer(SUCCEEDED).hex(" ") == "00 5a 00 00 00 00 00 00"
    assert Request("h", 1, 4).answer(REFUSED).hex(" ") == "00 5b 00 00 00 00 00 00"
