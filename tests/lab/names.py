"""A name server that a test can make silent."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Mapping
from threading import Thread
from types import TracebackType
from typing import Final, Self

from tests.lab import namespace
from tests.lab.net import Host

A: Final = 1  # RFC 1035, 3.2.2
HEADER: Final = struct.Struct(">6H")
ANSWER: Final = 0x8580  # an authoritative response, recursion desired and available (4.1.1)
NO_SUCH_NAME: Final = 3
TIME_TO_LIVE: Final = 1  # seconds


class NameServer:
    """Answers on UDP port 53 of `host` with the IPv4 addresses in `known`, by name. While `silent`, it answers nothing.

    `asked` counts the questions that came.
    """

    def __init__(self, host: Host, known: Mapping[str, str]) -> None:
        self.known = dict(known)
        self.silent = False
        self.asked = 0
        self._socket = host.listener(socket.SOCK_DGRAM, port=53)
        self._thread = Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            query, asking = self._socket.recvfrom(512)
            if not query:
                return
            self.asked += 1
            if not self.silent:
                with contextlib.suppress(IndexError, struct.error):  # not a question of DNS
                    self._socket.sendto(response(query, self.known), asking)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.sendto(b"", self._socket.getsockname())  # an empty datagram ends _serve
        self._thread.join()
        self._socket.close()


def response(query: bytes, known: Mapping[str, str]) -> bytes:
    """The response to a query with one question.

    Raises:
        IndexError, struct.error: the query is cut short.
    """
    number = HEADER.unpack_from(query)[0]
    name, end = _name(query, HEADER.size)
    kind = struct.unpack_from(">H", query, end)[0]
    question = query[HEADER.size : end + 4]
    address = known.get(name)
    status = ANSWER | (0 if address else NO_SUCH_NAME)
    if address is None or kind != A:
        return HEADER.pack(number, status, 1, 0, 0, 0) + question
    record = struct.pack(">HHHLH", 0xC000 | HEADER.size, A, 1, TIME_TO_LIVE, 4) + socket.inet_aton(address)
    return HEADER.pack(number, status, 1, 1, 0, 0) + question + record


def _name(query: bytes, start: int) -> tuple[str, int]:
    """The name that starts at `start`, in lower case, and the place after it."""
    labels = []
    while length := query[start]:
        labels.append(query[start + 1 : start + 1 + length].decode("ascii", "replace").lower())
        start += 1 + length
    return ".".join(labels), start + 1


def ask_only(host: Host, server: str) -> None:
    """Programs that start on `host` from now on can look names up only at the name server `server`."""
    etc = namespace.ETC_NETNS / host.namespace
    (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (etc / "resolv.conf").write_text(f"nameserver {server}\noptions ndots:0\n")
    known = (etc / "nsswitch.conf").read_text()
    (etc / "nsswitch.conf").write_text(known.replace("hosts: files\n", "hosts: files dns\n"))
