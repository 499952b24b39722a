"""The forwards of one session. It counts as up when all required ones listen; refused ones are asked for again.

A required forward that the relay forbids ends the session (OpenSSH's ExitOnForwardFailure); an optional one does not.
A forward whose port is taken is asked for again on the living connection, which costs the relay one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import asyncssh

from tunneld.core.supervise.backoff import Backoff
from tunneld.core.supervise.canary import Finding
from tunneld.core.supervise.failures import Failure
from tunneld.profile import Direction, Forward
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.forward import open_forward
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.remote.takeover import Takeover
from tunneld.status.snapshot import CanaryStatus, FailureStatus, ForwardStatus
from tunneld.tunnel.context import TunnelContext
from tunneld.tunnel.interruptible import Interruptible

# Seconds before each new request for a port whose stale session has just been ended. sshd needs some 10 ms to free it.
FREEING_PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)

# Seconds until an optional forward is asked for again in that case. Nobody waits for it.
FREED_PAUSE = 0.1

# A forward may be asked for so many seconds too early: sums of floats are no more exact.
DUE_TOLERANCE = 0.001

# Seconds between two requests for a port that stays taken, at most: a request costs the relay a packet, and people who
# wait for the port are locked out.
LONGEST_BUSY_WAIT = 10.0


@dataclass(slots=True)
class HeldForward:
    """One forward that this session holds, or tries to. Times are those of the timing's clock."""

    forward: Forward
    backoff: Backoff
    open: OpenForward | None = None  # while it listens
    refusal: SessionError | None = None  # the last one
    refused_at: float = 0
    due: float = 0  # when to ask for it again, after a refusal


