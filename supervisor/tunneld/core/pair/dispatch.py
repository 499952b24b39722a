"""How mosh's datagrams leave: over paths, streams or both, in copies, and again when an answer is late."""

from __future__ import annotations

from collections import Counter

from tunneld.core.pair.outbox import Outbox
from tunneld.core.pair.paths import Paths
from tunneld.core.pair.resend import UnansweredDatagram, UnansweredDatagrams
from tunneld.core.pair.route import Route, is_new, route
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.choice import SMALL_DATAGRAM, choose
from tunneld.core.stream.queue import MAX_AGE, Waiting

CALM_FLOW, DOUBTING_FLOW = 0, 1
"""Flow numbers of datagrams on a stream of a pair. DOUBTING_FLOW tells the peer: the sender's path may be dead, so use
other carriers as well."""

TELL_DEATH_FOR = 5.0
"""Seconds after a path's death for which datagrams stay on DOUBTING_FLOW: by then the peer has noticed by itself."""


class Dispatch:
    """Sends one end's datagrams over the pair's `streams` and `paths`; what is for UDP goes through its `outbox`.

    `counts` says what became of datagrams; `is_client`: this is mosh-client's end.
    """

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
        self._unanswered = UnansweredDatagrams(has_echoes=not is_client)
        self._number = 0
        self._began = now

    def send(self, datagram: bytes, now: float) -> None:
        """Send a new datagram, of MAX_DATAGRAM bytes at most."""
        if len(datagram) > self._paths.full:  # over IPv4 mosh's are a little longer than over IPv6
            self._paths.grow(len(datagram), now)
        waiting = Waiting(self._flow(now), self._number, datagram, now)
        self._number = (self._number + 1) & 0xFFFFFFFF
        paths, streams, beside = self._route(datagram, now)
        for stream in streams:
            stream.offer(waiting)
        packets = [self._outbox.send(path, waiting.number, datagram, now) for path in [*beside, *paths[:1]]]
        if paths and len(datagram) <= SMALL_DATAGRAM:
            self._outbox.plan_copies(waiting.number, datagram, now)
            if self._paths.current and not streams:
                self._unanswered.add(waiting, packets, now + paths[0].trips.late, paths[0].rtt or 0.0)
        if not paths and not streams:
            self._counts["datagrams_without_carrier"] += 1

    def answered(self, packet: int) -> None:
        """The peer has received the packet with this number."""
        self._unanswered.answered(packet)

    def due(self) -> float:
        """When to call `tick`; inf: nothing waits."""
        return min(self._unanswered.due(), self._outbox.due())

    def tick(self, now: float) -> None:
        """Send the copies that are due, and send unanswered datagrams again when an answer is late."""
        for copy in self._outbox.take_due_copies(now):
            paths = self._route(copy.datagram, now).paths
            path = paths[copy.place % len(paths)] if paths else None
            if path and self._outbox.spend(path, copy.datagram, now):
                packet = self._outbox.send(path, copy.number, copy.datagram, now)
                self._unanswered.add_packet(copy.number, packet)
        if self._unanswered.due() <= now:
            late = self._unanswered.take_late(now)
            for unanswered in late:
                self._send_again(unanswered, late[0].times, now)

    def rescue(self, now: float) -> None:
        """The path went silent: send the datagrams that it took last over all other carriers. The peer drops those that
        it already has."""
        for unanswered in self._unanswered:
            number, datagram, since = unanswered.waiting.number, unanswered.waiting.datagram, unanswered.waiting.since
            if unanswered.is_rescued or now - since >= MAX_AGE:
                continue
            unanswered.is_rescued = True
            paths, streams, beside = self._route(datagram, now)
            self._stream(unanswered, streams, now)
            unanswered.packets.update(self._outbox.send(path, number, datagram, now) for path in [*paths[:1], *beside])
            self._counts["datagrams_rescued"] += 1

    def is_in_doubt(self, now: float) -> bool:
        """Whether the path in use may have died, or the last one died a moment ago: the peer should not rely on it."""
        current = self._paths.current
        if current:
            return current.is_our_doubt(now)
        return self._paths.since > self._began and now - self._paths.since < TELL_DEATH_FOR

    def _flow(self, now: float) -> int:
        return DOUBTING_FLOW if self.is_in_doubt(now) else CALM_FLOW

    def _send_again(self, unanswered: UnansweredDatagram, turn: int, now: float) -> None:
        """Send a datagram again, over the streams as well if they have not had it.

        All datagrams of one `turn` take the same path, so that the newest arrives first; the next turn the next path.
        """
        number, datagram = unanswered.waiting.number, unanswered.waiting.datagram
        paths, streams, _ = self._route(datagram, now)
        self._stream(unanswered, streams or choose(self._streams.values(), len(datagram), now), now)
        path = paths[turn % len(paths)] if paths else None
        if path and self._outbox.spend(path, datagram, now):
            unanswered.packets.add(self._outbox.send(path, number, datagram, now))

    def _stream(self, unanswered: UnansweredDatagram, streams: list[StreamCarrier], now: float) -> None:
        if unanswered.is_streamed:
            return
        for stream in streams:
            stream.offer(unanswered.waiting._replace(flow=self._flow(now)))
        unanswered.is_streamed = bool(streams)

    def _route(self, datagram: bytes, now: float) -> Route:
        known = [path for path in self._paths if path.rtt is not None]
        current, streams = self._paths.current, list(self._streams.values())
        is_settling = current is not None and is_new(current, self._paths.since, now)
        return route(len(datagram), now, current=current, is_new=is_settling, known=known, streams=streams)
