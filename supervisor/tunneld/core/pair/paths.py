"""All paths of a pair, and which of them is used.

The choice is one pure function: a direct path comes before a relayed one, then the shortest round trip counts, and a
difference that nobody feels is no reason to move. Each move away from a path that lives makes the next move wait twice
as long, so the choice does not swing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import inf, sqrt

from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.loss import MIN_SAMPLE
from tunneld.core.pair.path import FORGIVE_AFTER, NEEDED_SIZE, Path
from tunneld.core.stream.flow import Rate

MAX_PATHS = 32
"""Sixteen candidates from two sockets; or from one socket of each family, and what NATs made of the peer's
addresses."""

MAX_FOUND = 8
"""Of these, how many the peer's questions may make by coming from somewhere new: so many at once, and one each 5 s.
Between two NATs that map for each peer and let all in, every probe would make another path."""

FOUND = "peer"
"""The kind of a path that nobody offered: the peer's packets come from there."""

FORGET_AFTER = 60.0
"""Seconds without a packet of the peer's after which a path that is not offered is forgotten."""

BETTER_BY, BETTER_SHARE = 0.005, 0.9
"""A better path must have a round trip that is shorter by 5 ms and by a tenth: nobody feels less than that."""

MIN_STAY, MAX_STAY = 1.0, 60.0
"""Seconds on a path before a better one counts: at first and at most. The first move is free, because the relay is
often the first to answer, and the direct path comes a moment later. Each further move away from a path that lives
doubles the stay; a change of network makes the next move free again."""

TOO_MUCH_LOSS, LOSS_WINDOW = 0.2, 5.0
"""A path that lost more than this share of its packets, within so many seconds, is held back. There must be MIN_SAMPLE
packets, and the loss must exceed the share by its standard deviation, so that it is no chance."""


def choose_path(current: Path | None, paths: Iterable[Path], now: float, *, must_stay: bool) -> Path | None:
    """The path to use; None: no path may be used.

    `must_stay`: do not leave a live path for a better one yet. While it is in doubt, other carriers carry as well.
    """
    passing = [path for path in paths if path.passes()]
    usable = [path for path in passing if path.is_open(now)]
    trusted = [path for path in usable if not path.is_silent(now)]
    pool = trusted or usable or [path for path in passing if path.is_lossy]
    best = min(pool, key=lambda path: (not path.is_direct, path.trips.shortest), default=None)
    if (current in passing and must_stay) or (current in pool and not trusted):
        return current
    if best is None or current not in pool or current is None:
        return best
    if best.is_direct != current.is_direct:
        return best
    is_better = best.trips.shortest <= min(current.trips.shortest * BETTER_SHARE, current.trips.shortest - BETTER_BY)
    return best if is_better else current


