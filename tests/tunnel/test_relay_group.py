"""One tunnel or several under one name, with tunnels that do as the test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.tunnel.supervised import forward, profile_of
from tests.virtual import Journal, VirtualTime
from tunneld.core.supervise.failover import HEAD_START as DRAWN
from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State
from tunneld.profile import Direction, Mode, Mosh, PortRange, Profile, Relay
from tunneld.status.snapshot import FailureStatus, TunnelStatus
from tunneld.tunnel.relay_group import STATE_ORDER, RelayGroup, part
from tunneld.tunnel.timing import Timing
from tunneld.tunnel.tunnel import Tunnel, address_of

HEAD_START = DRAWN[0]
FIRST, SECOND, THIRD = Relay("first"), Relay("second"), Relay("third")
ALL = profile_of(FIRST, forward(2222), others=(SECOND,), mode=Mode.ALL)
FAILOVER = replace(ALL, mode=Mode.FAILOVER)


class Played:
    """A tunnel that runs until it is stopped or crashed, and is in the state that the test wants."""

    def __init__(self, profile: Profile, changed: Callable[[], None]) -> None:
        self.name = profile.name
        self.profiles = [profile]
        self.says = TunnelStatus(profile.name, State.IDLE, 0, address_of(profile.relay))
        self.nudges = 0
        self.peer = ""
        self.applied: Callable[[Played], object] = lambda _: None
        self.slow = self.started = False
        self._changed = changed
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def moves(self, state: State, **about: Any) -> None:
        self.says = replace(self.says, state=state, **about)
        self._changed()

    async def run(self) -> None:
        self.started = True
        try:
            await self._over
        except RuntimeError:
            self.moves(State.FAILED)
            raise
        self.moves(State.STOPPED)

    def crash(self) -> None:
        self._over.set_exception(RuntimeError("a bug"))

    def stop(self) -> None:
        if not self._over.done() and not self.slow:
            self._over.set_result(None)

    async def apply(self, profile: Profile, *, event: str) -> None:
        if profile != self.profiles[-1]:
            self.profiles.append(profile)
            self.applied(self)

    def nudge(self) -> None:
        self.nudges += 1

    def status(self) -> TunnelStatus:
        return self.says


class Stage:
    """A group that runs, and the tunnels that it has made, each by its relay's name."""

    def __init__(self, profile: Profile) -> None:
        self.journal, self.time, self.moves = Journal(), VirtualTime(), 0
        self.played: dict[str, Played] = {}
        self.made: list[str] = []
        self.group = RelayGroup(
            profile,
            log=self.journal.log,
            changed=self._changed,
            make=self._make,
            timing=Timing(self.time.clock, self.time.sleep, lambda: 0.0),
        )

    def _make(self, profile: Profile, log: object, marks: object, changed: Callable[[], None]) -> Tunnel:
        name = profile.relay.host
        self.made.append(name)
        self.played[name] = Played(profile, changed)
        return cast(Tunnel, self.played[name])

    def _changed(self) -> None:
        self.moves += 1


@contextlib.asynccontextmanager
async def running(profile: Profile) -> AsyncIterator[Stage]:
    """Everything is stopped afterwards, and run() returns."""
    stage = Stage(profile)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.group.run())
        await asyncio.sleep(0)
        try:
            yield stage
        finally:
            for each in stage.played.values():
                each.slow = False
            stage.group.stop()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_tunnel_is_itself() -> None:
    """A group of one has its tunnel's status, also after a reload with another relay."""
    alone = profile_of(FIRST, forward(2222))
    async with running(alone) as stage:
        first = stage.played["first"]
        first.moves(State.UP)
        assert stage.group.status() == first.says
        stage.group.nudge()
        assert first.nudges == 1
        await stage.group.apply(replace(alone, relays=(SECOND,)))
        assert stage.made == ["first"]
        assert first.profiles[-1].relays == (SECOND,)


async def test_all_at_once_is_a_tunnel_for_each_relay() -> None:
    """Each holds the whole profile, for its own relay."""
    async with running(ALL) as stage:
        assert stage.made == ["first", "second"]
        assert [each.profiles for each in stage.played.values()] == [[ALL.through(FIRST)], [ALL.through(SECOND)]]
        stage.group.nudge()
        assert [each.nudges for each in stage.played.values()] == [1, 1]


