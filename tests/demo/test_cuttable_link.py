"""The link that the demo cuts: a black hole, and then as if nothing had been."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.tunnel.supervised import echoing, nothing_left
from tunneld.demo.cuttable_link import CuttableLink


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[CuttableLink]:
    """A link to a server that echoes; when it is closed, nothing of it is left."""
    async with echoing() as port, nothing_left(), CuttableLink(port) as link:
        yield link


@contextlib.asynccontextmanager
async def dialled(link: CuttableLink) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def silent(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes, neither a byte nor an end, for long enough on loopback."""
    try:
        async with asyncio.timeout(0.05):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_a_cut_link_is_silent_and_loses_nothing() -> None:
    """What was written into the gap arrives after it, in order."""
    async with linked() as link, dialled(link) as (reader, writer):
        writer.write(b"before ")
        assert await reader.readexactly(7) == b"before "
        link.cut()
        writer.write(b"within ")
        assert await silent(reader)
        link.mend()
        writer.write(b"after")
        assert await reader.readexactly(12) == b"within after"


async def test_a_dial_into_the_gap_hangs() -> None:
    """It is accepted by the kernel, and answered only once the link is whole."""
    async with linked() as link:
        link.cut()
        async with dialled(link) as (reader, writer):
            writer.write(b"hello")
            assert await silent(reader)
            link.mend()
            assert await reader.readexactly(5) == b"hello"


async def test_an_end_passes_a_whole_link() -> None:
    """A connection that one side closes ends on the other."""
    async with linked() as link, dialled(link) as (reader, writer):
        writer.write_eof()
        assert await reader.read() == b""


async def test_no_end_passes_a_cut_link() -> None:
    """Neither side hears that the other has gone, until the link is whole."""
    async with linked() as link, dialled(link) as (reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        link.cut()
        writer.write_eof()
        assert await silent(reader)
        link.mend()
        assert await reader.read() == b""


async def test_a_cut_link_can_be_closed() -> None:
    """With connections from before and within the gap."""
    async with linked() as link, dialled(link) as (reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        link.cut()
        async with dialled(link):
            writer.write(b"y")
            assert await silent(reader)
