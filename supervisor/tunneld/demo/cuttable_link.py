"""A TCP link that the demo can cut without telling either side, and mend."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

PIECE_OF_STREAM = 65536  # bytes


class CuttableLink:
    """Passes connections on to a port of 127.0.0.1. While the link is cut, nothing passes: no byte, no close, no reset.

    What was under way at the cut arrives after the link is mended, as if TCP had sent it again.
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

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Carry one connection in both directions, until either side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [to_client]
        try:
            await self._whole.wait()
            server, to_server = await asyncio.open_connection("127.0.0.1", self._to)
            writers.append(to_server)
            async with asyncio.TaskGroup() as tasks:
                directions = [
                    tasks.create_task(self._pass(client, to_server)),
                    tasks.create_task(self._pass(server, to_client)),
                ]
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                for direction in directions:
                    direction.cancel()
        except asyncio.CancelledError:
            if not self._closed:
                raise
        except OSError:
            pass  # nothing listens at the port, or a side has reset its connection
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
