"""What a name meant when it was last looked up, for a dial that cannot wait for a name server.

The system's resolver repeats a question that got lost on a dead link after five seconds (resolv.conf(5), `timeout`),
and we want to use a link within one second of its return. An old address does no harm: whoever answers there has to
show the relay's host key.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from tunneld.core.happy_eyeballs import SocketAddress

# Addresses of one name that are remembered and tried: an answer may hold thousands.
MOST_REMEMBERED = 64


class Question(NamedTuple):
    """What a resolver is asked."""

    host: str
    port: int
    family: int  # 0 for any


class NameCache:
    """The last answer to each question. `ask` blocks, so it runs in threads; the event loop calls everything else.

    Questions come from profiles and ssh_config alone, so their number needs no bound.
    """

    def __init__(self) -> None:
        self._last: dict[Question, tuple[SocketAddress, ...]] = {}
        self._asked: list[Question] = []

    def last(self, question: Question) -> tuple[SocketAddress, ...]:
        """The last answer; empty before the first."""
        return self._last.get(question, ())

    def forget(self, host: str) -> None:
        """Drop the answers about a name that leads elsewhere by now."""
        for question in list(self._last):  # a copy: a thread may add an answer meanwhile
            if question.host == host:
                del self._last[question]

    def is_being_asked(self, question: Question) -> bool:
        """Whether a thread waits for the answer already; a second thread would wait as long."""
        return question in self._asked

    def ask(self, question: Question) -> tuple[SocketAddress, ...]:
        """Ask the system's resolver, and remember the answer.

        Raises:
            OSError: there is no answer, or no such name.
        """
        self._asked.append(question)
        try:
            found = socket.getaddrinfo(question.host, question.port, family=question.family, type=socket.SOCK_STREAM)
        finally:
            self._asked.remove(question)
        self._last[question] = tuple(SocketAddress(family, where) for family, _, _, _, where in found[:MOST_REMEMBERED])
        return self._last[question]


def is_no_answer(error: OSError) -> bool:
    """Whether no name server answered a lookup; else an answer says that there is no such name."""
    return isinstance(error, socket.gaierror) and error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM)
