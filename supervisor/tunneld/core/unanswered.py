"""Small datagrams whose answer has not come, and when they go again.

mosh waits a round trip and 100 ms more before it sends again. Here the first answer that is late makes all that have
none go again, every few milliseconds until answers come: a line that was dark for a moment carries them as soon as it
is light. The newest goes first. It says whatever mosh has no word of yet, and what comes behind it tells mosh nothing
about the round trip; a late one that did would make mosh believe in a slow line, and wait longer with every echo.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

from tunneld.core.queue import Waiting

AGAIN = 0.0125
"""Seconds from one time to the next."""

TIMES = 16
"""How often one goes again: for as long as mosh waits. mosh's own repetition is a new datagram."""

MOST = 8
"""Datagrams that are remembered: what a quick typist causes in a second."""


class Late:
    """`packets` carried it, `times` is how often it went again, `is_helped` whether anything else than paths did."""

    def __init__(self, waiting: Waiting, packets: Iterable[int], due: float) -> None:
        self.waiting = waiting
        self.packets = set(packets)
        self.due = due
        self.times = 0
        self.is_helped = False


class Unanswered:
    def __init__(self) -> None:
        self._sent: dict[int, Late] = {}  # by the datagram's number, the oldest first

    def __iter__(self) -> Iterator[Late]:
        """The newest first."""
        return reversed(self._sent.values())

    def add(self, waiting: Waiting, packets: Iterable[int], due: float) -> None:
        """A datagram leaves in these packets; from `due` on its answer is late."""
        self._sent[waiting.number] = Late(waiting, packets, due)
        if len(self._sent) > MOST:
            del self._sent[next(iter(self._sent))]

    def went(self, number: int, packet: int) -> None:
        """This packet carries the datagram as well."""
        if number in self._sent:
            self._sent[number].packets.add(packet)

    def answered(self, packet: int) -> None:
        """The peer has had this packet, and so the datagram in it."""
        for number, late in self._sent.items():
            if packet in late.packets:
                del self._sent[number]
                return

    def due(self) -> float:
        """When the next one goes again."""
        return min((late.due for late in self), default=inf)

    def again(self, now: float) -> list[Late]:
        """One is late: those that go again now."""
        going = [late for late in self if late.due < inf]
        for late in going:
            late.times += 1
            late.due = now + AGAIN if late.times < TIMES else inf
        return going
