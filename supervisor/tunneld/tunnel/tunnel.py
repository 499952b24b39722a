"""A tunnel: a profile's running form. Sessions one after the other, with a backoff between them, until it is stopped.

Its state, clocks and counters are core/supervise/timeline.py's; what is done stands here. What is retried is the
session, not only the dial: where a relay accepts a session and soon drops it, the tunnel waits longer each time. No
failure class is final: each can be mended from the relay's side or by a person at the host (a missing key file may be
put there), and a host behind NAT that gave up would be out of everybody's reach. FAILED is for a fault of our own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeGuard

import asyncssh
from structlog.contextvars import bound_contextvars
from structlog.typing import FilteringBoundLogger
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from tunneld import __version__
from tunneld.core.supervise.timeline import ENDED, Timeline
from tunneld.net.name_watch import NameWatch
from tunneld.profile import Profile, Relay
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.remote.takeover import Marks, Takeover
from tunneld.status.snapshot import FailureStatus, MoshStatus, TunnelStatus
from tunneld.tunnel.canary_rounds import CanaryRounds
from tunneld.tunnel.context import Level, TunnelContext
from tunneld.tunnel.forwards import waiting
from tunneld.tunnel.handover import Handover
from tunneld.tunnel.interruptible import Interruptible
from tunneld.tunnel.second_dial import SHORTEST_DIAL
from tunneld.tunnel.session import ReplacedError, Session, SessionEvents
from tunneld.tunnel.timing import Timing

if TYPE_CHECKING:
    from tunneld.shim.shim import Shim


class RenewedError(Exception):
    """Something changed that the present session cannot follow: dial a new session at once."""


class Tunnel:
    """Holds a tunnel to a profile's first relay."""

    def __init__(
        self,
        profile: Profile,
        *,
        log: FilteringBoundLogger,
        timing: Timing | None = None,
        marks: Marks | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            marks: what the relays know this process by; shared by the tunnels of one profile.
            changed: called after each change of state, and when the relay's answer is overdue or comes after all.
        """
        self.name = profile.name
        self._profile = profile
        self._context = TunnelContext(log.bind(tunnel=profile.name), profile.backoff, timing or Timing())
        self._timeline = Timeline(profile.backoff, self._now)
        self._changed = changed
        self._canary = CanaryRounds(profile.canary.interval, self._context)
        self._shim = self._shim_of(profile)
        self._marks = marks or Marks(self.name)
        self._names: dict[str, NameWatch] = {}
        self._handover = Handover()
        self._session: Session | None = None
        self._renewal = ""  # why the session that is under way is to give way to a new one
        self._current = Interruptible()  # the session or the backoff that run() is in

    async def run(self) -> None:
        """Until stopped. Cancelling is a stop as well.

        Raises:
            Exception: a fault of our own; the state is then FAILED.
        """
        if self._timeline.is_stopping:
            return
        with bound_contextvars(tunnel=self.name):
            self._timeline.start(self._now)
            self._changed()
            self._context.log.info("tunnel_started", relay=address_of(self._profile.relay))
            try:
                await AsyncRetrying(
                    retry=retry_if_exception_type((SessionError, RenewedError)),
                    wait=self._lost,
                    sleep=self._back_off,
                    reraise=True,
                )(self._attempt)
            except Exception as error:
                self._crashed(error)
                raise
            finally:
                self._handover.drop()
                if self._timeline.drained(self._now):
                    self._context.log.info("tunnel_stopped")
                self._changed()

    def stop(self) -> None:
        """Close the forwards, leave the relay, and have run() return."""
        if self._timeline.stop(self._now):
            self._changed()
            self._context.log.info("stop_requested")
            self._current.interrupt()

    async def apply(self, profile: Profile, *, event: str = "profile_applied") -> None:
        """Follow a changed profile.

        Changed forwards are closed and opened, mosh may come, and another backoff or canary interval counts from now
        on, all in the session that there is. Any other change takes a new session. `event` is what is logged.
        """
        before = self._profile
        if profile == before or self._timeline.is_stopping:
            return
        self._adopt(profile)
        session = self._session
        if self._can_change(session) and _same_session(before, profile):
            self._context.log.info(event, session="kept")
            session.accompany(None if self._shim is None else self._shim.run)
            await session.change(profile.forward)
        elif self._timeline.state not in ENDED:
            self._context.log.info(event, session="renewed")
            self._renew("the profile changed")

    def nudge(self) -> None:
        """This machine's network has changed, or it has slept: act at once, where an attempt costs nothing."""
        if self._timeline.network_changed():
            self._current.interrupt()
        elif self._session is not None and not self._session.nudge() and self._is_dialling_long():
            self._renew("the network changed")

    @property
    def peer(self) -> str:
        """The address to which this machine is connected for our session; empty without one."""
        return self._session.peer if self._session else ""

    def status(self) -> TunnelStatus:
        """The tunnel as it is now."""
        now, timeline, session = self._now, self._timeline, self._session
        since, failure, next_try = now - timeline.since, timeline.failure, timeline.next_try
        return TunnelStatus(
            name=self.name,
            state=timeline.state,
            since=since,
            relay=address_of(self._profile.relay),
            running=now - timeline.started,
            uptime=since if timeline.is_up else 0.0,
            attempts=timeline.attempts,
            sessions=timeline.sessions,
            failure=None if failure is None else FailureStatus(failure.failure, failure.text, now - failure.at),
            next_try_in=None if next_try is None else max(0.0, next_try - now),
            forwards=session.forwards() if session else tuple(map(waiting, self._profile.forward)),
            rtt=session.rtt if session else None,
            silence=session.silence if session else None,
            mosh=self._shim.status() if self._shim else MoshStatus("off"),
            pid=os.getpid(),
            version=__version__,
        )

    @property
    def _now(self) -> float:
        return self._context.timing.clock()

    def _is_dialling_long(self) -> bool:
        return self._timeline.dialling_for(self._now) >= SHORTEST_DIAL

    def _can_change(self, session: Session | None) -> TypeGuard[Session]:
        """Whether there is a session that answers. With any other session a change would wait for the relay."""
        return self._timeline.is_up and session is not None and session.silence is None

    def _adopt(self, profile: Profile) -> None:
        before = self._profile
        if (before.mosh, before.relay, before.keepalive) != (profile.mosh, profile.relay, profile.keepalive):
            self._shim = self._shim_of(profile)
        elif self._shim is not None:
            self._shim.limits = profile.backoff
        self._profile = profile
        self._context = replace(self._context, limits=profile.backoff)
        self._timeline.adopt(profile.backoff)
        self._canary.adopt(profile.canary.interval)

    def _renew(self, reason: str) -> None:
        self._renewal = reason
        self._current.interrupt()

    # One session

    async def _attempt(self) -> None:
        """Returns when the tunnel is to stop. Every other end raises, so that tenacity tries again."""
        if self._timeline.is_stopping:
            return
        if self._renewal:
            self._handover.drop()  # it was dialled as things were before
        self._renewal = ""
        self._timeline.attempt(self._now)
        self._session = session = self._new_session()
        try:
            await self._current.wait_for(session.run(self._events(), outage=self._timeline.outage(self._now)))
        except SessionError:
            if not self._timeline.is_stopping:
                raise
        finally:
            self._timeline.attempt_ended(logged_in=session.logged_in, silence=session.silence or 0.0)
            self._session = None
        if self._renewal and not self._timeline.is_stopping:
            raise RenewedError(self._renewal)

    def _new_session(self) -> Session:
        return Session(
            self._profile,
            self._context,
            mark=self._marks.of(self._profile.relay),
            companion=None if self._shim is None else self._shim.run,
            canary=self._canary,
            handover=self._handover,
            names=self._watch_over,
        )

    def _events(self) -> SessionEvents:
        return SessionEvents(
            taken_over=partial(self._taken_over, self._profile.relay),
            forward_awaited=self._forward_awaited,
            established=self._established,
            doubted=self._changed,
            stable=self._stable,
        )

    def _watch_over(self, name: str) -> NameWatch:
        """One watch for each name, over all sessions: what is learnt about a name is not forgotten."""
        context = self._context
        return self._names.setdefault(name, NameWatch(name, log=context.log, sleep=context.timing.sleep))

    def _taken_over(self, relay: Relay, takeover: Takeover) -> None:
        self._marks.taken_over(relay, takeover)
        if takeover.note:
            self._tell("info", "takeover", outcome=takeover.note)

    def _forward_awaited(self, error: SessionError, wait: float) -> None:
        """The relay has let us in, and a port that the session needs is taken."""
        failure, reason = error.failure, str(error)
        self._timeline.forward_awaited(failure, reason, wait=wait, now=self._now)
        self._tell("warning", "forward_awaited", failure=failure.value, reason=reason, retry_in=wait)
        self._changed()

    def _established(self) -> None:
        if self._timeline.is_stopping:
            return  # a stop was asked for while the relay's answer was on its way; the session is about to be closed
        down_for = self._timeline.established(self._now)
        self._changed()
        relay, attempts = address_of(self._profile.relay), self._timeline.attempts
        self._tell("info", "session_established", relay=relay, attempts=attempts, down_for=down_for)

    def _stable(self) -> None:
        hidden = self._context.repeats.forget()
        if hidden:
            self._context.log.info("session_stable", events_not_shown=hidden)

    # Between two sessions

    def _lost(self, attempt: RetryCallState) -> float:
        """The attempt or the session is over, and another will follow. Returns the seconds to wait; tenacity asks."""
        error = attempt.outcome.exception() if attempt.outcome else None
        if isinstance(error, SessionError):
            wait = self._failed(error)
        else:
            wait = 0.0
            self._timeline.renewed(self._now)
            self._tell("info", "session_renewed", reason=str(error))
        self._changed()
        return wait

    def _failed(self, error: SessionError) -> float:
        timeline, now, failure, reason = self._timeline, self._now, error.failure, str(error)
        was_up, lived = timeline.is_up, now - timeline.since
        at_once = bool(self._renewal) or isinstance(error, ReplacedError)
        wait = timeline.lost(failure, reason, now=now, chance=self._context.timing.chance(), at_once=at_once)
        level: Level = "error" if failure.rule.needs_person else "warning"
        about = {"failure": failure.value, "reason": reason, "retry_in": wait}
        if was_up:
            self._tell(level, "session_lost", **about, lived=lived)
        else:
            self._tell(level, "dial_failed", **about)
        return wait

    async def _back_off(self, seconds: float) -> None:
        """Wait for the next dial, unless something makes the dial worthwhile, or pointless, earlier."""
        self._timeline.backs_off(seconds, self._now)
        if not (self._timeline.is_stopping or self._renewal):
            await self._current.wait_for(self._context.timing.sleep(seconds))
        if not self._timeline.is_stopping:
            self._timeline.backoff_ended(self._now)
            self._changed()
            self._context.log.debug("backoff_ended")

    def _crashed(self, error: Exception) -> None:
        while isinstance(error, ExceptionGroup):  # of the tasks of a session
            error = error.exceptions[0]
        self._timeline.crashed(f"a fault in tunneld: {type(error).__name__}: {error}", self._now)

    def _tell(self, level: Level, event: str, **about: object) -> None:
        key = (event, about.get("failure"), about.get("reason"))
        self._context.tell(level, event, key=key, **about)

    def _shim_of(self, profile: Profile) -> Shim | None:
        if profile.mosh is None:
            return None
        from tunneld.shim.shim import Shim  # 1 MiB that a tunnel without mosh does without

        async def another() -> asyncssh.SSHClientConnection:
            return await dial(profile.relay, profile.keepalive)

        return Shim(
            profile.mosh, dial=another, keepalive=profile.keepalive, limits=profile.backoff, log=self._context.log
        )


def address_of(relay: Relay) -> str:
    """As ssh would be told: `user@host:port`, without what the profile leaves to ssh_config."""
    host = f"[{relay.host}]" if ":" in relay.host and relay.port else relay.host
    return (f"{relay.user}@" if relay.user else "") + host + (f":{relay.port}" if relay.port else "")


def _same_session(before: Profile, now: Profile) -> bool:
    """Whether a session that was made for `before` can follow `now`: see Tunnel.apply."""
    mosh = before.mosh or now.mosh
    same = replace(before, forward=now.forward, mosh=mosh, backoff=now.backoff, canary=now.canary, file=now.file)
    return same == now
