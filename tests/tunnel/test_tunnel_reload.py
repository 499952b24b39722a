"""A changed profile on a running tunnel: only the forwards that changed are closed and opened."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.sshd import Sshd, descendants, free_port
from tests.tunnel.supervised import (
    Gate,
    echoing,
    forward,
    has_settled,
    is_free,
    line,
    profile_of,
    relay_of,
    running,
    taken,
)
from tests.until import until
from tests.virtual import Journal, VirtualTime
from tunneld.core.supervise.backoff import Limits
from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State
from tunneld.profile import Keepalive, Mosh, PortRange
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError


async def test_mosh_comes_without_a_new_session(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """A connection through a forward goes on; only taking mosh away takes another session."""
    listen, port = free_port(), free_port()
    async with echoing() as target:
        plain = profile_of(relay_of(relay), forward(listen, target))
        async with running(plain, journal, time) as tunnel:
            await journal.says("session_established")
            async with line(listen) as talking:
                assert await talking.echoes()
                mosh = Mosh(ports=PortRange(port, port), bind="127.0.0.1", to="127.0.0.2")
                await tunnel.apply(replace(plain, mosh=mosh))
                await journal.says("mosh_ready")
                assert await talking.echoes()
            assert (tunnel.status().sessions, tunnel.status().mosh.state) == (1, "ready")
            await tunnel.apply(replace(plain, mosh=mosh, backoff=Limits(initial=2)))
            assert (tunnel.status().sessions, tunnel.status().mosh.state) == (1, "ready")
            await tunnel.apply(plain)
            await journal.says("session_established")
            assert (tunnel.status().sessions, tunnel.status().mosh.state) == (2, "off")


def cats(relay: Sshd) -> list[int]:
    """The programs on the relay that hold a channel."""
    return [pid for pid in descendants(relay.pid) if Path(f"/proc/{pid}/comm").read_text() == "cat\n"]


async def test_mosh_comes_after_the_channel_that_was_held_has_ended(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """Somebody on the relay killed the program that held it, and the session went on without."""
    port = free_port()
    plain = profile_of(relay_of(relay), forward(free_port()))
    async with running(plain, journal, time) as tunnel:
        await journal.says("session_established")
        await until(lambda: cats(relay))
        for pid in cats(relay):
            os.kill(pid, signal.SIGKILL)
        assert tunnel._session is not None and tunnel._session._forwards is not None
        connection: Any = tunnel._session._forwards._connection
        await until(lambda: not connection._channels)
        await tunnel.apply(replace(plain, mosh=Mosh(ports=PortRange(port, port), bind="127.0.0.1", to="127.0.0.2")))
        await journal.says("mosh_ready")
        assert tunnel.status().sessions == 1


async def test_reloads_without_mosh_keep_the_held_channel(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """However many there are: the relay's program for the channel goes on, and mosh may come later."""
    port = free_port()
    profile = profile_of(relay_of(relay), forward(free_port()))
    async with running(profile, journal, time) as tunnel:
        await journal.says("session_established")
        await until(lambda: cats(relay), what="a channel is held")
        held = cats(relay)
        for initial in (2, 3, 4):
            profile = replace(profile, backoff=Limits(initial=initial))
            await tunnel.apply(profile)
            for _ in range(20):  # turns of the loop, in which the session would take the change up
                await asyncio.sleep(0)
        assert cats(relay) == held
        await tunnel.apply(replace(profile, mosh=Mosh(PortRange(port, port), "127.0.0.1", "127.0.0.2")))
        await journal.says("mosh_ready")


