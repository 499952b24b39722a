"""Back before anyone notices: a second session beside a doubtful one, ports taken back, and reasons to act at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sshd import Sshd, free_port, make_key
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
from tests.virtual import Journal, VirtualTime
from tunneld.core.supervise import liveness
from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State
from tunneld.net.name_watch import NameWatch
from tunneld.profile import Profile
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.connect.race import NAMES
from tunneld.tunnel.forwards import FREED_PAUSE
from tunneld.tunnel.second_dial import SecondDial


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay on loopback that does not answer at once is silent."""
    monkeypatch.setattr(liveness, "HURRIED_PATIENCE", 0.05)


@pytest.fixture
async def gate(relay: Sshd) -> AsyncIterator[Gate]:
    """A wire to the relay."""
    async with Gate(relay.port) as made:
        yield made


def through(gate: Gate, relay: Sshd, listen: int, to: int = 9) -> Profile:
    return profile_of(relay_of(relay, port=gate.port, known_hosts=relay.known_on(gate.port)), forward(listen, to))


# Make before break


async def test_a_session_that_answers_no_more_is_replaced(
    relay: Sshd, gate: Gate, journal: Journal, time: VirtualTime
) -> None:
    """The old connection is black-holed, and the relay holds its port: the new session ends it, and listens there."""
    listen = free_port()
    async with echoing() as target, running(through(gate, relay, listen, target), journal, time) as tunnel:
        await journal.says("session_established")
        await has_settled(relay)
        gate.lose()
        tunnel.nudge()
        await journal.says("session_doubted")
        lost = await journal.says("session_lost")
        assert lost["retry_in"] == 0
        await journal.says("session_established")
        async with line(listen) as talking:
            assert await talking.echoes()
        status = tunnel.status()
        assert (status.state, status.sessions, status.silence) == (State.UP, 2, None)
        assert time.now == 1000
    assert sum("Accepted publickey" in line for line in relay.log) == 2  # the second session took one login


