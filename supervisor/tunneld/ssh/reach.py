"""The TCP connection under an SSH connection: every address of a name gets its turn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

# The least time one of several addresses gets, in seconds: a SYN lost twice is sent again after 1 and 3 s.
LEAST_TURN = 4.0


class Direct:
    """Connects without a jump host, in the shape in which asyncssh takes a `tunnel`.

    asyncssh alone would wait for the first address until the time is over: a relay with an IPv6 address that this
    network silently drops would never be reached over IPv4.
    """

    def __init__(self, *, family: int, local: tuple[str, int] | None, within: float) -> None:
        self._family = family
        self._local = local
        self._within = within

    async def create_connection(
        self, session_factory: Callable[[], Any], remote_host: str, remote_port: int
    ) -> tuple[asyncio.Transport, Any]:
        """The first address that answers. Raises OSError: the last one's error; TimeoutError when that was silence."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(remote_host, remote_port, family=self._family, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys((family, address[0]) for family, _, _, _, address in found))
        turn = max(LEAST_TURN, self._within / len(addresses))
        error: OSError | None = None
        for family, address in addresses:
            try:
                async with asyncio.timeout(turn):
                    return await loop.create_connection(
                        session_factory, str(address), remote_port, family=family, local_addr=self._local
                    )
            except OSError as failed:  # TimeoutError is one
                error = _plainer(error, failed)
        raise error or OSError("no address")


def _plainer(first: OSError | None, second: OSError) -> OSError:
    """Of two errors, the one that says more: silence of one address tells less than another's refusal."""
    return first if first is not None and isinstance(second, TimeoutError) else second
