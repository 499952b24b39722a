"""What leaves over UDP: datagrams and their copies, probes and answers, sealed and ready to be taken."""

from __future__ import annotations

import heapq
from collections import Counter
from math import inf
from typing import NamedTuple

from tunneld.core.pair import packet, redundancy
from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.headroom import Headroom
from tunneld.core.pair.packet import Seal
from tunneld.core.pair.path import Path
from tunneld.core.pair.paths import Paths
from tunneld.core.pair.route import is_new
from tunneld.core.stream.choice import SMALL_DATAGRAM

UDP_HEADERS = 28
"""Bytes of IPv4 and UDP headers, which a copy costs as well."""

MAX_PACKETS = 512
"""Packets that wait to be taken, and copies that wait for their time. More are dropped, as a full socket would do."""

UNMEASURED_FOR = 5.0
"""Seconds at most for which a path whose loss nobody knows yet counts as uncertain."""


class OutgoingPacket(NamedTuple):
    """Send `data` from the socket `local` to `remote`."""

    local: str
    remote: UdpAddress
    data: bytes


class Copy(NamedTuple):
    """Datagram `number`, to be sent once more at `when`; this is copy number `place`, the datagram itself being 0."""

    when: float
    number: int
    place: int
    datagram: bytes


class Outbox:
    """`budget` says what copies may cost, and do; `counts` what was left out. `len` counts all that waits."""

    def __init__(self, seal: Seal, paths: Paths, budget: redundancy.Budget, counts: Counter[str]) -> None:
        self.budget = budget
        self._seal = seal
        self._paths = paths
        self._counts = counts
        self._packets: list[OutgoingPacket] = []
        self._answers: list[tuple[Path, bytes]] = []
        self._copies: list[Copy] = []  # a heap
        self._unplanned: list[tuple[int, bytes, float]] = []  # number, datagram, when it left

    def __len__(self) -> int:
        return len(self._packets) + len(self._answers) + len(self._copies) + len(self._unplanned)

    def send(self, path: Path, number: int, datagram: bytes, now: float) -> int:
        """Send datagram `number` on a path.

        A small one asks for an answer. A large one may not pass, so it has a small probe sent beside it now and then.

        Returns:
            The number of the packet that carries it, which the peer's answer will name.
        """
        is_small = len(datagram) <= SMALL_DATAGRAM
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
        """Probe a path, unless too many probes have left already."""
        if not self._paths.may_probe(now):
            self._counts["probes_refused"] += 1
            path.skip(now)
            return
        size = path.ask(self._seal.number, self._paths.full, now)
        self._close(path, packet.PROBE, packet.probe_body(size) if size else b"")

    def answer(self, path: Path, number: int) -> None:
        """Answer the peer's packet `number`. The answer is sealed later, after the datagram was passed on to mosh."""
        if len(self._answers) < MAX_PACKETS:
            self._answers.append((path, packet.answer_body(number, path.received)))
        else:
            self._counts["packets_untaken"] += 1

    def add(self, packets: list[OutgoingPacket]) -> None:
        """Send what is not for the peer: questions to STUN servers."""
        self._packets += packets[: MAX_PACKETS - len(self._packets)]

    def take(self) -> list[OutgoingPacket]:
        """What is to be sent now. Each packet is given once."""
        for path, body in self._answers:
            path.sent += 1
            self._close(path, packet.ANSWER, body)
        self._answers.clear()
        packets, self._packets = self._packets, []
        return packets

    # Copies

    def copies(self, now: float) -> int:
        """How often a small datagram is sent on the path in use, 1 to redundancy.MAX_COPIES."""
        path = self._paths.current
        if path is None or not self.budget.limit:
            return 1
        share = redundancy.estimate(path.loss, now)
        is_unmeasured = share is None and now - self._paths.since < UNMEASURED_FOR
        return redundancy.copies(share, uncertain=is_unmeasured or is_new(path, self._paths.since, now))

    def plan_copies(self, number: int, datagram: bytes, now: float) -> None:
        """Datagram `number` leaves now: have its further copies leave in time.

        How many there are is worked out in `take_due_copies`, when the datagram itself is on its way: a keystroke does
        not wait for that.
        """
        if len(self._unplanned) < MAX_PACKETS:
            self._unplanned.append((number, datagram, now))
        else:
            self._counts["copies_refused"] += 1

    def due(self) -> float:
        """When to call `take_due_copies`; inf: no copy waits."""
        planned = self._copies[0].when if self._copies else inf
        return min(planned, self._unplanned[0][2]) if self._unplanned else planned

    def take_due_copies(self, now: float) -> list[Copy]:
        """The copies whose time has come. Each is given once."""
        self._plan()
        due = []
        while self._copies and self._copies[0].when <= now:
            due.append(heapq.heappop(self._copies))
        return due

    def headroom(self, path: Path, now: float) -> Headroom:
        """What a path can take besides mosh's own datagrams; at first the whole budget."""
        if path.headroom is None:
            path.headroom = Headroom(self.budget.limit, now)
        return path.headroom

    def spend(self, path: Path, datagram: bytes, now: float) -> bool:
        """Pay for sending a datagram once more on a path; False: the budget, or the path's headroom, is used up."""
        cost = len(datagram) + packet.PACKET_OVERHEAD + UDP_HEADERS
        headroom = self.headroom(path, now)
        if path.trips.has_queue:
            headroom.halve(now)
        is_allowed = headroom.take(cost, now) and self.budget.allows(cost, now)
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