async def test_one_relay_that_is_up_is_enough() -> None:
    """The group's status has the time since when, the sums of attempts and sessions, and the latest fault."""
    async with running(ALL) as stage:
        first, second = stage.played.values()
        first.moves(State.UP, attempts=1, sessions=1, running=9.0)
        stage.time.advance(5)
        fault = FailureStatus(Failure.NETWORK, "timed out", 1)
        second.moves(State.BACKOFF, attempts=3, failure=fault, next_try_in=2.0)
        status = stage.group.status()
        assert (status.name, status.state, status.since, status.uptime) == ("pi", State.UP, 5, 5)
        assert (status.relay, status.attempts, status.sessions, status.running) == ("first, second", 4, 1, 9)
        assert (status.failure, status.next_try_in, status.relays) == (fault, None, (first.says, second.says))
        assert stage.moves == 2


async def test_all_that_are_down_are_down() -> None:
    """The next try is the soonest of all, and the group is down since the last tunnel went down."""
    async with running(ALL) as stage:
        first, second = stage.played.values()
        first.moves(State.UP)
        second.moves(State.BACKOFF, next_try_in=7.0)
        stage.time.advance(5)
        first.moves(State.BACKOFF, next_try_in=9.0)
        stage.time.advance(2)
        status = stage.group.status()
        assert (status.state, status.since, status.uptime, status.next_try_in) == (State.BACKOFF, 2, 0, 7)


def test_every_state_has_its_place() -> None:
    """A new state without one would end the status."""
    assert set(STATE_ORDER) == set(State)


async def test_a_crash_is_the_tunnels_own() -> None:
    """The fault is logged, the other tunnels go on, and a reload makes a new one."""
    async with running(ALL) as stage:
        stage.played["second"].moves(State.UP)
        stage.played["first"].crash()
        await stage.journal.says("tunnel_failed")
        assert stage.group.status().state is State.UP
        await stage.group.apply(replace(ALL, forward=()))
        assert stage.made == ["first", "second", "first"]
        assert stage.played["second"].profiles[-1].forward == ()


async def test_a_crash_of_all_is_the_end() -> None:
    """run() returns, so that whoever watches the process starts it again."""
    stage = Stage(ALL)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.group.run())
        await asyncio.sleep(0)
        for each in stage.played.values():
            each.crash()
    assert stage.group.status().state is State.FAILED


async def test_a_relay_that_comes_leaves_the_others_alone() -> None:
    """So does a relay that goes."""
    async with running(ALL) as stage:
        await stage.group.apply(replace(ALL, relays=(SECOND, THIRD)))
        await turns()
        assert stage.made == ["first", "second", "third"]
        assert stage.played["first"].says.state is State.STOPPED
        assert stage.played["second"].profiles == [ALL.through(SECOND)]
        assert [each.relay for each in stage.group.status().relays] == ["second", "third"]


async def test_what_goes_gives_its_ports_back_before_others_come() -> None:
    """Only one tunnel can have a listener on this host."""
    async with running(ALL) as stage:
        first = stage.played["first"]
        first.slow = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.group.apply(replace(ALL, relays=(SECOND, THIRD))))
            await turns()
            assert stage.made == ["first", "second"]
            first.slow = False
            first.stop()
        await turns()
        assert stage.played["third"].started


async def test_a_stop_overtakes_a_reload_that_waits() -> None:
    """No tunnel is made any more: nobody would stop it, and run() has returned."""
    async with running(ALL) as stage:
        first = stage.played["first"]
        first.slow = True
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.group.apply(replace(ALL, relays=(SECOND, THIRD))))
            await turns()
            stage.group.stop()
            first.slow = False
            first.stop()
        await turns()
        assert stage.made == ["first", "second"]


async def test_the_mode_may_change() -> None:
    """The tunnel to the relay that both modes use goes on."""
    async with running(ALL) as stage:
        first, second = stage.played.values()
        first.moves(State.UP)
        await stage.group.apply(FAILOVER)
        await turns()
        assert (first.says.state, second.says.state) == (State.UP, State.STOPPED)
        await stage.group.apply(ALL)
        assert stage.made == ["first", "second", "second"]
        assert (first.says.state, stage.group.status().mode) == (State.UP, "all")


# One after the other

LOCAL = forward(1080, direction=Direction.DYNAMIC)
MOSH = Mosh(PortRange(60001, 60010), "0.0.0.0", "127.0.0.1")
WHOLE = replace(FAILOVER, forward=(*FAILOVER.forward, LOCAL), mosh=MOSH)


async def test_the_second_is_dialled_when_the_first_is_late() -> None:
    """It opens the forwards on its relay, and those on this host only once it serves."""
    async with running(WHOLE) as stage:
        await stage.time.slept_on(1)
        assert stage.made == ["first"]
        stage.time.advance(HEAD_START)
        await turns()
        first, second = stage.played.values()
        assert second.profiles == [part(WHOLE, SECOND, serves=False)]
        assert (second.profiles[0].forward, second.profiles[0].mosh) == (FAILOVER.forward, None)
        second.moves(State.UP)
        await turns()
        assert (first.profiles[-1], second.profiles[-1]) == (part(WHOLE, FIRST, serves=False), WHOLE.through(SECOND))
        changed = await stage.journal.says("relay_changed")
        assert (changed["relay"], changed["instead_of"]) == ("second", "first")