async def test_what_happens_at_the_end_of_a_session_that_gives_way_is_no_reason_to_wait(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """Its successor is ready, whatever else is refused or lost meanwhile, and however often that happens in a row."""
    profile = profile_of(relay_of(relay), forward(free_port()))
    async with running(profile, journal, time) as tunnel:
        for _ in range(3):
            await journal.says("session_established")
            await has_settled(relay)
            second = await dial(profile.relay, profile.keepalive)
            assert tunnel._session is not None
            tunnel._session.succeed(second, "there is a better one")
            tunnel._session._end(SessionError(Failure.REFUSED, "the old one is refused something"))
            lost = await journal.says("session_lost")
            assert (lost["reason"], lost["retry_in"]) == ("there is a better one", 0)
        await journal.says("session_established")
        assert not second.is_closed()


async def test_an_optional_forward_gets_its_port_back_as_soon(
    relay: Sshd, gate: Gate, journal: Journal, time: VirtualTime
) -> None:
    """The stale holder of its port has been ended, so its pause ends although nobody waits for it."""
    listen = free_port()
    optional = replace(through(gate, relay, listen), forward=(forward(listen, required=False),))
    async with running(optional, journal, time) as tunnel:
        await journal.says("session_established")
        await has_settled(relay)
        gate.lose()
        tunnel.nudge()
        await journal.says("forward_refused")
        await journal.says("takeover")
        async with asyncio.timeout(10):
            while tunnel.status().forwards[0].state != "listening":
                time.advance(FREED_PAUSE / 10)
                await asyncio.sleep(0.01)
        assert time.now < 1000 + 1


async def test_a_session_that_answers_after_all_stays(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """The relay was suspended, and people use the first session."""
    listen = free_port()
    async with (
        echoing() as target,
        running(profile_of(relay_of(relay), forward(listen, target)), journal, time) as tunnel,
    ):
        await journal.says("session_established")
        await has_settled(relay)
        async with line(listen) as talking:
            assert await talking.echoes()
            with relay.frozen():
                tunnel.nudge()
                await journal.says("session_doubted")
                assert (tunnel.status().silence or 0) > 0
            await journal.says("session_trusted")
            assert await talking.echoes()
        assert (tunnel.status().sessions, tunnel.status().silence) == (1, None)
    assert "session_lost" not in journal.names()


async def test_a_changed_network_is_told_to_the_second_dial(
    relay: Sshd, journal: Journal, time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be waiting for answers to packets that went the old way."""
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time) as tunnel:
        await journal.says("session_established")
        told: list[bool] = []
        monkeypatch.setattr(SecondDial, "nudge", lambda _: told.append(True))
        tunnel.nudge()
        assert told == [True]


async def test_a_relay_whose_name_leads_elsewhere_is_followed(
    relay: Sshd, journal: Journal, time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was known until then is forgotten, else a slow name server would lead back to it."""
    answers = iter([frozenset({"192.0.2.1"})])

    async def moved(_: NameWatch, connected: str) -> frozenset[str]:
        await has_settled(relay)
        return next(answers, frozenset())

    forgotten: list[str] = []
    monkeypatch.setattr(NameWatch, "moved", moved)
    monkeypatch.setattr(NAMES, "forget", forgotten.append)
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time) as tunnel:
        await journal.says("session_established")
        lost = await journal.says("session_lost")
        assert (lost["reason"], lost["retry_in"]) == ("the relay's name leads to another address now", 0)
        await journal.says("session_established")
        assert forgotten == ["127.0.0.1"]
        assert tunnel.status().sessions == 2


# A port that is taken


async def test_a_busy_port_is_asked_for_again_on_the_live_connection(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """The tunnel is not up meanwhile. Status says who holds the port and when the next request is due."""
    listen = free_port()
    with taken(listen) as other:
        async with running(profile_of(relay_of(relay), forward(listen)), journal, time) as tunnel:
            told = await journal.says("forward_awaited")
            assert told["failure"] == "forward busy"
            assert "root" in told["reason"]
            status = tunnel.status()
            assert status.state is State.DIALING
            assert status.failure is not None
            assert status.failure.failure is Failure.FORWARD_BUSY
            assert status.next_try_in == pytest.approx(told["retry_in"])
            other.close()
            time.advance(told["retry_in"])
            await journal.says("session_established")
            status = tunnel.status()
            assert (status.attempts, status.sessions, status.next_try_in) == (1, 1, None)
    assert is_free(listen)


async def test_a_port_of_somebody_elses_session_is_not_touched(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """Another tunnel of the same account holds the port."""
    listen = free_port()
    other = Journal()
    async with (
        echoing() as target,
        running(profile_of(relay_of(relay), forward(listen, target), name="other"), other, VirtualTime()),
    ):
        await other.says("session_established")
        async with running(profile_of(relay_of(relay), forward(listen)), journal, time):
            await journal.says("forward_awaited")
        async with line(listen) as talking:
            assert await talking.echoes()
    assert "session_lost" not in other.names()


# Reasons to act at once


async def test_a_changed_network_ends_the_wait(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """The link is back, so the next dial need not wait."""
    closed = free_port()
    async with running(profile_of(relay_of(relay, port=closed), forward(free_port())), journal, time) as tunnel:
        await journal.says("dial_failed")
        tunnel.nudge()
        await journal.says("dial_failed")
        assert tunnel.status().attempts == 2
        assert time.now == 1000


async def test_a_changed_network_does_not_hammer_a_relay_that_refuses_us(
    relay: Sshd, tmp_path: Path, journal: Journal, time: VirtualTime
) -> None:
    """The relay would lock the address out."""
    make_key(tmp_path / "stranger")
    profile = profile_of(relay_of(relay, identity=(tmp_path / "stranger",)), forward(free_port()))
    async with running(profile, journal, time) as tunnel:
        await journal.says("dial_failed")
        tunnel.nudge()
        await asyncio.sleep(0)
        assert (tunnel.status().state, tunnel.status().attempts) == (State.BACKOFF, 1)


async def test_a_changed_network_starts_a_hanging_dial_anew(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """Its packets went the old way. A dial that has just begun is left alone."""
    async with Gate(relay.port, 0) as gate, running(through(gate, relay, free_port()), journal, time) as tunnel:
        await gate.dialled.wait()
        tunnel.nudge()
        for _ in range(10):
            await asyncio.sleep(0)
        assert tunnel.status().attempts == 1
        gate.limit = 1 << 30
        time.advance(1)
        gate.stalled.clear()
        tunnel.nudge()
        await journal.says("session_renewed")
        await journal.says("session_established")
        assert tunnel.status().attempts == 2
