"""A profile's tunnels under one name, each to one of its relays: one that serves and its stand-ins, or all at once.

A group has the methods of a single tunnel, so nobody else asks how many tunnels there are. With `mode = "failover"` one
tunnel serves. A tunnel that is dialled beside it opens the forwards that listen on its own relay, so that it is ready
when it is needed. Forwards that listen on this host, and mosh, belong to the tunnel that serves.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from structlog.typing import FilteringBoundLogger

from tunneld import __version__
from tunneld.core.supervise.failover import Failover
from tunneld.core.supervise.lifecycle import State
from tunneld.core.supervise.timeline import ENDED
from tunneld.profile import Direction, Mode, Profile, Relay
from tunneld.ssh.remote.takeover import Marks
from tunneld.status.snapshot import TunnelStatus
from tunneld.tunnel.forwards import waiting
from tunneld.tunnel.interruptible import Interruptible
from tunneld.tunnel.timing import Timing
from tunneld.tunnel.tunnel import Tunnel, address_of

# The state of a group is the first of these that one of its tunnels is in: people who come by the relay that is up do
# not miss the others.
STATE_ORDER = (State.UP, State.DIALING, State.BACKOFF, State.DRAINING, State.IDLE, State.FAILED, State.STOPPED)

# Seconds between two looks at relays that have not changed.
LOOK_INTERVAL = 3600.0

Make = Callable[[Profile, FilteringBoundLogger, Marks, Callable[[], None]], Tunnel]


def _make(profile: Profile, log: FilteringBoundLogger, marks: Marks, changed: Callable[[], None]) -> Tunnel:
    return Tunnel(profile, log=log, marks=marks, changed=changed)


class RelayGroup:
    """Holds the tunnels of one profile."""

    def __init__(
        self,
        profile: Profile,
        *,
        log: FilteringBoundLogger,
        changed: Callable[[], None] = lambda: None,
        make: Make = _make,
        timing: Timing | None = None,
    ) -> None:
        """`changed` is called after each change of a tunnel's state; `make` makes a tunnel."""
        self.name = profile.name
        self._log = log
        self._changed = changed
        self._make = make
        self._timing = timing or Timing()
        self._marks = Marks(self.name)
        self._profile = profile
        self._failover = _failover(profile)
        self._state, self._since = State.IDLE, self._timing.clock()
        self._stopping = False
        self._look_again = False
        self._pause = Interruptible()
        self._turn = asyncio.Lock()  # a reload and a look never change the tunnels at the same time
        self._tasks: dict[Tunnel, asyncio.Task[None]] = {}
        self._tunnels = {relay: self._tunnel(part) for relay, part in self._wanted().items()}

    async def run(self) -> None:
        """Until every tunnel has ended, by a stop or by a fault. A fault is logged, and ends no other tunnel."""
        if self._stopping:
            return
        async with asyncio.TaskGroup() as self._group:
            for tunnel in self._tunnels.values():
                self._start(tunnel)
            while not (self._stopping or self._has_failed()):
                self._look_again = False
                await self._look("role_changed")
                if not self._look_again:
                    await self._pause.wait_for(self._timing.sleep(self._seconds_to_next_look()))

    def stop(self) -> None:
        """Stop every tunnel, and have run() return."""
        self._stopping = True
        for tunnel in (*self._tunnels.values(), *self._tasks):
            tunnel.stop()
        self._wake()

    async def apply(self, profile: Profile) -> None:
        """Follow a changed profile. Sessions with relays that were in the old profile as well go on."""
        if self._stopping:
            return
        async with self._turn:
            before, self._profile = self._profile, profile
            if len(before.relays) == len(profile.relays) == 1:  # the only tunnel follows to another relay by itself
                self._tunnels = {profile.relay: self._tunnels[before.relay]}
            if (before.relays, before.mode, before.backoff) != (profile.relays, profile.mode, profile.backoff):
                self._failover = _failover(profile)
            self._tunnels = {key: each for key, each in self._tunnels.items() if each.status().state not in ENDED}
        await self._look("profile_applied")
        self._wake()

    def nudge(self) -> None:
        """This machine's network has changed, or it has slept: act at once."""
        for tunnel in self._tunnels.values():
            tunnel.nudge()

    @property
    def peers(self) -> list[str]:
        """The addresses to which this machine is connected for our sessions."""
        return [tunnel.peer for tunnel in self._tunnels.values() if tunnel.peer]

    def status(self) -> TunnelStatus:
        """The profile's tunnel as it is now: of one relay, or of several under one name."""
        parts = tuple(map(self._status_of, self._profile.relays))
        if len(parts) == 1:
            return parts[0]
        if self._failover is None:
            return together(self.name, parts, state=self._state, since=self._timing.clock() - self._since)
        parts = tuple(map(self._with_return, range(len(parts)), parts))
        return replace(parts[self._failover.serving], mode=Mode.FAILOVER.value, relays=parts)

    def _with_return(self, place: int, status: TunnelStatus) -> TunnelStatus:
        """The status with the time until this relay serves again, if it is about to."""
        due = self._failover.returns_at(place) if self._failover else None
        return status if due is None else replace(status, serves_in=max(0.0, due - self._timing.clock()))

    # Who is needed

    def _wanted(self) -> dict[Relay, Profile]:
        """The relays to which there is to be a tunnel, each with the part of the profile that its tunnel holds."""
        relays, failover = self._profile.relays, self._failover
        if failover is None:
            return {relay: self._profile.through(relay) for relay in relays}
        dialled = enumerate(relays[: failover.last + 1])
        return {relay: part(self._profile, relay, serves=place == failover.serving) for place, relay in dialled}

    async def _look(self, event: str) -> None:
        """See how the tunnels are, and have those that are needed. A tunnel that has to change logs it as `event`."""
        async with self._turn:
            if self._failover is not None:
                self._decide(self._failover)
            if not self._stopping:
                await self._hold(self._wanted(), event)

    def _decide(self, failover: Failover) -> None:
        before = failover.serving
        healthy = [self._is_healthy(relay) for relay in self._profile.relays]
        failover.look(healthy, self._timing.clock(), self._timing.chance())
        if failover.serving != before:
            old, new = (address_of(self._profile.relays[place]) for place in (before, failover.serving))
            self._log.info("relay_changed", tunnel=self.name, relay=new, instead_of=old)

    async def _hold(self, wanted: dict[Relay, Profile], event: str) -> None:
        """Have these tunnels. Those that give listeners on this host back go first, since others may want them."""
        gone = [self._tunnels.pop(relay) for relay in self._tunnels.keys() - wanted.keys()]
        for tunnel in gone:
            tunnel.stop()
        if leaving := [self._tasks[tunnel] for tunnel in gone if tunnel in self._tasks]:
            await asyncio.wait(leaving)
        for relay in sorted(self._tunnels, key=lambda each: _weight(wanted[each])):
            await self._tunnels[relay].apply(wanted[relay], event=event)
        if self._stopping:
            return  # a stop has overtaken the reload; run() may have returned, and would not wait for another tunnel
        for relay in [each for each in wanted if each not in self._tunnels]:
            self._tunnels[relay] = self._tunnel(wanted[relay])
            self._start(self._tunnels[relay])

    def _is_healthy(self, relay: Relay) -> bool:
        status = self._tunnels[relay].status() if relay in self._tunnels else None
        return status is not None and status.state is State.UP and status.silence is None

    def _seconds_to_next_look(self) -> float:
        deadline = None if self._failover is None else self._failover.deadline
        return LOOK_INTERVAL if deadline is None else max(0.0, deadline - self._timing.clock())

    # The tunnels

    def _tunnel(self, part: Profile) -> Tunnel:
        alone = len(self._profile.relays) == 1
        log = self._log if alone else self._log.bind(relay=address_of(part.relay))
        return self._make(part, log, self._marks, self._one_changed)

    def _start(self, tunnel: Tunnel) -> None:
        self._tasks[tunnel] = self._group.create_task(self._run(tunnel))

    async def _run(self, tunnel: Tunnel) -> None:
        try:
            await tunnel.run()
        except Exception:  # the barrier between tunnels: the fault is logged, and the others go on
            self._log.exception("tunnel_failed", tunnel=self.name)
        finally:
            del self._tasks[tunnel]
            self._wake()

    def _has_failed(self) -> bool:
        return all(self._status_of(relay).state is State.FAILED for relay in self._profile.relays)

    def _one_changed(self) -> None:
        state = state_of(map(self._status_of, self._profile.relays))
        if state is not self._state:
            self._state, self._since = state, self._timing.clock()
        self._wake()
        self._changed()

    def _wake(self) -> None:
        """Have run() look again."""
        self._look_again = True
        self._pause.interrupt()

    def _status_of(self, relay: Relay) -> TunnelStatus:
        if relay in self._tunnels:
            return self._tunnels[relay].status()
        forwards = tuple(map(waiting, self._profile.forward))
        return TunnelStatus(
            self.name, State.IDLE, self._timing.clock() - self._since, address_of(relay), forwards=forwards
        )


