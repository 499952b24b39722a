"""All paths of a pair, and which one is used.

The choice is one pure function: direct before relayed, then the shortest round trip, and no move for less than is felt.
Each move away from a path that lives makes the next one wait twice as long, so the choice does not swing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import inf, sqrt

from tunneld.core.pair.path import FORGIVEN, NEEDED, Candidate, Path, UdpAddress
from tunneld.core.stream.flow import Rate

MAX_PATHS = 32
"""Sixteen candidates from two sockets, or from one of each family and what NATs made of the peer's."""

MAX_FOUND = 8
"""Of these, how many the peer's probes may make by coming from somewhere new, at once and each 40 seconds: between two
NATs that map for each peer and let all in, every probe would make another."""

FOUND = "peer"
"""The kind of a path that nobody offered: the peer's packets come from there."""

FORGOTTEN = 60.0
"""Seconds without a sign of life after which a path that is not offered is forgotten."""

BETTER_BY, BETTER_SHARE = 0.005, 0.9
"""A shorter round trip is better by 5 ms and by a tenth at least, or nobody feels it."""

PATIENCE, LONGEST_PATIENCE = 1.0, 60.0
"""Seconds in use before a better path counts, from the second move to one on; doubled by each, until the network
changes. The first is free: the relay is often the first to answer, and the direct path comes a moment later."""

TOO_MUCH_LOSS, LOSS_WINDOW, COUNTED = 0.2, 5.0, 20
"""A fifth of the packets of the last seconds, of which there must be that many; surely so, not by chance."""


def choose(current: Path | None, paths: Iterable[Path], now: float, *, is_patient: bool) -> Path | None:
    """The path to use; None: none may be.

    `is_patient`: that another one is better is no reason now, as long as this one lives; in doubt both carry.
    """
    passing = [path for path in paths if path.passes()]
    usable = [path for path in passing if path.is_open(now)]
    trusted = [path for path in usable if not path.is_silent(now)]
    pool = trusted or usable or [path for path in passing if path.is_lossy]
    best = min(pool, key=lambda path: (not path.is_direct, path.trips.shortest), default=None)
    if (current in passing and is_patient) or (current in pool and not trusted):
        return current
    if best is None or current not in pool or current is None:
        return best
    if best.is_direct != current.is_direct:
        return best
    is_better = best.trips.shortest <= min(current.trips.shortest * BETTER_SHARE, current.trips.shortest - BETTER_BY)
    return best if is_better else current


