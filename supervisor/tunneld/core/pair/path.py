"""One path: a socket of ours, an address of the peer's, and what the peer's answers say about the two.

A candidate is tried with a few probes. If it answers, a probe as long as a full datagram follows. Once that is answered
as well, the path may be used. From then on probes go out regularly, and small datagrams ask for answers themselves, so
that half a second without an answer puts the path in doubt, and 2.5 s count as its death. Only answers to our own
packets judge a path, never what else comes in: a path may have died in one direction alone.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.headroom import Headroom
from tunneld.core.pair.loss import Loss
from tunneld.core.pair.round_trips import ASSUMED_TRIP, RoundTrips

PROBE_TIMES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
"""Seconds from the start of a round at which a candidate is probed. Most NATs open at the first probe; the others cover
the time until the other side has begun as well."""

NEEDED_SIZE = 1216
"""Bytes: mosh's largest datagram over IPv6. A path that does not pass it would lose every large screen."""

ACTIVE_BEAT, IDLE_BEAT = 1.0, 10.0
"""Seconds between two probes: while somebody types, and otherwise (NATs forget a UDP flow after 30 s)."""

URGENT_BEAT = 0.2
"""Seconds at most between two probes of a path in doubt: ten of them must get lost before the path counts as dead."""

COMPANION_AFTER = 0.25
"""Seconds since the last question after which a large datagram has a probe sent beside it. A small datagram needs none:
it asks for an answer itself."""

DOUBT_AFTER = 0.5
"""Seconds (or three round trips, if longer) without an answer. mosh shows its banner after 6.5 s, but a person begins
to wonder after one second."""

DEAD_AFTER = 2.5
"""Seconds (or four round trips, if longer) without an answer, to some ten probes."""

RECHECK_AFTER = 5.0
"""Seconds from a full datagram to the full probe that asks again: routes change, and may become narrow."""

MAX_FULL_PROBES = 6
"""Full probes that may stay unanswered, while small ones are answered, before a path counts as narrow. At a loss of 15
% each way, one good path in two thousand is called narrow by mistake."""

HOLD_AFTER_SILENCE, HOLD_AFTER_LOSS = 2.0, 30.0
"""Seconds for which a path is held back: after it went silent for the second time, and after it lost too much. Each
further time about doubles them."""

LONGEST_HOLD_AFTER_SILENCE, LONGEST_HOLD_AFTER_LOSS = 30.0, 480.0
"""Seconds: the same two, at most. UDP that comes back is used within a minute."""

FORGIVE_AFTER = 120.0
"""Seconds in use after which earlier faults no longer count."""

MAX_QUESTIONS = 512
"""Questions whose answer is awaited: as many as the budget of copies allows within DEAD_AFTER. An answer to a forgotten
question says nothing, so with fewer a path whose round trip grew would seem dead."""


class _Question(NamedTuple):
    when: float
    sent: int  # packets on this path, this one included
    size: int  # of the datagram that a full probe stands for; 0 for a small packet


