"""A tunnel with a canary, against a real sshd."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sshd import free_port
from tests.tunnel.supervised import echoing, forward, line, profile_of, relay_of, running, running_relay
from tests.until import until
from tests.virtual import Journal, VirtualTime
from tunneld.core.supervise import canary
from tunneld.core.supervise.canary import BROKEN_VISIT_AFTER, FIRST_VISIT_AFTER, Finding, Verdict
from tunneld.core.supervise.lifecycle import State
from tunneld.profile import Canary
from tunneld.ssh.forward.opened import OpenForward
from tunneld.status.snapshot import CanaryStatus
from tunneld.tunnel import canary_rounds as module
from tunneld.tunnel.tunnel import Tunnel


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target on loopback that has not spoken at once waits for its client to speak."""
    monkeypatch.setattr(canary, "SPEECH_TIMEOUT", 0.05)


# A sleeper beside the canary: the session's, that waits to be stable.
SLEEPERS = 2


async def found(tunnel: Tunnel, time: VirtualTime) -> CanaryStatus:
    """What the next visit finds."""
    await time.slept_on(SLEEPERS)
    time.advance(FIRST_VISIT_AFTER)
    async with asyncio.timeout(10):
        await until(lambda: tunnel.status().forwards[0].canary is not None)
    status = tunnel.status().forwards[0].canary
    assert status is not None
    return status


async def test_status_tells_what_the_canary_found(tmp_path: Path) -> None:
    """Each forward has its own finding, and no count of connections has the canary's."""
    time, journal = VirtualTime(), Journal()
    async with running_relay(tmp_path / "relay") as relay:
        dead = forward(free_port(), free_port())
        profile = profile_of(relay_of(relay), dead, canary=Canary(300))
        async with running(profile, journal, time) as tunnel:
            await journal.says("session_established")
            status = await found(tunnel, time)
            assert (status.verdict, status.text, status.rtt) == ("target", "Connection refused", None)
            visited = tunnel.status().forwards[0]
            assert (visited.connections, visited.total, visited.target) == (0, 0, "Connection refused")
            assert tunnel.status().state is State.UP
        assert "canary_found" not in journal.names()


async def test_a_broken_forward_costs_the_session_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new session is made at once. If that does not help it stays, and status says what is wrong."""

    async def look(connection: object, opened: OpenForward) -> Finding:
        return Finding(Verdict.BROKEN, "nothing comes")

    monkeypatch.setattr(module, "look", look)
    time, journal = VirtualTime(), Journal()
    async with running_relay(tmp_path / "relay") as relay:
        profile = profile_of(relay_of(relay), forward(free_port()), canary=Canary(300))
        async with running(profile, journal, time) as tunnel:
            for _ in range(2):
                await journal.says("session_established")
                assert (await found(tunnel, time)).verdict == "broken"
                await time.slept_on(SLEEPERS)
                time.advance(BROKEN_VISIT_AFTER)
            await time.slept_on(SLEEPERS)
            assert tunnel.status().state is State.UP
    (lost,) = [event for event in journal.events if event["event"] == "session_lost"]
    assert (lost["failure"], "is broken: nothing comes" in lost["reason"]) == ("network", True)


async def test_another_interval_needs_no_other_session(tmp_path: Path) -> None:
    """A reload that changes only the interval ends nobody's connection, and the new interval counts at once."""
    time, journal = VirtualTime(), Journal()
    async with running_relay(tmp_path / "relay") as relay, echoing() as port:
        listen = free_port()
        profile = profile_of(relay_of(relay), forward(listen, port))
        async with running(profile, journal, time) as tunnel:
            await journal.says("session_established")
            async with line(listen) as kept:
                assert await kept.echoes()
                await tunnel.apply(replace(profile, canary=Canary(60)))
                await journal.says("profile_applied", session="kept")
                assert (await found(tunnel, time)).verdict == "passes"
                assert await kept.echoes()


async def test_a_forward_that_comes_later_is_visited_as_soon(tmp_path: Path) -> None:
    """Its first visit does not wait for the next visit of another forward."""
    time, journal = VirtualTime(), Journal()
    async with running_relay(tmp_path / "relay") as relay, echoing() as port:
        profile = profile_of(relay_of(relay), forward(free_port(), port), canary=Canary(300))
        async with running(profile, journal, time) as tunnel:
            await journal.says("session_established")
            await found(tunnel, time)
            await time.slept_on(SLEEPERS)
            time.asked.clear()
            await tunnel.apply(replace(profile, forward=(*profile.forward, forward(free_port(), port))))
            async with asyncio.timeout(10):
                await until(lambda: FIRST_VISIT_AFTER in time.asked)