def part(profile: Profile, relay: Relay, *, serves: bool) -> Profile:
    """The part of the profile that the tunnel to this relay holds: all of it, or only what listens on the relay."""
    whole = profile.through(relay)
    if serves:
        return whole
    there = tuple(forward for forward in whole.forward if forward.direction is Direction.REMOTE)
    return replace(whole, forward=there, mosh=None)


def state_of(tunnels: Iterable[TunnelStatus]) -> State:
    """The state of these tunnels as a group."""
    return min((each.state for each in tunnels), key=STATE_ORDER.index)


def together(name: str, tunnels: tuple[TunnelStatus, ...], *, state: State, since: float) -> TunnelStatus:
    """One status for tunnels of which each is enough; `since` is how long they have been in `state`, in seconds."""
    failures = [each.failure for each in tunnels if each.failure is not None]
    tries = [each.next_try_in for each in tunnels if each.next_try_in is not None]
    return TunnelStatus(
        name=name,
        state=state,
        since=since,
        relay=", ".join(each.relay for each in tunnels),
        running=max(each.running for each in tunnels),
        uptime=since if state is State.UP else 0.0,
        attempts=sum(each.attempts for each in tunnels),
        sessions=sum(each.sessions for each in tunnels),
        failure=min(failures, key=lambda each: each.ago, default=None),
        next_try_in=min(tries, default=None) if state is State.BACKOFF else None,
        mode=Mode.ALL.value,
        relays=tunnels,
        pid=os.getpid(),
        version=__version__,
    )


def _failover(profile: Profile) -> Failover | None:
    """None for a profile that holds all of its relays anyway."""
    several = profile.mode is Mode.FAILOVER and len(profile.relays) > 1
    return Failover(len(profile.relays), profile.backoff.return_after) if several else None


def _weight(part: Profile) -> int:
    return len(part.forward) + (part.mosh is not None)