class Paths:
    """`current` is in use since `since`, because of `why`; `full` is the size that paths should pass."""

    def __init__(self, counts: Counter[str], now: float) -> None:
        self.current: Path | None = None
        self.since = now
        self.why = "no path has answered yet"
        self.full = NEEDED
        self._counts = counts
        self._paths: dict[tuple[str, UdpAddress], Path] = {}
        self._families: dict[str, int] = {}
        self._offered: dict[UdpAddress, str] = {}
        self._probes = Rate(100, 100)
        self._finds = Rate(0.2, MAX_FOUND)
        self._patience = 0.0

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths.values())

    def __len__(self) -> int:
        return len(self._paths)

    # What may be tried

    def open(self, local: str, family: int, now: float) -> None:
        self._families[local] = family
        self._fill(now)

    def shut(self, local: str) -> None:
        self._families.pop(local, None)
        for path in [path for path in self if path.local == local]:
            self._remove(path)

    def offer(self, candidates: Iterable[Candidate], now: float) -> None:
        """Where the peer may be; every one is tried from the beginning."""
        self._offered = {}
        for kind, address in candidates:
            self._offered.setdefault(address, kind)
        for path in list(self):
            path.kind = self._offered.get(path.remote, FOUND)
            if path.kind == FOUND and path.heard is None:
                self._remove(path)
        self._fill(now)
        self.start(now)

    def start(self, now: float) -> None:
        """A new round: everything that does not answer is tried again."""
        for path in self:
            path.start(now)

    def moved(self, now: float) -> None:
        """Nothing that was known holds any more."""
        self._patience = 0.0
        for path in self:
            path.doubt_everything(now)

    def heard(self, local: str, remote: UdpAddress, now: float, *, asks: bool) -> Path | None:
        """A packet of the peer's came: its path, a new one if need be and it asks; None when there is none."""
        path = self._paths.get((local, remote))
        if path is None and asks:
            path = self._find(local, remote, now)
        if path is None:
            return None
        path.heard = now
        path.received += 1
        path.nudge(now)
        return path

    def take_answer(self, number: int, came: int, now: float) -> bool:
        """The peer answers packet `number`, from wherever: what counts is where that packet went."""
        return any(path.take_answer(number, came, now) for path in self)

    def grow(self, full: int, now: float) -> None:
        """Datagrams of `full` bytes have come up: paths are asked whether they pass such ones."""
        self.full = full
        for path in self:
            path.grow(now)

    def has_direct(self, now: float) -> bool:
        """Whether a path that no relay is on may be used."""
        return any(path.is_direct and path.is_open(now) for path in self)

    def find(self, local: str, remote: UdpAddress) -> Path | None:
        return self._paths.get((local, remote))

    # Time

    def due(self, now: float, *, is_active: bool) -> float:
        """When a probe is due, or a judgement may change."""
        moments = [path.due(in_use=path is self.current, is_active=is_active) for path in self]
        moments += [path.changes(now) for path in self]
        patient_until = self.since + self._patience
        return min([*moments, patient_until if self.current and patient_until > now else inf])

    def to_probe(self, now: float, *, is_active: bool) -> list[Path]:
        """The paths that are due to be asked now."""
        return [path for path in self if path.due(in_use=path is self.current, is_active=is_active) <= now]

    def may_probe(self, now: float) -> bool:
        """Whether one more probe is within bounds, whatever peers and candidates make us do."""
        return self._probes.allows(now)

    def review(self, now: float) -> str | None:
        """Judge all paths anew and choose; what changed, in words for people."""
        for path in list(self):
            self._judge(path, now)
        former, is_patient = self.current, now - self.since < self._patience
        chosen = choose(former, self, now, is_patient=is_patient)
        if chosen is former:
            return None
        reason = self._reason(former, chosen, now)
        if former and chosen and former.passes():
            self._patience = min(max(PATIENCE, 2 * self._patience), LONGEST_PATIENCE)
        self.current, self.since, self.why = chosen, now, reason
        return reason

    def _judge(self, path: Path, now: float) -> None:
        if path.is_dead(now):
            path.end(now)
        sent, lost = path.loss.lately(LOSS_WINDOW, now)
        if path.is_open(now) and sent >= COUNTED and lost - sqrt(lost) > TOO_MUCH_LOSS * sent:
            path.hold(now)
        if path is self.current and now - self.since > FORGIVEN and not path.is_doubtful(now):
            path.forgive()
        last = max(path.made, path.heard or 0.0)
        if path.kind == FOUND and path is not self.current and now - last > FORGOTTEN:
            self._remove(path)

    def _reason(self, former: Path | None, chosen: Path | None, now: float) -> str:
        if chosen is None or former is None:
            return former.fault or "gone" if former else "it answers"
        if not former.is_open(now):
            return f"the one before {former.fault or 'is gone'}"
        if former.is_silent(now):
            return "the one before does not answer"
        return "direct" if chosen.is_direct and not former.is_direct else "shorter round trip"

    # The table

    def _fill(self, now: float) -> None:
        for address, kind in self._offered.items():
            for local, family in self._families.items():
                if family != address.family or (local, address) in self._paths:
                    continue
                if len(self) < MAX_PATHS:
                    self._add(kind, local, address, now)
                else:
                    self._counts["paths_refused"] += 1

    def _add(self, kind: str, local: str, remote: UdpAddress, now: float) -> Path:
        path = self._paths[local, remote] = Path(kind, local, remote, now)
        return path

    def _find(self, local: str, remote: UdpAddress, now: float) -> Path | None:
        if not self._finds.allows(now) or not self._has_room():
            self._counts["paths_refused"] += 1
            return None
        if self.current:
            self.current.warn(now)  # has the peer moved there?
        return self._add(FOUND, local, remote, now)

    def _remove(self, path: Path) -> None:
        self._paths.pop((path.local, path.remote), None)
        if path is self.current:
            path.end(path.made)  # so that nothing chooses it again
            path.fault = "its socket is gone"

    def _has_room(self) -> bool:
        """Room for one more path that nobody offered; the stalest that does not answer gives way."""
        found = [path for path in self if path.kind == FOUND]
        if len(found) < MAX_FOUND and len(self) < MAX_PATHS:
            return True
        stale = [path for path in found if path.answered is None and path is not self.current]
        if not stale:
            return False
        self._remove(min(stale, key=lambda path: path.heard or path.made))
        return True
