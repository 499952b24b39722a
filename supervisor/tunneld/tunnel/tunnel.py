"""A tunnel: a profile's running form. Sessions one after the other, with a backoff between them, until it is stopped.

Every state is reached through the table in core/lifecycle.py. The session is what is retried, not the dial: a relay
that accepts and drops waits longer each time. No failure class is final: each can be mended from the relay's side or by
a person at the host (a key file that is missing may be put there), and a host behind NAT that gave up would be out of
everybody's reach. FAILED is for a fault of our own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeGuard

import asyncssh
from structlog.contextvars import bound_contextvars
from structlog.typing import FilteringBoundLogger
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from tunneld import __version__
from tunneld.core.supervise.backoff import CHEAP, Backoff
from tunneld.core.supervise.lifecycle import Event, Failure, State, after
from tunneld.net.name_watch import NameWatch
from tunneld.profile import Profile, Relay
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.remote.marks import Marks
from tunneld.ssh.remote.takeover import Takeover
from tunneld.status.brief import HUMAN
from tunneld.status.snapshot import FailureStatus, MoshStatus, TunnelStatus
from tunneld.tunnel.canary_rounds import CanaryRounds
from tunneld.tunnel.forwards import waiting
from tunneld.tunnel.interruptible import Interruptible
from tunneld.tunnel.repeats import Repeats
from tunneld.tunnel.second_dial import SHORTEST_DIAL
from tunneld.tunnel.session import ReplacedError, Session, SessionEvents
from tunneld.tunnel.timing import Timing

if TYPE_CHECKING:
    from tunneld.shim.shim import Shim

ENDED = {State.STOPPED, State.FAILED}

_chance = Random().random


class RenewedError(Exception):
    """Something changed in a way that only a new session can follow: dial at once."""


class Tunnel:
    """Holds a tunnel to a profile's first relay. `clock` and `sleep` are in seconds, `random` is uniform in [0, 1)."""

    def __init__(
        self,
        profile: Profile,
        *,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = _chance,
        marks: Marks | None = None,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """`moved` is called after each change of state, and when the relay's answer is overdue or comes after all."""
        self.name = profile.name
        self._log: FilteringBoundLogger = log.bind(tunnel=profile.name)
        self._timing = Timing(clock, sleep, random)
        self._moved = moved
        self._repeats = Repeats()
        self._canary = CanaryRounds(profile.canary.interval, timing=self._timing, log=self._log, repeats=self._repeats)
        self._profile = profile
        self._shim = _shim(profile, self._log)
        self._backoff = Backoff(profile.backoff)
        self._state = State.IDLE
        self._since = self._started = self._down_since = self._dialled = clock()
        self._attempts = self._sessions = 0
        self._session: Session | None = None
        self._let_in, self._silence = False, 0.0  # was the last session, and how long was it at its end
        self._failure: tuple[Failure | None, str, float] | None = None
        self._next_try: float | None = None
        self._stopping = False
        self._renewal = ""  # why the session that is under way is to be made anew
        self._successor: asyncssh.SSHClientConnection | None = None  # of the session that it replaced
        self._marks = marks or Marks(self.name)
        self._names: dict[str, NameWatch] = {}
        self._current = Interruptible()  # the session or the backoff that run() is in

    async def run(self) -> None:
        """Until stopped. Cancelling is a stop as well.

        Raises:
            Exception: a fault of our own; the state is then FAILED.
        """
        if self._stopping:
            return
        with bound_contextvars(tunnel=self.name):
            self._move(Event.START)
            self._log.info("tunnel_started", relay=address_of(self._profile.relay))
            try:
                await AsyncRetrying(
                    retry=retry_if_exception_type((SessionError, RenewedError)),
                    wait=self._wait,
                    before_sleep=self._lost,
                    sleep=self._pause,
                    reraise=True,
                )(self._attempt)
            except Exception as error:
                self._crashed(error)
                raise
            finally:
                self._drop_successor()
                self._drained()

    def stop(self) -> None:
        """Close the forwards, leave the relay, and have run() return."""
        if self._stopping or self._state in ENDED:
            return
        self._stopping = True
        self._move(Event.STOP)
        self._log.info("stop_requested")
        self._current.interrupt()

    async def apply(self, profile: Profile, *, event: str = "profile_applied") -> None:
        """Follow a changed profile: changed forwards alone blink, mosh may come, all else needs another session."""
        before = self._profile
        if profile == before or self._stopping:
            return
        self._adopt(profile)
        session = self._session
        if self._can_change(session) and _same_session(before, profile):
            self._log.info(event, session="kept")
            session.accompany(None if self._shim is None else self._shim.run)
            await session.change(profile.forward)
        elif self._state not in ENDED:
            self._log.info(event, session="renewed")
            self._renew("the profile changed")

    def _can_change(self, session: Session | None) -> TypeGuard[Session]:
        """Whether there is a session that answers: the others would have a change wait for their relay."""
        return self._state is State.UP and session is not None and session.silence is None

    def nudge(self) -> None:
        """This machine's network has changed, or it has slept: act at once, where an attempt costs nothing."""
        if self._state is State.BACKOFF and self._failure is not None and self._failure[0] in CHEAP:
            self._backoff.clear(Failure.NETWORK)
            self._current.interrupt()
        elif self._session is not None and not self._session.nudge() and self._is_dialling_long():
            self._renew("the network changed")

    @property
    def peer(self) -> str:
        """The address that our session leads to, on this machine's side; empty without one."""
        return self._session.peer if self._session else ""

    def _is_dialling_long(self) -> bool:
        return self._timing.clock() - self._dialled >= SHORTEST_DIAL

    def status(self) -> TunnelStatus:
        now = self._timing.clock()
        up = self._state is State.UP
        return TunnelStatus(
            name=self.name,
            state=self._state,
            since=now - self._since,
            relay=address_of(self._profile.relay),
            running=now - self._started,
            uptime=now - self._since if up else 0.0,
            attempts=self._attempts,
            sessions=self._sessions,
            failure=self._last_failure(now),
            next_try_in=None if self._next_try is None else max(0.0, self._next_try - now),
            forwards=self._session.forwards() if self._session else tuple(map(waiting, self._profile.forward)),
            rtt=None if self._session is None else self._session.rtt,
            silence=None if self._session is None else self._session.silence,
            mosh=self._shim.status() if self._shim else MoshStatus("off"),
            pid=os.getpid(),
            version=__version__,
        )

    def _adopt(self, profile: Profile) -> None:
        if (self._profile.mosh, self._profile.relay) != (profile.mosh, profile.relay):
            self._shim = _shim(profile, self._log)
        self._profile = profile
        self._canary.adopt(profile.canary.interval)
        self._backoff = Backoff(profile.backoff)

    def _renew(self, reason: str) -> None:
        self._renewal = reason
        self._current.interrupt()

    def _drop_successor(self) -> None:
        if self._successor is not None:
            self._successor.abort()
            self._successor = None

    # One session

    async def _attempt(self) -> None:
        """Returns when the tunnel is to stop; every other end raises, so that it is tried again."""
        if self._stopping:
            return
        if self._renewal:
            self._drop_successor()  # it was dialled as things were before
        self._renewal = ""
        self._attempts += 1
        self._dialled = self._timing.clock()
        successor, self._successor = self._successor, None
        relay = self._profile.relay
        news = SessionEvents(
            taken_over=partial(self._taken_over, relay),
            hindered=self._hindered,
            established=self._established,
            doubted=self._moved,
            stable=self._stable,
        )
        self._session = Session(
            self._profile,
            relay,
            mark=self._marks.of(relay),
            companion=None if self._shim is None else self._shim.run,
            canary=self._canary,
            successor=successor,
            outage=self._outage(),
            names=self._watch_over,
            timing=self._timing,
            log=self._log,
            repeats=self._repeats,
        )
        try:
            await self._current.wait_for(self._session.run(news))
        except ReplacedError as error:
            self._successor = error.successor  # run() closes it if we are to stop
            if not self._stopping:
                raise
        except SessionError:
            if not self._stopping:
                raise
        finally:
            self._let_in, self._silence = self._session.let_in, self._session.silence or 0.0
            self._session = None
        if self._renewal and not self._stopping:
            raise RenewedError(self._renewal)

    def _watch_over(self, name: str) -> NameWatch:
        """One for each name, over all sessions: what is learnt about a name is not forgotten."""
        return self._names.setdefault(name, NameWatch(name, log=self._log, sleep=self._timing.sleep))

    def _taken_over(self, relay: Relay, takeover: Takeover) -> None:
        self._marks.taken_over(relay, takeover)
        if takeover.note:
            self._say("info", "takeover", outcome=takeover.note)

    def _established(self) -> None:
        if self._stopping:
            return  # asked for while the relay's answer was under way; the session is about to be closed
        self._move(Event.ESTABLISHED)
        self._next_try = None
        self._sessions += 1
        self._say(
            "info",
            "session_established",
            relay=address_of(self._profile.relay),
            attempts=self._attempts,
            down_for=self._since - self._down_since,
        )

    def _hindered(self, error: SessionError, wait: float) -> None:
        """The session is there, and cannot be used yet."""
        self._failure = (error.failure, str(error), self._timing.clock())
        self._next_try = self._timing.clock() + wait
        self._say("warning", "forward_awaited", failure=error.failure.value, reason=str(error), retry_in=wait)
        self._moved()

    def _stable(self) -> None:
        hidden = self._repeats.forget()
        if hidden:
            self._log.info("session_stable", events_not_shown=hidden)

    # Between two sessions

    def _wait(self, attempt: RetryCallState) -> float:
        """Seconds until the next dial; tenacity asks."""
        error, now = _outcome(attempt), self._timing.clock()
        if self._renewal or isinstance(error, ReplacedError) or not isinstance(error, SessionError):
            return 0.0
        return self._backoff.wait(
            error.failure,
            lived=now - self._since if self._state is State.UP else 0.0 if self._let_in else None,
            spent=now - self._dialled,
            outage=self._outage(),
            now=now,
            chance=self._timing.chance(),
        )

    def _outage(self) -> float:
        """Seconds without a session, so far."""
        return 0.0 if self._state is State.UP else self._timing.clock() - self._down_since

    def _lost(self, attempt: RetryCallState) -> None:
        """The attempt or the session is over, and another will follow."""
        error, was_up, lived = _outcome(attempt), self._state is State.UP, self._timing.clock() - self._since
        self._move(Event.LOST)
        self._next_try = None
        if was_up:
            self._down_since = self._since - self._silence
        if not isinstance(error, SessionError):
            self._say("info", "session_renewed", reason=str(error))
            return
        self._failure = (error.failure, str(error), self._since)
        wait = attempt.next_action.sleep if attempt.next_action else 0.0
        self._say(
            "error" if error.failure in HUMAN else "warning",
            "session_lost" if was_up else "dial_failed",
            failure=error.failure.value,
            reason=str(error),
            retry_in=wait,
            **({"lived": lived} if was_up else {}),
        )

    async def _pause(self, seconds: float) -> None:
        """Wait for the next dial, unless something makes it worthwhile, or pointless, earlier."""
        self._next_try = self._timing.clock() + seconds
        try:
            if not (self._stopping or self._renewal):
                await self._current.wait_for(self._timing.sleep(seconds))
        finally:
            self._next_try = None
        if not self._stopping:
            self._move(Event.RETRY)
            self._log.debug("backoff_ended")

    # Moves

    def _move(self, event: Event) -> None:
        self._state = after(self._state, event)
        self._since = self._timing.clock()
        self._moved()

    def _drained(self) -> None:
        """The end of run(), whatever brought it."""
        if self._state not in {*ENDED, State.DRAINING}:
            self._move(Event.STOP)  # cancelled
        if self._state is State.DRAINING:
            self._move(Event.DRAINED)
            self._log.info("tunnel_stopped")

    def _crashed(self, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):  # of the tasks of a session
            error = error.exceptions[0]
        if self._state is State.BACKOFF:
            self._move(Event.RETRY)
        if self._state in {State.DIALING, State.UP}:
            self._move(Event.REFUSED)
        self._failure = (None, f"a fault in tunneld: {type(error).__name__}: {error}", self._timing.clock())

    # What is told

    def _say(self, level: str, event: str, **about: object) -> None:
        """Log a transition; one that repeats itself gets a line at growing intervals, with its count."""
        times = self._repeats.count((event, about.get("failure"), about.get("reason")))
        if times > 1:
            about["times"] = times
        getattr(self._log, level if times else "debug")(event, **about)

    def _last_failure(self, now: float) -> FailureStatus | None:
        if self._failure is None:
            return None
        failure, text, at = self._failure
        return FailureStatus(failure, text, now - at)


def _shim(profile: Profile, log: FilteringBoundLogger) -> Shim | None:
    if profile.mosh is None:
        return None
    from tunneld.shim.shim import Shim  # 1 MiB that a tunnel without mosh does without

    async def another() -> asyncssh.SSHClientConnection:
        return await dial(profile.relay, profile.keepalive)

    return Shim(profile.mosh, dial=another, keepalive=profile.keepalive, limits=profile.backoff, log=log)


def address_of(relay: Relay) -> str:
    """As ssh would be told: `user@host:port`, without what the profile leaves to ssh_config."""
    host = f"[{relay.host}]" if ":" in relay.host and relay.port else relay.host
    return (f"{relay.user}@" if relay.user else "") + host + (f":{relay.port}" if relay.port else "")


def _outcome(attempt: RetryCallState) -> BaseException | None:
    return attempt.outcome.exception() if attempt.outcome else None


def _same_session(before: Profile, now: Profile) -> bool:
    """Whether a session for the one serves the other, but for its forwards, or with mosh beside it."""
    mosh = before.mosh or now.mosh
    same = replace(before, forward=now.forward, mosh=mosh, backoff=now.backoff, canary=now.canary, file=now.file)
    return same == now
