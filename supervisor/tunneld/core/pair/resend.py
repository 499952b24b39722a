"""Small datagrams that the peer has not answered, and when they are sent again.

mosh itself sends again a round trip and 100 ms after the first time. Here the first late answer makes all unanswered
datagrams leave again, a few times, a few milliseconds apart. The newest goes first: it brings everything that the
peer's mosh has not acknowledged, and mosh takes no round trip from datagrams that arrive behind a newer one.

Where mosh does measure a late round trip from a datagram that was sent again, mosh-server takes the link for a slow one
and holds the next echoes back. So the resending ends soon, and mosh's own retransmission, a new datagram that is not
late, does the rest. Only mosh-server's newest datagram is sent for longer: it is the echo that somebody waits for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

from tunneld.core.stream.queue import MAX_AGE, Waiting

RESEND_PAUSE, TRIP_SHARE = 0.0125, 1 / 8
"""Seconds from one time to the next, or this share of the round trip if that is longer: a long link is often slow
too."""

RESENDS = 3
"""How often a datagram is sent again. Soon after, mosh itself sends a new datagram, whose round trip is not late."""

ECHO_RESENDS = 5
"""How often mosh-server's newest datagram is sent again after RESENDS times, with pauses twice as long. Then
mosh-server itself sends again."""

MAX_UNANSWERED = 8
"""Datagrams that are remembered: what a quick typist causes in a second."""


class UnansweredDatagram:
    """A datagram that left in `packets` (their numbers) and has no answer; `due` is when to send it again, or inf.

    It was sent again `times` times so far, every `every` seconds. `is_streamed`: streams have taken it as well;
    `is_rescued`: all other carriers have, because its path went silent.
    """

    def __init__(self, waiting: Waiting, packets: Iterable[int], due: float, every: float) -> None:
        self.waiting = waiting
        self.packets = set(packets)
        self.due = due
        self.every = every
        self.times = 0
        self.is_streamed = self.is_rescued = False


class UnansweredDatagrams:
    """The last MAX_UNANSWERED of one end. `has_echoes`: this is mosh-server's end."""

    def __init__(self, *, has_echoes: bool) -> None:
        self._has_echoes = has_echoes
        self._newest = -1
        self._sent: dict[int, UnansweredDatagram] = {}  # by the datagram's number, the oldest first

    def __iter__(self) -> Iterator[UnansweredDatagram]:
        """The newest first."""
        return reversed(self._sent.values())

    def add(self, waiting: Waiting, packets: Iterable[int], due: float, trip: float) -> None:
        """A datagram leaves in these packets. From `due` on its answer, which takes `trip` seconds, is late."""
        self._newest = waiting.number
        every = max(RESEND_PAUSE, trip * TRIP_SHARE)
        self._sent[waiting.number] = UnansweredDatagram(waiting, packets, due, every)
        if len(self._sent) > MAX_UNANSWERED:
            del self._sent[next(iter(self._sent))]

    def add_packet(self, number: int, packet: int) -> None:
        """A copy of datagram `number` leaves in packet number `packet`; an answer to either is enough."""
        if number in self._sent:
            self._sent[number].packets.add(packet)

    def answered(self, packet: int) -> None:
        """The peer has received this packet, and so the datagram in it."""
        for number, datagram in self._sent.items():
            if packet in datagram.packets:
                del self._sent[number]
                return

    def due(self) -> float:
        """When the next datagram is to be sent again; inf: none is."""
        return min((datagram.due for datagram in self), default=inf)

    def take_late(self, now: float) -> list[UnansweredDatagram]:
        """An answer is late: the datagrams to send again now, the newest first, each counted as sent again.

        Those whose own answer is not late yet go along, but their `due` stays: one late answer must not make the next
        datagrams late in turn, for as long as somebody types.
        """
        for datagram in self:
            if now - datagram.waiting.since >= MAX_AGE:  # the machine slept: mosh has sent again by itself
                datagram.due = inf
        late = [datagram for datagram in self if datagram.due < inf]
        for datagram in late:
            datagram.times += 1
            datagram.due = max(datagram.due, now + self._pause(datagram))
        return late

    def _pause(self, datagram: UnansweredDatagram) -> float:
        if datagram.times < RESENDS:
            return datagram.every
        is_newest_echo = self._has_echoes and datagram.waiting.number == self._newest
        if is_newest_echo and datagram.times < RESENDS + ECHO_RESENDS:
            return 2 * datagram.every
        return inf