async def test_what_listens_here_is_given_back_before_another_takes_it() -> None:
    """Only one tunnel can have a port, and the one that lost its session may still hold it."""
    async with running(WHOLE) as stage:
        await stage.time.slept_on(1)
        stage.time.advance(HEAD_START)
        await turns()
        order: list[str] = []
        for name, each in stage.played.items():
            each.applied = lambda _, name=name: order.append(name)  # type: ignore[misc]
        stage.played["second"].moves(State.UP)
        await turns()
        assert order == ["first", "second"]


async def test_what_happens_during_a_look_is_seen() -> None:
    """The relay that was to serve is lost while it is told so."""
    async with running(WHOLE) as stage:
        first, second = await on_the_second(stage)
        first.applied = lambda each: each.moves(State.BACKOFF)
        first.moves(State.UP)
        second.moves(State.BACKOFF)
        await turns()
        assert first.profiles[-1] == WHOLE.through(FIRST)
        assert stage.made == ["first", "second"]
        stage.time.advance(HEAD_START)
        await turns()
        assert stage.made == ["first", "second", "second"]


async def test_the_first_serves_again_when_it_has_been_well_for_a_while() -> None:
    """It gets the listeners on this host once the other tunnel has given them back."""
    async with running(WHOLE) as stage:
        first, second = await on_the_second(stage)
        first.moves(State.UP)
        await turns()
        stage.time.advance(WHOLE.backoff.return_after - 0.1)
        await turns()
        assert second.says.state is State.UP
        assert stage.group.status().relays[0].serves_in == pytest.approx(0.1)
        assert stage.group.status().relays[1].serves_in is None
        second.slow = True
        stage.time.advance(0.1)
        await turns()
        assert first.profiles[-1] == part(WHOLE, FIRST, serves=False)
        second.slow = False
        second.stop()
        await turns()
        assert first.profiles[-1] == WHOLE.through(FIRST)
        assert stage.group.status().relay == "first"


async def test_a_relay_that_does_not_answer_is_not_well() -> None:
    """Its session may be dead, so the next relay is dialled."""
    async with running(FAILOVER) as stage:
        first = stage.played["first"]
        first.moves(State.UP)
        await turns()
        first.moves(State.UP, silence=11.0)
        await turns()
        stage.time.advance(HEAD_START)
        await turns()
        assert stage.made == ["first", "second"]
        first.moves(State.UP, silence=None)
        await turns()
        assert stage.played["second"].says.state is State.STOPPED


async def test_the_status_is_that_of_the_relay_that_serves() -> None:
    """It lists every relay, also those in reserve."""
    three = replace(WHOLE, relays=(FIRST, SECOND, THIRD))
    async with running(three) as stage:
        _, second = await on_the_second(stage)
        status = stage.group.status()
        assert status == replace(second.says, mode="failover", relays=status.relays)
        assert [(each.relay, each.state) for each in status.relays] == [
            ("first", State.BACKOFF),
            ("second", State.UP),
            ("third", State.IDLE),
        ]


async def on_the_second(stage: Stage) -> tuple[Played, Played]:
    """The first is away, and the second has served for a while."""
    await stage.time.slept_on(1)
    stage.played["first"].moves(State.BACKOFF)
    stage.time.advance(HEAD_START)
    await turns()
    stage.played["second"].moves(State.UP)
    await turns()
    stage.time.advance(100)
    await turns()
    return stage.played["first"], stage.played["second"]


async def test_nothing_is_made_after_a_stop() -> None:
    """A reload that comes too late changes nothing."""
    async with running(ALL) as stage:
        stage.group.stop()
        await stage.group.apply(replace(ALL, relays=(SECOND, THIRD)))
        assert stage.made == ["first", "second"]


async def test_status_can_be_asked_for_while_a_reload_waits_its_turn() -> None:
    """The relay that serves is the third of three, and the new profile has two."""
    three = replace(FAILOVER, relays=(FIRST, SECOND, THIRD))
    async with running(three) as stage:
        for name in ("first", "second", "third"):
            while name not in stage.played:
                stage.time.advance(HEAD_START)
                await turns()
        stage.played["third"].moves(State.UP)
        await turns()
        assert stage.group.status().relay == "third"
        async with asyncio.TaskGroup() as tasks:
            await stage.group._turn.acquire()
            tasks.create_task(stage.group.apply(FAILOVER))
            await turns()
            assert stage.group.status().relay == "third"
            stage.group._turn.release()
        assert len(stage.group.status().relays) == 2