class Forwards:
    """Opens, changes and closes the forwards of one connection."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        wanted: Iterable[Forward],
        context: TunnelContext,
        *,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        """`opened` is called when one more forward listens."""
        self._connection = connection
        self._context = context
        self._timing = context.timing
        self._opened = opened
        self._held = [self._hold(each) for each in wanted]
        self._takeover: Takeover | None = None
        self._refused = asyncio.Event()  # set by each refusal: there is a forward to ask for again
        self._pause = Interruptible()  # the wait until a forward is asked for again
        self._turn = asyncio.Lock()  # a reload and a retry never touch one forward at the same time

    @property
    def answered(self) -> bool:
        """Whether the relay has answered a request of this session: an open remote forward proves it."""
        return any(held.open is not None and held.forward.direction is Direction.REMOTE for held in self._held)

    async def open(self, takeover: Awaitable[Takeover], awaited: Callable[[SessionError, float], None]) -> None:
        """Open every forward, side by side; return when all required ones listen.

        Args:
            takeover: awaited where a port is taken, since it may end what holds the port: our own stale session.
            awaited: called when a port stays taken, with the refusal and the seconds until it is asked for again.

        Raises:
            SessionError: a required forward cannot be had.
        """
        async with self._turn:
            await self._open_all(self._held, wait=True)
        if not self._missing():
            return
        self._takeover = await takeover
        for pause in FREEING_PAUSES if self._takeover.ended else FREEING_PAUSES[:1]:
            if missing := self._missing():
                await asyncio.sleep(pause)
                await self._ask_again(missing)
        while missing := self._missing():
            first = min(missing, key=lambda each: each.due)
            assert first.refusal is not None
            wait = max(0.0, first.due - self._timing.clock())
            awaited(first.refusal, wait)
            await self._timing.sleep(wait)
            await self._ask_again([first])

    def taken_over(self, takeover: Takeover) -> None:
        """It is known who holds which port. If a stale session of ours has been ended, its ports will soon be free."""
        self._takeover = takeover
        if takeover.ended:
            for held in self._held:
                held.due = min(held.due, self._timing.clock() + FREED_PAUSE)
            self._pause.interrupt()

    async def change(self, wanted: Iterable[Forward]) -> None:
        """Close the forwards that are no longer wanted, and open the new ones. The others and their connections go on.

        Raises:
            SessionError: a new required forward was refused, so the session lacks what the profile asks for.
        """
        wanted = tuple(wanted)
        async with self._turn:
            kept = {held.forward: held for held in self._held if held.forward in wanted}
            gone = [held for held in self._held if held.forward not in kept]
            self._held = [kept.get(each) or self._hold(each) for each in wanted]
            await _close_all(gone)  # first, so that a changed forward finds its port free
            await self._open_all([held for held in self._held if held.forward not in kept])

    def _missing(self) -> list[HeldForward]:
        return [held for held in self._held if held.forward.required and held.open is None]

    async def _ask_again(self, wanted: Sequence[HeldForward]) -> None:
        async with self._turn:
            await self._open_all([held for held in wanted if held in self._held and held.open is None], wait=True)

    async def retry(self) -> None:
        """Ask again for forwards that were refused, for as long as the session lives."""
        while True:
            self._refused.clear()
            waiting = [held for held in self._held if held.open is None]
            if not waiting:
                await self._refused.wait()
                continue
            held = min(waiting, key=lambda each: each.due)
            await self._pause.wait_for(self._timing.sleep(max(0.0, held.due - self._timing.clock())))
            async with self._turn:
                if held in self._held and held.open is None and held.due - self._timing.clock() < DUE_TOLERANCE:
                    await self._open(held)

    def _hold(self, forward: Forward) -> HeldForward:
        limits = self._context.limits
        return HeldForward(forward, Backoff(replace(limits, maximum=min(limits.maximum, LONGEST_BUSY_WAIT))))

    async def close(self) -> None:
        """Close every forward; the ports are free afterwards."""
        await _close_all(self._held)

    def status(self) -> tuple[ForwardStatus, ...]:
        """Each forward as it is now."""
        return tuple(forward_status(held, self._timing.clock()) for held in self._held)

    def listening(self) -> list[OpenForward]:
        """The forwards that are open."""
        return [held.open for held in self._held if held.open is not None]

    async def _open_all(self, wanted: Sequence[HeldForward], *, wait: bool = False) -> None:
        """Open these forwards, side by side.

        Raises:
            SessionError: a required one was refused. With `wait`, a port that is taken counts as not refused yet.
        """
        async with asyncio.TaskGroup() as opening:
            for held in wanted:
                opening.create_task(self._open(held))
        for held in wanted:
            refusal = held.refusal if held.forward.required and held.open is None else None
            if refusal is not None and not (wait and refusal.failure is Failure.FORWARD_BUSY):
                raise refusal

    async def _open(self, held: HeldForward) -> None:
        try:
            held.open = await open_forward(self._connection, held.forward, self._context.log)
        except SessionError as error:
            self._note(held, error)
        else:
            # The event of the session covers its forwards; a forward that was refused before is news.
            log = self._context.log
            say = log.info if held.refusal else log.debug
            say("forward_opened", listen=str(held.open.listening), to=_target(held.forward))
            held.refusal = None
            self._opened()

    def _note(self, held: HeldForward, error: SessionError) -> None:
        now, chance = self._timing.clock(), self._timing.chance()
        wait = held.backoff.wait(error.failure, lived=None, spent=0, outage=0, now=now, chance=chance)
        if error.failure is Failure.FORWARD_BUSY and held.forward.direction is Direction.REMOTE:
            error = SessionError(error.failure, self._with_holder(held.forward, error))
        held.refusal, held.refused_at, held.due = error, now, now + wait
        self._refused.set()
        if held.forward.required:
            return  # the tunnel says so itself
        key, listen, reason = (held.forward, str(error)), str(held.forward.listen), str(error)
        self._context.tell("warning", "forward_refused", key=key, listen=listen, reason=reason, retry_in=wait)

    def _with_holder(self, forward: Forward, error: SessionError) -> str:
        """The refusal's text, with who holds the port, and why that is not ended although it may be ours."""
        if self._takeover is None:
            return str(error)
        holder = self._takeover.held_by.get(str(forward.listen))
        why_not_ours = "" if self._takeover.ended else self._takeover.note
        return "".join([str(error), f", by {holder}" if holder else "", f"; {why_not_ours}" if why_not_ours else ""])


async def _close_all(gone: Iterable[HeldForward]) -> None:
    async with asyncio.TaskGroup() as closing:
        for held in gone:
            if held.open is not None:
                closing.create_task(held.open.close())
                held.open = None


def _target(forward: Forward) -> str | None:
    return None if forward.to is None else str(forward.to)


def waiting(forward: Forward) -> ForwardStatus:
    """The status of a forward that no session holds."""
    return ForwardStatus(
        direction=forward.direction.value, listen=str(forward.listen), to=_target(forward), required=forward.required
    )


def forward_status(held: HeldForward, now: float) -> ForwardStatus:
    """The status of a forward that a session holds, at `now`."""
    forward, opened, refusal = held.forward, held.open, held.refusal
    failure = None if refusal is None else FailureStatus(refusal.failure, str(refusal), now - held.refused_at)
    return ForwardStatus(
        direction=forward.direction.value,
        listen=str(forward.listen),
        to=_target(forward),
        required=forward.required,
        state="listening" if opened else "refused" if refusal else "waiting",
        listening=str(opened.listening) if opened else "",
        connections=opened.connections if opened else 0,
        total=opened.total if opened else 0,
        failure=failure,
        next_try_in=max(0.0, held.due - now) if refusal and not opened else None,
        target=opened.target_error if opened else None,
        canary=_canary(opened.finding, now) if opened and opened.finding else None,
    )


def _canary(finding: Finding, now: float) -> CanaryStatus:
    return CanaryStatus(finding.verdict.value, finding.text, finding.rtt, now - finding.at)
