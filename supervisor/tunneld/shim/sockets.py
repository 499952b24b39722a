"""The UDP sockets towards mosh-server: one for each flow, so that mosh-server can tell its clients apart."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from tunneld.core.stream.flow import MAX_DATAGRAM, Flow
from tunneld.shipped.udp_sockets import MAX_BATCH


class FlowSockets:
    """Each flow's socket is connected to the flow's port on `host`, a numeric address.

    `answered(flow, datagram)` is called for each datagram that comes back, `refused(flow)` when nothing listens there.
    """

    def __init__(self, host: str, answered: Callable[[Flow, bytes], None], refused: Callable[[Flow], None]) -> None:
        self._host = host
        self._answered = answered
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, socket.socket] = {}

    def send(self, flow: Flow, datagram: bytes) -> None:
        """Send a datagram to mosh-server; one for which the system has no room is lost, as datagrams may be."""
        try:
            (self._sockets.get(flow.number) or self._open(flow)).send(datagram)
        except BlockingIOError:
            pass
        except OSError:
            self._refused(flow)

    def close(self, flow: Flow) -> None:
        """Close the flow's socket, if it has one."""
        sock = self._sockets.pop(flow.number, None)
        if sock:
            self._loop.remove_reader(sock)
            sock.close()

    def close_all(self) -> None:
        """Close the sockets of all flows."""
        for sock in self._sockets.values():
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def _open(self, flow: Flow) -> socket.socket:
        family, kind, protocol, _, address = _numeric(self._host, flow.port)
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.connect(address)
            self._loop.add_reader(sock, self._read, flow, sock)
        except OSError:
            sock.close()
            raise
        self._sockets[flow.number] = sock
        return sock

    def _read(self, flow: Flow, sock: socket.socket) -> None:
        for _ in range(MAX_BATCH):
            try:
                datagram = sock.recv(MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError:
                self._refused(flow)
                return
            self._answered(flow, datagram)


def _numeric(host: str, port: int) -> tuple[Any, ...]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
