"""Small datagrams whose answer has not come, and when they go again.

mosh waits a round trip and 100 ms more before it sends again, and drops whatever comes without its forerunner: a key
that is lost holds up those after it. So the first answer that is late makes all of them go again, in their order, every
few milliseconds until answers come. A line that was dark for a moment carries them as soon as it is light.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

from tunneld.core.queue import Waiting

AGAIN = 0.025
"""Seconds from one time to the next."""

TIMES = 8
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
        return iter(self._sent.values())

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

    def is_late(self) -> bool:
        """Whether one that went again may do so once more."""
        return any(late.times and late.due < inf for late in self)

    def again(self, now: float) -> list[Late]:
        """One is late: those that go again now, which are all."""
        going = [late for late in self if late.due < inf]
        for late in going:
            late.times += 1
            late.due = now + AGAIN if late.times < TIMES else inf
        return going
