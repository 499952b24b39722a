"""One path: a socket of ours, an address of the peer's, and what its answers to our probes say about them.

A candidate is tried with a few probes. One that answers is asked for more: a probe as long as a full datagram. From
then on the path may be used, and is asked regularly, and along with what it carries; an answer that does not come tells
within half a second that it died. Only answers count, not what comes in: a path may have died in one direction alone.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from tunneld.core.pair.headroom import Headroom
from tunneld.core.pair.loss import Loss
from tunneld.core.pair.round_trips import UNKNOWN, RoundTrips

KINDS = ("lan", "mapped", "reflexive", "visible", "relay")
"""What a candidate may be, as OFFER names it: an address of the machine's own; one that its router opened; what a STUN
server saw; what the SSH server saw, with the socket's own port; a UDP relay's. A sixth, `peer`, is never offered: the
source of an authenticated packet."""

TRIES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
"""Seconds from the start of a round: most holes open at the first try, the rest covers the other side's delay."""

NEEDED = 1216
"""Bytes: mosh's largest datagram over IPv6; a path that does not pass it would lose every large screen."""

ACTIVE_BEAT, IDLE_BEAT = 1.0, 10.0
"""Seconds between two probes: while somebody types, and otherwise (NATs forget a UDP flow after 30 s)."""

URGENT_BEAT = 0.2
"""Seconds between two probes of a path in doubt, at most: ten of them must get lost before it counts as dead."""

COMPANION = 0.25
"""Seconds after the last question from which a large datagram has a probe by its side; a small one asks by itself."""

DOUBT = 0.5
"""Seconds, or three round trips: mosh's banner comes after 6.5 s, but a person wonders after one."""

DEATH = 2.5
"""Seconds, or four round trips, without an answer to some ten probes."""

RECHECK = 5.0
"""Seconds after a full datagram until a full probe asks again: routes change, and may become narrow."""

FULL_TRIES = 6
"""Full probes without an answer, while small ones have theirs, after which a path counts as narrow: at a loss of 15 %
each way one path in two thousand is wronged."""

HELD, HELD_FOR_LOSS = 2.0, 30.0
"""Seconds for which a path is held back that went silent for the second time, or lost too much; doubled each time."""

LONGEST_HOLD = 30.0, 480.0
"""The same two, at most: UDP that comes back is used within a minute."""

FORGIVEN = 120.0
"""Seconds in use after which earlier faults do not count."""

MAX_ASKED = 512
"""Questions whose answer is waited for: what the budget of copies allows for as long as DEATH. An answer to a forgotten
one says nothing, so that a path whose round trip grew would seem dead."""


class UdpAddress(NamedTuple):
    """A UDP address as sockets name it: a numeric host without a scope, IPv4 never written as IPv6 (::ffff:...)."""

    host: str
    port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.host else 4

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.family == 6 else f"{self.host}:{self.port}"


class Candidate(NamedTuple):
    kind: str
    address: UdpAddress


class _Asked(NamedTuple):
    when: float
    sent: int  # packets on this path, the probe included
    size: int  # of the datagram that it stands for; 0: it is small