async def test_changed_forwards_alone_blink(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """One is new, one is gone, one has another target: a connection through the fourth goes on, in the same session."""
    stays, goes, comes, moves = (free_port() for _ in range(4))
    async with echoing() as target:
        before = profile_of(relay_of(relay), forward(stays, target), forward(goes), forward(moves, goes))
        async with running(before, journal, time) as tunnel:
            await journal.says("session_established")
            async with line(stays) as talking:
                assert await talking.echoes()
                await has_settled(relay)
                wanted = forward(stays, target), forward(comes, target), forward(moves, target)
                await tunnel.apply(replace(before, forward=wanted))
                assert await talking.echoes()
            assert is_free(goes)
            for port in (comes, moves):
                async with line(port) as talking:
                    assert await talking.echoes()
            status = tunnel.status()
            assert (status.state, status.sessions, status.attempts) == (State.UP, 1, 1)
            assert [(each.listen, each.state) for each in status.forwards] == [
                (f"127.0.0.1:{port}", "listening") for port in (stays, comes, moves)
            ]


async def test_an_unchanged_profile_changes_nothing(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """A profile that is read again and is equal is no change."""
    profile = profile_of(relay_of(relay), forward(free_port()))
    async with running(profile, journal, time) as tunnel:
        await journal.says("session_established")
        await tunnel.apply(replace(profile))
        assert "profile_applied" not in journal.names()


async def test_another_backoff_needs_no_new_session(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """The new limits count from the next loss on, for dials and for forwards that are refused."""
    theirs = free_port()
    profile = profile_of(relay_of(relay), forward(free_port()), forward(theirs, required=False))
    with taken(theirs):
        async with running(profile, journal, time) as tunnel:
            await journal.says("session_established")
            assert tunnel.status().forwards[1].next_try_in == pytest.approx(5, abs=0.1)
            await tunnel.apply(replace(profile, backoff=Limits(initial=7)))
            assert (tunnel.status().sessions, tunnel.status().state) == (1, State.UP)
            waits = []
            for _ in range(2):
                assert tunnel._session is not None
                tunnel._session._end(SessionError(Failure.NETWORK, "it is lost"))
                waits.append((await journal.says("session_lost"))["retry_in"])
                time.advance(waits[-1])
                await journal.says("session_established")
            assert waits == pytest.approx([0, 7], abs=0.1)
            assert tunnel.status().forwards[1].next_try_in == pytest.approx(10, abs=0.1)


async def test_any_other_change_makes_a_new_session_at_once(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """Nothing has failed, so there is no wait."""
    profile = profile_of(relay_of(relay), forward(free_port()))
    async with running(profile, journal, time) as tunnel:
        await journal.says("session_established")
        await tunnel.apply(replace(profile, keepalive=Keepalive(interval=7)))
        await journal.says("session_renewed")
        await journal.says("session_established")
        assert tunnel.status().sessions == 2
        assert tunnel.status().failure is None
        assert time.now == 1000


@pytest.mark.parametrize("turns", range(14))
async def test_a_session_that_was_about_to_take_over_is_not_used_after_a_change(
    relay: Sshd, journal: Journal, time: VirtualTime, turns: int
) -> None:
    """It was dialled by the old profile, perhaps to another relay."""
    profile = profile_of(relay_of(relay), forward(free_port()))
    async with running(profile, journal, time) as tunnel:
        await journal.says("session_established")
        await has_settled(relay)
        second = await dial(profile.relay, profile.keepalive)
        assert tunnel._session is not None
        tunnel._session.succeed(second, "there is a better one")
        for _ in range(turns):
            await asyncio.sleep(0)
        await tunnel.apply(replace(profile, keepalive=Keepalive(interval=7)))
        await journal.says("session_established")
        assert second.is_closed()


async def test_a_change_that_comes_together_with_a_loss_needs_no_wait(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """The session ends by itself when it is about to be renewed; the new profile may have mended the reason."""
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time) as tunnel:
        await journal.says("session_established")
        assert tunnel._session is not None
        tunnel._renewal = "the profile changed"
        tunnel._session._end(SessionError(Failure.FORWARD_BUSY, "it is taken"))
        lost = await journal.says("session_lost")
        assert (lost["failure"], lost["retry_in"]) == ("forward busy", 0)
        await journal.says("session_established")


async def test_a_change_ends_the_backoff(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """The user has mended the profile and does not want to wait for the minute to end."""
    listen = free_port()
    wrong = profile_of(relay_of(relay, identity=(Path("/nowhere/key"),)), forward(listen))
    async with running(wrong, journal, time) as tunnel:
        await journal.says("dial_failed")
        await tunnel.apply(profile_of(relay_of(relay), forward(listen)))
        await journal.says("session_established")
        assert time.now == 1000


async def test_a_change_ends_a_dial_that_hangs(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """The old relay does not answer; the new one is dialled without waiting for it."""
    async with Gate(relay.port, 0) as gate:
        listen = free_port()
        async with running(profile_of(relay_of(relay, port=gate.port), forward(listen)), journal, time) as tunnel:
            await gate.dialled.wait()
            await tunnel.apply(profile_of(relay_of(relay), forward(listen)))
            await journal.says("session_established")
            assert tunnel.status().attempts == 2


async def test_a_new_required_forward_that_is_refused_ends_the_session(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """The session does not have what the profile asks for, so it must not count as up."""
    theirs = free_port()
    profile = profile_of(relay_of(relay), forward(free_port()))
    with taken(theirs):
        async with running(profile, journal, time) as tunnel:
            await journal.says("session_established")
            await tunnel.apply(replace(profile, forward=(*profile.forward, forward(theirs))))
            assert (await journal.says("session_lost"))["failure"] == "forward busy"


async def test_a_change_does_not_wait_for_a_relay_that_fell_silent(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """The new session asks for the new forwards; the old relay is not asked to close any."""
    listen = free_port()
    async with Gate(relay.port) as gate:
        before = profile_of(
            relay_of(relay, port=gate.port, known_hosts=relay.known_on(gate.port)), forward(free_port())
        )
        async with running(before, journal, time) as tunnel:
            await journal.says("session_established")
            with relay.frozen():
                tunnel.nudge()
                await journal.says("session_doubted")
                async with asyncio.timeout(5):
                    await tunnel.apply(replace(before, forward=(forward(listen),)))
            await journal.says("session_established")
            assert tunnel.status().forwards[0].listening == f"127.0.0.1:{listen}"


async def test_changes_and_a_stop_may_come_at_any_moment(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """Each change is followed or overtaken by the next, and nothing is left."""
    profile = profile_of(relay_of(relay), forward(free_port()))
    for turns in range(0, 60, 3):
        async with running(profile, journal, time) as tunnel:
            for interval in (5, 6):
                for _ in range(turns):
                    await asyncio.sleep(0)
                await tunnel.apply(replace(profile, keepalive=Keepalive(interval=interval)))
        assert tunnel.status().state is State.STOPPED
