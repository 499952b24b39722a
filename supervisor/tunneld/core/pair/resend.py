"""Small datagrams whose answer has not come, and when they go again.

mosh waits a round trip and 100 ms more before it sends again. Here the first answer that is late makes all that have
none go again, a few times a few milliseconds apart. The newest goes first: it says whatever mosh has no word of yet,
and mosh takes no round trip from what comes behind it.

One that mosh does take a late round trip from, whichever way it went, makes mosh-server believe in a slow line, and
hold the next echoes back. So this ends soon, and mosh's own repetition does the rest, a new datagram that is not late.
Only mosh-server's newest is worth more: the echo that somebody waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

from tunneld.core.stream.queue import MAX_AGE, Waiting

AGAIN, TRIP_SHARE = 0.0125, 1 / 8
"""Seconds from one time to the next, or this share of the round trip: a long line is often a slow one as well."""

TIMES = 3
"""How often one goes again. mosh's own repetition follows soon, as a new datagram, whose round trip is not late."""

MORE = 5
"""How often the newest of mosh-server's goes again after that, with pauses twice as long: then mosh-server does so."""

MOST = 8
"""Datagrams that are remembered: what a quick typist causes in a second."""


class LateDatagram:
    """`packets` carried it. It went again `times` times, `every` seconds apart; `is_streamed`: over streams as well.

    `is_rescued`: also over what else there was when its path went silent.
    """

    def __init__(self, waiting: Waiting, packets: Iterable[int], due: float, every: float) -> None:
        self.waiting = waiting
        self.packets = set(packets)
        self.due = due
        self.every = every
        self.times = 0
        self.is_streamed = self.is_rescued = False


class Unanswered:
    """`has_echoes`: these are mosh-server's datagrams."""

    def __init__(self, *, has_echoes: bool) -> None:
        self._has_echoes = has_echoes
        self._newest = -1
        self._sent: dict[int, LateDatagram] = {}  # by the datagram's number, the oldest first

    def __iter__(self) -> Iterator[LateDatagram]:
        """The newest first."""
        return reversed(self._sent.values())

    def add(self, waiting: Waiting, packets: Iterable[int], due: float, trip: float) -> None:
        """A datagram leaves in these packets; from `due` on its answer, which takes `trip` seconds, is late."""
        self._newest = waiting.number
        self._sent[waiting.number] = LateDatagram(waiting, packets, due, max(AGAIN, trip * TRIP_SHARE))
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

    def again(self, now: float) -> list[LateDatagram]:
        """One is late: those that go again now. Having gone along makes none late before its own time."""
        for late in self:
            if now - late.waiting.since >= MAX_AGE:  # a laptop slept
                late.due = inf
        going = [late for late in self if late.due < inf]
        for late in going:
            late.times += 1
            late.due = max(late.due, now + self._pause(late))
        return going

    def _pause(self, late: LateDatagram) -> float:
        if late.times < TIMES:
            return late.every
        if self._has_echoes and late.waiting.number == self._newest and late.times < TIMES + MORE:
            return 2 * late.every
        return inf
