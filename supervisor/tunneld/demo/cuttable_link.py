"""A TCP link that can be cut without a word, and mended."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

PIECE_OF_STREAM = 65536  # bytes


class CuttableLink:
    """Passes connections on to a port of 127.0.0.1. While it is cut, nothing passes: no byte, no close, no reset.

    What was under way when it was cut arrives once it is mended, as TCP's own retransmission would have it.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._whole = asyncio.Event()
        self._whole.set()
        self._closed = False
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._server.close()
        connections = tuple(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections)

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def _carry(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        """One connection, in both directions, until either side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [to_near]
        try:
            await self._whole.wait()
            far, to_far = await asyncio.open_connection("127.0.0.1", self._to)
            writers.append(to_far)
            async with asyncio.TaskGroup() as both:
                ways = [both.create_task(self._pass(near, to_far)), both.create_task(self._pass(far, to_near))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        except asyncio.CancelledError:
            if not self._closed:
                raise
        except OSError:
            pass  # the far side is gone
        finally:
            self._connections.discard(task)
            for writer in writers:
                writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(PIECE_OF_STREAM):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        await self._whole.wait()
