"""What a name meant when it was last looked up, for a dial that cannot wait for a name server.

A question that got lost on a dead link is repeated after five seconds (resolv.conf(5), `timeout`), a link that comes
back is used within one. An old address does no harm: whoever answers there has to show the relay's host key.
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

# Addresses of one name that are tried: an answer may hold thousands.
MOST_ADDRESSES = 64


class SocketAddress(NamedTuple):
    family: int
    where: tuple[Any, ...]  # as socket.connect takes it


class Question(NamedTuple):
    host: str
    port: int
    family: int  # 0 for any


class NameCache:
    """Answers, by question. `ask` blocks and runs in threads; everything else is read from the event loop.

    It grows with the names in profiles and ssh_config, so it needs no bound.
    """

    def __init__(self) -> None:
        self._last: dict[Question, tuple[SocketAddress, ...]] = {}
        self._asked: list[Question] = []

    def last(self, question: Question) -> tuple[SocketAddress, ...]:
        """The last answer, empty for none."""
        return self._last.get(question, ())

    def forget(self, host: str) -> None:
        """The name leads elsewhere by now."""
        for question in list(self._last):  # at once: a thread may add one
            if question.host == host:
                del self._last[question]

    def is_being_asked(self, question: Question) -> bool:
        """Whether a thread waits for the answer: another would wait as long."""
        return question in self._asked

    def ask(self, question: Question) -> tuple[SocketAddress, ...]:
        """Ask the system, and remember. Raises OSError."""
        self._asked.append(question)
        try:
            found = socket.getaddrinfo(question.host, question.port, family=question.family, type=socket.SOCK_STREAM)
        finally:
            self._asked.remove(question)
        self._last[question] = tuple(SocketAddress(family, where) for family, _, _, _, where in found[:MOST_ADDRESSES])
        return self._last[question]


def is_no_answer(error: OSError) -> bool:
    """Whether the lookup failed for want of an answer, rather than with one that says there is no such name."""
    return isinstance(error, socket.gaierror) and error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM)
