"""What leaves over UDP: datagrams and their copies, probes and answers, sealed and ready to be taken."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import NamedTuple

from tunneld.core.pair import packet, redundancy
from tunneld.core.pair.headroom import Headroom
from tunneld.core.pair.packet import Seal
from tunneld.core.pair.path import Path, UdpAddress
from tunneld.core.pair.paths import Paths
from tunneld.core.pair.route import is_new

UDP_HEADERS = 28
"""Bytes of IPv4 and UDP that a copy costs as well."""

MAX_PACKETS = 512
"""Packets that wait to be taken, and copies that wait for their time; more are dropped, as a full socket would."""

UNMEASURED = 5.0
"""Seconds for which a path whose loss nobody knows yet counts as uncertain, at most."""


class OutgoingPacket(NamedTuple):
    """Send `data` from the socket `local` to `remote`."""

    local: str
    remote: UdpAddress
    data: bytes


class Copy(NamedTuple):
    """A copy that leaves at `when`; `place` is which one it is."""

    when: float
    number: int
    place: int
    datagram: bytes


class Outbox:
    """`budget` says what copies may cost, and do."""

    def __init__(self, seal: Seal, paths: Paths, budget: redundancy.Budget, counts: Counter[str]) -> None:
        self.budget = budget
        self._seal = seal
        self._paths = paths
        self._counts = counts
        self._packets: list[OutgoingPacket] = []
        self._answers: list[tuple[Path, bytes]] = []
        self._copies: list[Copy] = []
        self._unplanned: list[tuple[int, bytes, float]] = []

    def __len__(self) -> int:
        return len(self._packets) + len(self._answers) + len(self._copies) + len(self._unplanned)

    def send(self, path: Path, number: int, datagram: bytes, now: float) -> int:
        """A datagram leaves on a path; the number of its packet, which the peer's answer will name.

        A small one asks for an answer; a large one, which may not pass, has a small probe by its side now and then.
        """
        is_small = len(datagram) <= redundancy.SMALL
        if not is_small and path.wants_company(now):
            self.probe(path, now)
        path.carries(len(datagram), self._paths.full, now)
        packet_number = self._seal.number
        kind = packet.DATAGRAM
        if is_small and path.answered is not None:
            path.expect(packet_number, now)
            kind = packet.ASKING
        self._close(path, kind, packet.datagram_body(number, datagram))
        return packet_number

    def probe(self, path: Path, now: float) -> None:
        if not self._paths.may_probe(now):
            self._counts["probes_refused"] += 1
            path.skip(now)
            return
        size = path.ask(self._seal.number, self._paths.full, now)
        self._close(path, packet.PROBE, packet.probe_body(size) if size else b"")

    def answer(self, path: Path, number: int) -> None:
        """The answer to the peer's packet `number`. It is sealed when that has been passed on."""
        if len(self._answers) < MAX_PACKETS:
            self._answers.append((path, packet.answer_body(number, path.received)))
        else:
            self._counts["packets_untaken"] += 1

    def add(self, packets: list[OutgoingPacket]) -> None:
        """Something that is not for the peer."""
        self._packets += packets[: MAX_PACKETS - len(self._packets)]

    def take(self) -> list[OutgoingPacket]:
        """What is to be sent now."""
        for path, body in self._answers:
            path.sent += 1
            self._close(path, packet.ANSWER, body)
        self._answers.clear()
        packets, self._packets = self._packets, []
        return packets

    # Copies

    def copies(self, now: float) -> int:
        """How often a small datagram is sent on the path in use."""
        path = self._paths.current
        if path is None or not self.budget.limit:
            return 1
        share = redundancy.estimate(path.loss, now)
        is_unmeasured = share is None and now - self._paths.since < UNMEASURED
        return redundancy.copies(share, uncertain=is_unmeasured or is_new(path, self._paths.since, now))

    def plan(self, number: int, datagram: bytes, now: float) -> None:
        """Have the further copies of a datagram leave in time. How many is worked out when the first has left."""
        if len(self._unplanned) < MAX_PACKETS:
            self._unplanned.append((number, datagram, now))
        else:
            self._counts["copies_refused"] += 1

    def due(self) -> list[float]:
        """When the next copy wants to leave, if there is one."""
        self._plan()
        return [copy.when for copy in self._copies[:1]]

    def ripe(self, now: float) -> list[Copy]:
        """The copies whose time has come."""
        self._plan()
        ripe = []
        while self._copies and self._copies[0].when <= now:
            ripe.append(heapq.heappop(self._copies))
        return ripe

    def room(self, path: Path, now: float) -> Headroom:
        """What a path has room for, as far as is known."""
        if path.room is None:
            path.room = Headroom(self.budget.limit, now)
        return path.room

    def spend(self, path: Path, datagram: bytes, now: float) -> bool:
        """Take what it costs that this goes once more on a path; False: there is no such budget, or room, left."""
        cost = len(datagram) + packet.OVERHEAD + UDP_HEADERS
        room = self.room(path, now)
        if path.trips.has_queue:
            room.halve(now)
        is_allowed = room.take(cost, now) and self.budget.allows(cost, now)
        self._counts["copies_out" if is_allowed else "copies_over_budget"] += 1
        return is_allowed

    def _plan(self) -> None:
        for number, datagram, now in self._unplanned:
            for place in range(1, self.copies(now)):
                if len(self._copies) < MAX_PACKETS:
                    when = now + redundancy.SPACING[place]
                    heapq.heappush(self._copies, Copy(when, number, place, datagram))
                else:
                    self._counts["copies_refused"] += 1
        self._unplanned.clear()

    def _close(self, path: Path, kind: int, body: bytes) -> None:
        if len(self._packets) >= MAX_PACKETS:
            self._counts["packets_untaken"] += 1
            return
        self._packets.append(OutgoingPacket(path.local, path.remote, self._seal.close(kind, body)))
