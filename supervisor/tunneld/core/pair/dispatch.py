"""How mosh's datagrams leave: over paths, streams or both, in copies, and again when no answer comes."""

from __future__ import annotations

from collections import Counter

from tunneld.core.pair.outbox import Outbox
from tunneld.core.pair.paths import Paths
from tunneld.core.pair.redundancy import SMALL
from tunneld.core.pair.resend import LateDatagram, Unanswered
from tunneld.core.pair.route import Route, is_new, route
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.choice import choose
from tunneld.core.stream.queue import MAX_AGE, Waiting

CALM, DOUBT = 0, 1
"""Flow numbers of datagrams on a stream: whether their sender trusts the path that it uses, if any."""

GRIEF = 5.0
"""Seconds after the death of a path for which the peer is told so: it will have noticed by then."""


class Dispatch:
    """`streams`, `paths` and `outbox` are the pair's; `counts` says what became of datagrams."""

    def __init__(
        self,
        streams: dict[str, StreamCarrier],
        paths: Paths,
        outbox: Outbox,
        counts: Counter[str],
        now: float,
        *,
        is_client: bool,
    ) -> None:
        self._streams = streams
        self._paths = paths
        self._outbox = outbox
        self._counts = counts
        self._unanswered = Unanswered(has_echoes=not is_client)
        self._number = 0
        self._began = now

    def send(self, datagram: bytes, now: float) -> None:
        """A new datagram leaves."""
        if len(datagram) > self._paths.full:  # over IPv4 mosh's are a little longer than over IPv6
            self._paths.grow(len(datagram), now)
        waiting = Waiting(self._mood(now), self._number, datagram, now)
        self._number = (self._number + 1) & 0xFFFFFFFF
        paths, streams, beside = self._route(datagram, now)
        for stream in streams:
            stream.offer(waiting)
        packets = [self._outbox.send(path, waiting.number, datagram, now) for path in [*beside, *paths[:1]]]
        if paths and len(datagram) <= SMALL:
            self._outbox.plan(waiting.number, datagram, now)
            if self._paths.current and not streams:
                self._unanswered.add(waiting, packets, now + paths[0].trips.late, paths[0].rtt or 0.0)
        if not paths and not streams:
            self._counts["datagrams_without_carrier"] += 1

    def answered(self, packet: int) -> None:
        """The peer has had this packet."""
        self._unanswered.answered(packet)

    def due(self) -> float:
        """When to call `tick`."""
        return min([self._unanswered.due(), *self._outbox.due()])

    def tick(self, now: float) -> None:
        """Copies leave that are due, and what has no answer in time goes again."""
        for copy in self._outbox.ripe(now):
            paths = self._route(copy.datagram, now).paths
            path = paths[copy.place % len(paths)] if paths else None
            if path and self._outbox.spend(path, copy.datagram, now):
                packet = self._outbox.send(path, copy.number, copy.datagram, now)
                self._unanswered.went(copy.number, packet)
        if self._unanswered.due() <= now:
            going = self._unanswered.again(now)
            for late in going:
                self._go_again(late, going[0].times, now)

    def rescue(self, now: float) -> None:
        """The path has gone silent: what it took last goes over what else there is. The peer drops what it has."""
        for late in self._unanswered:
            number, datagram, since = late.waiting.number, late.waiting.datagram, late.waiting.since
            if late.is_rescued or now - since >= MAX_AGE:
                continue
            late.is_rescued = True
            paths, streams, beside = self._route(datagram, now)
            self._stream(late, streams, now)
            late.packets.update(self._outbox.send(path, number, datagram, now) for path in [*paths[:1], *beside])
            self._counts["datagrams_rescued"] += 1

    def is_in_doubt(self, now: float) -> bool:
        """The path in use may have died, or the last one just did: the peer had better not rely on it either."""
        current = self._paths.current
        if current:
            return current.is_our_doubt(now)
        return self._paths.since > self._began and now - self._paths.since < GRIEF

    def _mood(self, now: float) -> int:
        return DOUBT if self.is_in_doubt(now) else CALM

    def _go_again(self, late: LateDatagram, turn: int, now: float) -> None:
        """Over one of the paths in turn, all the same one, so that the newest comes first; over streams once."""
        number, datagram = late.waiting.number, late.waiting.datagram
        paths, streams, _ = self._route(datagram, now)
        self._stream(late, streams or choose(self._streams.values(), len(datagram), now), now)
        path = paths[turn % len(paths)] if paths else None
        if path and self._outbox.spend(path, datagram, now):
            late.packets.add(self._outbox.send(path, number, datagram, now))

    def _stream(self, late: LateDatagram, streams: list[StreamCarrier], now: float) -> None:
        if late.is_streamed:
            return
        for stream in streams:
            stream.offer(late.waiting._replace(flow=self._mood(now)))
        late.is_streamed = bool(streams)

    def _route(self, datagram: bytes, now: float) -> Route:
        known = [path for path in self._paths if path.rtt is not None]
        current, streams = self._paths.current, list(self._streams.values())
        is_settling = current is not None and is_new(current, self._paths.since, now)
        return route(len(datagram), now, current=current, is_new=is_settling, known=known, streams=streams)
