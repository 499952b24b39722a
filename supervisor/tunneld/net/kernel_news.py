"""What the kernel reports on its own, by netlink: changes of links, addresses, routes and rules."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Final, Protocol

from tunneld.net.netlink import MULTICAST_GROUPS, Gone, parse_losses

# Datagrams taken by one read(). A router's tables may change a thousand times a second. The kernel drops the reports
# for which the socket has no room, and says so.
DATAGRAMS_AT_ONCE: Final = 256

LARGEST_DATAGRAM: Final = 65536  # bytes


class NetworkNews(Protocol):
    """A source that reports that something about the network changed, and what is gone."""

    async def wait(self) -> None:
        """Wait until there are reports to read."""

    def read(self) -> list[Gone] | None:
        """What is gone, according to the reports so far; empty when they name nothing, None when there are none.

        Raises:
            OSError: there will be no reports any more.
        """

    def close(self) -> None: ...


class KernelNews:
    """The kernel's reports. Making one raises OSError where a sandbox forbids netlink."""

    def __init__(self) -> None:
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            self._kernel.bind((0, MULTICAST_GROUPS))
        except OSError:
            self._kernel.close()
            raise

    async def wait(self) -> None:
        """Wait for a report. Only meanwhile does the loop watch the socket: a burst is read at the reader's pace."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._kernel, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._kernel)

    def read(self) -> list[Gone] | None:
        """As NetworkNews says. Reports that the kernel had to drop count as reports that name nothing."""
        found: list[Gone] | None = None
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                data, (sender, _) = self._kernel.recvfrom(LARGEST_DATAGRAM)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # the socket overflowed: some reports were dropped
                    raise
                data, sender = b"", 0
            if sender == 0:  # the kernel; any other number is a program
                found = [*(found or ()), *parse_losses(data)]
        return found

    def close(self) -> None:
        self._kernel.close()