class Path:
    """`local` names a socket of ours, `remote` is the peer's address; times are seconds on any steady clock.

    `sent` and `received` count packets; `proven` is the size in bytes of the largest datagrams known to pass.
    `heard` is when any packet of the peer's came last, `answered` when an answer did; None: not since the path began,
    or began anew. `headroom` is what the line can take besides mosh's own datagrams; None: nobody asked yet.
    `fault` says in words why the path was given up or held back; `is_lossy`: because it lost too much.
    """

    def __init__(self, kind: str, local: str, remote: UdpAddress, now: float) -> None:
        self.kind = kind
        self.local = local
        self.remote = remote
        self.created = now
        self.sent = self.received = 0
        self.proven = 0
        self.trips = RoundTrips()
        self.headroom: Headroom | None = None
        self.answered: float | None = None
        self.heard: float | None = None
        self.fault = ""
        self.is_lossy = False
        self.held_until = now
        self.loss = Loss()
        self._strikes = 0
        self._questions: dict[int, _Question] = {}  # by packet number
        self._waiting_since: float | None = None
        self._settled = -inf
        self._warned: float | None = None
        self._is_peers_doubt = False
        self._probed = -inf
        self._next_full = inf
        self._full_probes = 0
        self._round = now
        self._step = 0

    @property
    def is_direct(self) -> bool:
        """Whether the path leads to the peer without our agent on a jump host."""
        return self.kind != "relay"

    @property
    def rtt(self) -> float | None:
        """The smoothed round trip in seconds; None: the path has never answered."""
        return self.trips.usual

    # Probes

    def start(self, now: float) -> None:
        """Begin a new round of probes, unless the path answers."""
        if self.answered is None:
            self._round, self._step = now, 0

    def nudge(self, now: float) -> None:
        """The peer was heard here, so a probe is likely to get through: begin a round if the next probe is far off."""
        if self.answered is None and self._next_try() > now + COMPANION_AFTER:
            self.start(now)

    def due(self, *, in_use: bool, is_active: bool) -> float:
        """When to send the next probe; inf: not before another round. `is_active`: somebody is typing."""
        if self.answered is None:
            return self._next_try()
        if self._warned is not None and self._probed < self._warned:
            return self._warned
        beat = ACTIVE_BEAT if in_use and is_active else IDLE_BEAT
        if self._waiting_since is not None:
            beat = min(max(0.1, 1.25 * (self.rtt or 0)), 0.75)
            if self._probed - self._waiting_since >= self._doubt_after:
                beat = min(beat, URGENT_BEAT)
        return min(self._probed + beat, self._next_full)

    def wants_company(self, now: float) -> bool:
        """Whether a large datagram that leaves here now should have a probe sent beside it."""
        return self.answered is not None and now - self._probed >= COMPANION_AFTER

    def ask(self, number: int, full: int, now: float) -> int:
        """Record that a probe leaves now as packet `number`; `full` is the size in bytes that paths should pass.

        Returns:
            The size of the datagram that the probe must stand for: `full`, or 0 for a small probe.
        """
        size = full if now >= self._next_full else 0
        if size:
            self._full_probes += 1
            self._next_full = now + (
                1.0 if self.proven >= full else min(IDLE_BEAT, 0.1 * 2 ** min(self._full_probes, 8))
            )
        if self.answered is None:
            self._step += 1
        self.sent += 1
        self.expect(number, now, size=size)
        if size and self._full_probes > MAX_FULL_PROBES and self.proven >= full:
            self.proven, self.fault = 0, "large packets do not pass"
        return size

    def expect(self, number: int, now: float, *, size: int = 0) -> None:
        """Record that packet `number`, which leaves now, asks for an answer; `size` as `ask` returns it.

        Only small packets can put the path in doubt. A full probe without an answer may mean that the path is narrow.
        """
        if not size:
            self._probed = now
            if self._waiting_since is None:
                self._waiting_since = now
        self._questions[number] = _Question(now, self.sent, size)
        if len(self._questions) > MAX_QUESTIONS:
            del self._questions[next(iter(self._questions))]

    def skip(self, now: float) -> None:
        """Leave out the probe that is due."""
        self._step += self.answered is None
        self._probed = now
        self._next_full = max(self._next_full, now + ACTIVE_BEAT)

    def take_answer(self, number: int, came: int, now: float) -> bool:
        """The peer answers packet `number`, and has received `came` packets on this path so far.

        Returns:
            False when packet `number` did not ask on this path, was answered before, or is forgotten.
        """
        question = self._questions.pop(number, None)
        if question is None:
            return False
        if self.answered is None:
            self._next_full = now
        self.answered = now
        if question.size:
            self.proven, self._full_probes, self._next_full = max(self.proven, question.size), 0, inf
        self.trips.learn(question.when, now)
        self.loss.learn(question.sent, came, now)
        self._settle(question.when)
        return True

    def carries(self, size: int, full: int, now: float) -> None:
        """Record that a datagram of `size` bytes leaves here; `full` is the size in bytes that paths should pass."""
        self.sent += 1
        if size > full // 2 and self._next_full == inf:
            self._next_full = now + RECHECK_AFTER

    def grow(self, now: float) -> None:
        """Larger datagrams than before must pass: ask with a full probe at once, if the path passes any."""
        if self.proven:
            self._next_full, self._full_probes = now, 0

    # Judgement

    def waited(self, now: float) -> float:
        """Seconds since the first small question that has no answer; 0 when none waits, or on a mere candidate."""
        return now - self._waiting_since if self._waiting_since is not None and self.answered is not None else 0.0

    def warn(self, now: float, *, by_peer: bool = False) -> None:
        """Something says that the path may have died: probe it at once, and doubt it until it answers."""
        if self._warned is None:
            self._warned, self._is_peers_doubt = now, by_peer

    def is_silent(self, now: float) -> bool:
        """Whether an answer is overdue."""
        return self.waited(now) >= self._doubt_after

    def is_doubtful(self, now: float) -> bool:
        """Whether the path may have died, so that other carriers should carry as well."""
        return self._warned is not None or self.is_silent(now)

    def is_our_doubt(self, now: float) -> bool:
        """Whether the peer should hear of our doubt.

        A doubt that the peer itself told us of is no news to it: the two ends would alarm each other forever.
        """
        return self.is_silent(now) or (self._warned is not None and not self._is_peers_doubt)

    def is_dead(self, now: float) -> bool:
        """Whether no answer has come for so long that the path is given up."""
        return self.waited(now) >= self._dead_after

    def passes(self) -> bool:
        """Whether the path answers, and full datagrams pass."""
        return self.answered is not None and self.proven >= NEEDED_SIZE

    def is_open(self, now: float) -> bool:
        """Whether the path may be used, without help from other carriers."""
        return self.passes() and now >= self.held_until

    def next_change(self, now: float) -> float:
        """When time alone will change the judgement (silence, death, the end of a hold); inf: it will not."""
        moments = [self.held_until]
        if self._waiting_since is not None and self.answered is not None:
            moments += [self._waiting_since + self._doubt_after, self._waiting_since + self._dead_after]
        return min((moment for moment in moments if moment > now), default=inf)

    def give_up(self, now: float) -> None:
        """The path went silent: make it a candidate again, and hold it back unless this was the first time."""
        self._hold(now, min(LONGEST_HOLD_AFTER_SILENCE, HOLD_AFTER_SILENCE * (2.0**self._strikes - 1)))
        self.fault, self.is_lossy = "went silent", False
        self._begin_anew(now)

    def hold_for_loss(self, now: float) -> None:
        """The path loses too much: other paths come first, but without another one it stays in use, with help."""
        self._hold(now, min(LONGEST_HOLD_AFTER_LOSS, HOLD_AFTER_LOSS * 2.0**self._strikes))
        self.fault, self.is_lossy = "loses too much", True

    def forgive(self) -> None:
        """The path has been good for long: forget its earlier faults."""
        self._strikes = 0

    def doubt_everything(self, now: float) -> None:
        """The network changed: forget what spoke against the path, and what spoke for it."""
        self._strikes, self.held_until, self.fault, self.is_lossy = 0, now, "", False
        self.loss.forget()
        self.trips.forget_shortest()
        self.headroom = None
        self._warned = None
        if self.answered is None:
            self.start(now)
        else:
            self.warn(now)

    def state(self, now: float) -> str:
        """The state in a word for people."""
        if self.answered is None:
            return "silent" if self.fault else "tried"
        if now < self.held_until:
            return "held back"
        if self.proven < NEEDED_SIZE:
            return "narrow"
        return "doubtful" if self.is_doubtful(now) else "open"

    @property
    def _doubt_after(self) -> float:
        return max(DOUBT_AFTER, 3 * (self.rtt if self.rtt is not None else ASSUMED_TRIP / 3))

    @property
    def _dead_after(self) -> float:
        return max(DEAD_AFTER, 4 * (self.rtt or 0))

    def _next_try(self) -> float:
        return self._round + PROBE_TIMES[self._step] if self._step < len(PROBE_TIMES) else inf

    def _hold(self, now: float, seconds: float) -> None:
        self.held_until = now + seconds
        self._strikes = min(self._strikes + 1, 8)
        self.loss.forget()

    def _begin_anew(self, now: float) -> None:
        self.answered = self._waiting_since = self._warned = None
        self.proven, self._next_full, self._full_probes = 0, inf, 0
        self._questions.clear()
        self.trips.forget_shortest()
        self.start(now)

    def _settle(self, asked: float) -> None:
        """Questions that left until `asked` need no answer any more; a later answer to one of them changes nothing."""
        self._settled = max(self._settled, asked)
        later = [other.when for other in self._questions.values() if other.when > self._settled and not other.size]
        self._waiting_since = min(later, default=None)
        if self._warned is not None and asked >= self._warned:
            self._warned = None