class Paths:
    """`current` is in use since `since`, for the reason `why`; `full` is the size in bytes that paths should pass.

    `counts` says how many paths were refused.
    """

    def __init__(self, counts: Counter[str], now: float) -> None:
        self.current: Path | None = None
        self.since = now
        self.why = "no path has answered yet"
        self.full = NEEDED_SIZE
        self._counts = counts
        self._paths: dict[tuple[str, UdpAddress], Path] = {}
        self._families: dict[str, int] = {}  # by socket: 4 or 6
        self._offered: dict[UdpAddress, str] = {}  # the kind by address
        self._probes = Rate(100, 100)
        self._finds = Rate(0.2, MAX_FOUND)
        self._stay = 0.0

    def __iter__(self) -> Iterator[Path]:
        return iter(self._paths.values())

    def __len__(self) -> int:
        return len(self._paths)

    # What may be tried

    def open(self, local: str, family: int, now: float) -> None:
        """A socket of `family` (4 or 6) is there: try what was offered from it as well."""
        self._families[local] = family
        self._fill(now)

    def shut(self, local: str) -> None:
        """The socket is gone, and its paths with it."""
        self._families.pop(local, None)
        for path in [path for path in self if path.local == local]:
            self._remove(path)

    def offer(self, candidates: Iterable[Candidate], now: float) -> None:
        """Replace the candidates at which the peer may be, and begin a new round."""
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
        """Begin a new round: try every path again that does not answer."""
        for path in self:
            path.start(now)

    def moved(self, now: float) -> None:
        """The network changed: nothing that was known about the paths holds any more."""
        self._stay = 0.0
        for path in self:
            path.doubt_everything(now)

    def heard(self, local: str, remote: UdpAddress, now: float, *, asks: bool) -> Path | None:
        """Record that an authenticated packet came from `remote` at the socket `local`.

        Returns:
            Its path. A packet that asks for an answer makes a new path if need be; None: there is no path.
        """
        path = self._paths.get((local, remote))
        if path is None and asks:
            path = self._add_found(local, remote, now)
        if path is None:
            return None
        path.heard = now
        path.received += 1
        path.nudge(now)
        return path

    def take_answer(self, number: int, came: int, now: float) -> bool:
        """The peer answers packet `number`. Where that packet went counts, not where the answer comes from.

        Returns:
            False when the answer is to no question of ours.
        """
        return any(path.take_answer(number, came, now) for path in self)

    def grow(self, full: int, now: float) -> None:
        """The first datagram of `full` bytes has come: ask all paths whether they pass such datagrams."""
        self.full = full
        for path in self:
            path.grow(now)

    def has_direct(self, now: float) -> bool:
        """Whether a path without a relay on it may be used."""
        return any(path.is_direct and path.is_open(now) for path in self)

    def find(self, local: str, remote: UdpAddress) -> Path | None:
        """The path from this socket to this address; None where there is none."""
        return self._paths.get((local, remote))

    # Time

    def due(self, now: float, *, is_active: bool) -> float:
        """When a probe is due, or time may change the choice. `is_active`: somebody is typing."""
        moments = [path.due(in_use=path is self.current, is_active=is_active) for path in self]
        moments += [path.next_change(now) for path in self]
        stays_until = self.since + self._stay
        return min([*moments, stays_until if self.current and stays_until > now else inf])

    def to_probe(self, now: float, *, is_active: bool) -> list[Path]:
        """The paths that are due to be probed now."""
        return [path for path in self if path.due(in_use=path is self.current, is_active=is_active) <= now]

    def may_probe(self, now: float) -> bool:
        """Take one probe from the rate of all probes; False: too many, whatever peers and candidates ask for."""
        return self._probes.allows(now)

    def review(self, now: float) -> str | None:
        """Judge all paths anew and choose.

        Returns:
            Why the choice changed, in words for people; None: it did not change.
        """
        for path in list(self):
            self._judge(path, now)
        former, must_stay = self.current, now - self.since < self._stay
        chosen = choose_path(former, self, now, must_stay=must_stay)
        if chosen is former:
            return None
        reason = self._reason(former, chosen, now)
        if former and chosen and former.passes():
            self._stay = min(max(MIN_STAY, 2 * self._stay), MAX_STAY)
        self.current, self.since, self.why = chosen, now, reason
        return reason

    def _judge(self, path: Path, now: float) -> None:
        if path.is_dead(now):
            path.give_up(now)
        sent, lost = path.loss.lately(LOSS_WINDOW, now)
        if path.is_open(now) and sent >= MIN_SAMPLE and lost - sqrt(lost) > TOO_MUCH_LOSS * sent:
            path.hold_for_loss(now)
        if path is self.current and now - self.since > FORGIVE_AFTER and not path.is_doubtful(now):
            path.forgive()
        last = max(path.created, path.heard or 0.0)
        if path.kind == FOUND and path is not self.current and now - last > FORGET_AFTER:
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

    def _add_found(self, local: str, remote: UdpAddress, now: float) -> Path | None:
        if not self._finds.allows(now) or not self._make_room():
            self._counts["paths_refused"] += 1
            return None
        if self.current:
            self.current.warn(now)  # the peer may have moved there
        return self._add(FOUND, local, remote, now)

    def _remove(self, path: Path) -> None:
        self._paths.pop((path.local, path.remote), None)
        if path is self.current:
            path.give_up(path.created)  # so that nothing chooses it again
            path.fault = "its socket is gone"

    def _make_room(self) -> bool:
        """Make room for one more path that nobody offered; False: each that there is answers, or is in use.

        Of those that do not answer, the one that was heard longest ago gives way.
        """
        found = [path for path in self if path.kind == FOUND]
        if len(found) < MAX_FOUND and len(self) < MAX_PATHS:
            return True
        stale = [path for path in found if path.answered is None and path is not self.current]
        if not stale:
            return False
        self._remove(min(stale, key=lambda path: path.heard or path.created))
        return True