class Path:
    """`sent` and `received` count packets, `proven` is the size of datagrams that have been seen to pass.

    `heard` is when anything of the peer's came, `answered` when an answer did; None: not in this life of the path.
    `room` is what the line has room for besides mosh's own datagrams; None: nobody asked yet.
    """

    def __init__(self, kind: str, local: str, remote: UdpAddress, now: float) -> None:
        self.kind = kind
        self.local = local
        self.remote = remote
        self.made = now
        self.sent = self.received = 0
        self.proven = 0
        self.trips = RoundTrips()
        self.room: Headroom | None = None
        self.answered: float | None = None
        self.heard: float | None = None
        self.fault = ""
        self.is_lossy = False
        self.held_until = now
        self.loss = Loss()
        self._strikes = 0
        self._asked: dict[int, _Asked] = {}
        self._waiting_since: float | None = None
        self._settled = -inf
        self._warned: float | None = None
        self._is_peers_doubt = False
        self._probed = -inf
        self._next_full = inf
        self._full_tries = 0
        self._round = now
        self._step = 0

    @property
    def is_direct(self) -> bool:
        return self.kind != "relay"

    @property
    def rtt(self) -> float | None:
        """Seconds, smoothed; None: it has never answered."""
        return self.trips.usual

    # Probes

    def start(self, now: float) -> None:
        """Try from the beginning, unless it answers."""
        if self.answered is None:
            self._round, self._step = now, 0

    def nudge(self, now: float) -> None:
        """The peer was heard here, so it is the time to ask."""
        if self.answered is None and self._next_try() > now + COMPANION:
            self.start(now)

    def due(self, *, in_use: bool, is_active: bool) -> float:
        """When to send the next probe."""
        if self.answered is None:
            return self._next_try()
        if self._warned is not None and self._probed < self._warned:
            return self._warned
        beat = ACTIVE_BEAT if in_use and is_active else IDLE_BEAT
        if self._waiting_since is not None:
            beat = min(max(0.1, 1.25 * (self.rtt or 0)), 0.75)
            if self._probed - self._waiting_since >= self._doubt:
                beat = min(beat, URGENT_BEAT)
        return min(self._probed + beat, self._next_full)

    def wants_company(self, now: float) -> bool:
        """A large datagram leaves here now, and should have a probe by its side."""
        return self.answered is not None and now - self._probed >= COMPANION

    def ask(self, number: int, full: int, now: float) -> int:
        """A probe leaves now as packet `number`; the size of the datagram that it must stand for, `full` at most."""
        size = full if now >= self._next_full else 0
        if size:
            self._full_tries += 1
            self._next_full = now + (
                1.0 if self.proven >= full else min(IDLE_BEAT, 0.1 * 2 ** min(self._full_tries, 8))
            )
        if self.answered is None:
            self._step += 1
        self.sent += 1
        self.expect(number, now, size=size)
        if size and self._full_tries > FULL_TRIES and self.proven >= full:
            self.proven, self.fault = 0, "large packets do not pass"
        return size

    def expect(self, number: int, now: float, *, size: int = 0) -> None:
        """What leaves now as packet `number` wants an answer."""
        if not size:
            self._probed = now
            if self._waiting_since is None:
                self._waiting_since = now
        self._asked[number] = _Asked(now, self.sent, size)
        if len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]

    def skip(self, now: float) -> None:
        """The probe that is due is left out."""
        self._step += self.answered is None
        self._probed = now
        self._next_full = max(self._next_full, now + ACTIVE_BEAT)

    def take_answer(self, number: int, came: int, now: float) -> bool:
        """The peer answers packet `number`, and has received `came` on this path; False when that was not asked."""
        asked = self._asked.pop(number, None)
        if asked is None:
            return False
        if self.answered is None:
            self._next_full = now
        self.answered = now
        if asked.size:
            self.proven, self._full_tries, self._next_full = max(self.proven, asked.size), 0, inf
        self.trips.learn(asked.when, now)
        self.loss.learn(asked.sent, came, now)
        self._settle(asked.when)
        return True

    def carries(self, size: int, full: int, now: float) -> None:
        """A datagram of `size` bytes leaves here."""
        self.sent += 1
        if size > full // 2 and self._next_full == inf:
            self._next_full = now + RECHECK

    def grow(self, now: float) -> None:
        """Datagrams have become larger than what was tried."""
        if self.proven:
            self._next_full, self._full_tries = now, 0

    # Judgement

    def waited(self, now: float) -> float:
        """Seconds since the first probe that has no answer."""
        return now - self._waiting_since if self._waiting_since is not None and self.answered is not None else 0.0

    def warn(self, now: float, *, by_peer: bool = False) -> None:
        """Something says that the path may have died: doubt it until it answers, which it is asked for at once."""
        if self._warned is None:
            self._warned, self._is_peers_doubt = now, by_peer

    def is_silent(self, now: float) -> bool:
        """It should have answered."""
        return self.waited(now) >= self._doubt

    def is_doubtful(self, now: float) -> bool:
        """It may have died: somebody else should carry as well."""
        return self._warned is not None or self.is_silent(now)

    def is_our_doubt(self, now: float) -> bool:
        """The peer should know; what it told us itself is no news to it, or two ends would alarm each other forever."""
        return self.is_silent(now) or (self._warned is not None and not self._is_peers_doubt)

    def is_dead(self, now: float) -> bool:
        return self.waited(now) >= self._death

    def passes(self) -> bool:
        """It answers, and full datagrams pass."""
        return self.answered is not None and self.proven >= NEEDED

    def is_open(self, now: float) -> bool:
        """It may be used, and by itself."""
        return self.passes() and now >= self.held_until

    def changes(self, now: float) -> float:
        """When silence, or the end of a hold, will change the judgement; inf: not by itself."""
        moments = [self.held_until]
        if self._waiting_since is not None and self.answered is not None:
            moments += [self._waiting_since + self._doubt, self._waiting_since + self._death]
        return min((moment for moment in moments if moment > now), default=inf)

    def end(self, now: float) -> None:
        """It went silent: it is a candidate again, held back for a while."""
        self._strike(now, min(LONGEST_HOLD[0], HELD * (2.0**self._strikes - 1)))
        self.fault, self.is_lossy = "went silent", False
        self._begin_anew(now)

    def hold(self, now: float) -> None:
        """It loses too much: another one is better, and none is better than it alone."""
        self._strike(now, min(LONGEST_HOLD[1], HELD_FOR_LOSS * 2.0**self._strikes))
        self.fault, self.is_lossy = "loses too much", True

    def forgive(self) -> None:
        """It has been good for long."""
        self._strikes = 0

    def doubt_everything(self, now: float) -> None:
        """The network changed: what was held against it no longer counts, nor what spoke for it."""
        self._strikes, self.held_until, self.fault, self.is_lossy = 0, now, "", False
        self.loss.forget()
        self.trips.forget_shortest()
        self.room = None
        self._warned = None
        if self.answered is None:
            self.start(now)
        else:
            self.warn(now)

    def state(self, now: float) -> str:
        """A word for people."""
        if self.answered is None:
            return "silent" if self.fault else "tried"
        if now < self.held_until:
            return "held back"
        if self.proven < NEEDED:
            return "narrow"
        return "doubtful" if self.is_doubtful(now) else "open"

    @property
    def _doubt(self) -> float:
        return max(DOUBT, 3 * (self.rtt if self.rtt is not None else UNKNOWN / 3))

    @property
    def _death(self) -> float:
        return max(DEATH, 4 * (self.rtt or 0))

    def _next_try(self) -> float:
        return self._round + TRIES[self._step] if self._step < len(TRIES) else inf

    def _strike(self, now: float, seconds: float) -> None:
        self.held_until = now + seconds
        self._strikes = min(self._strikes + 1, 8)
        self.loss.forget()

    def _begin_anew(self, now: float) -> None:
        self.answered = self._waiting_since = self._warned = None
        self.proven, self._next_full, self._full_tries = 0, inf, 0
        self._asked.clear()
        self.trips.forget_shortest()
        self.start(now)

    def _settle(self, asked: float) -> None:
        """What was sent until `asked` needs no answer any more, though an older one may still come."""
        self._settled = max(self._settled, asked)
        later = [other.when for other in self._asked.values() if other.when > self._settled and not other.size]
        self._waiting_since = min(later, default=None)
        if self._warned is not None and asked >= self._warned:
            self._warned = None
