"""A real datagram socket that takes the place of systemd's or the journal's, and keeps the datagrams that it gets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path


class Inbox:
    """A bound Unix datagram socket; `heard` are the datagrams read from it so far, oldest first."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._socket.setblocking(False)

    def take(self) -> list[bytes]:
        """Read and return the datagrams that have come since the last call, oldest first."""
        fresh = []
        with contextlib.suppress(BlockingIOError):
            while True:
                fresh.append(self._socket.recv(1 << 18))
        self.heard += fresh
        return fresh

    def texts(self) -> list[str]:
        return [each.decode() for each in self.take()]

    async def hears(self, beginning: str) -> str:
        """Wait for the next datagram that starts with `beginning`, and return it; earlier datagrams are skipped."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            while True:
                text = (await loop.sock_recv(self._socket, 1 << 18)).decode()
                self.heard.append(text.encode())
                if text.startswith(beginning):
                    return text

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def inbox(folder: Path, name: str = "socket") -> Iterator[Inbox]:
    opened = Inbox(str(folder / name))
    try:
        yield opened
    finally:
        opened.close()
