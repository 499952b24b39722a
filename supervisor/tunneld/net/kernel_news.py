"""What the kernel says on its own about links, addresses, routes and rules, by netlink."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Final, Protocol

from tunneld.net.netlink import GROUPS, Gone, gone

# Messages read at once, and bytes of one. A router's tables may change a thousand times a second; what is too much for
# the socket is dropped by the kernel, which says so.
MOST: Final = 256
LONGEST: Final = 65536


class NetworkNews(Protocol):
    """Somebody who tells that something changed, and what is no more."""

    async def wait(self) -> None:
        """Until there are news."""

    def read(self) -> list[Gone] | None:
        """What is no more, as far as the news say; None when there are none. Raises OSError when there will be none."""

    def close(self) -> None: ...


class KernelNews:
    """The kernel's. Raises OSError where a sandbox forbids it."""

    def __init__(self) -> None:
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            self._kernel.bind((0, GROUPS))
        except OSError:
            self._kernel.close()
            raise

    async def wait(self) -> None:
        """The loop looks only as long as this is awaited, so that a burst is read at its reader's pace."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._kernel, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._kernel)

    def read(self) -> list[Gone] | None:
        found: list[Gone] | None = None
        for _ in range(MOST):
            try:
                data, (port, _) = self._kernel.recvfrom(LONGEST)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # an overflow is news as well: some were lost
                    raise
                data, port = b"", 0
            if port == 0:  # the kernel, not some program
                found = [*(found or ()), *gone(data)]
        return found

    def close(self) -> None:
        self._kernel.close()
