"""Stop and cancel, in every state: nothing is left, and the ports are free."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.sshd import Sshd, descendants, free_port, write_known_hosts
from tests.supervised import (
    Gate,
    echoing,
    forward,
    has_settled,
    is_free,
    line,
    nothing_left,
    profile_of,
    relay_of,
    running_relay,
)
from tests.virtual import Journal, VirtualTime
from tunneld import session
from tunneld.core.lifecycle import State
from tunneld.profile import Direction, Profile
from tunneld.tunnel import Tunnel


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Sshd]:
    """A relay that runs a plain OpenSSH server."""
    async with running_relay(tmp_path / "relay") as server:
        yield server


class Run:
    """One tunnel in a task, and the two ways to end it."""

    def __init__(self, profile: Profile) -> None:
        self.journal, self.time = Journal(), VirtualTime()
        clocks = {"clock": self.time.clock, "sleep": self.time.sleep}
        self.tunnel = Tunnel(profile, log=self.journal.log, **clocks)  # type: ignore[arg-type]

    async def ended_by(self, how: str, until: Callable[[Run], Awaitable[None]]) -> None:
        """Run, wait for `until`, end it, and see that it has ended well."""
        async with nothing_left(), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.tunnel.run())
            await until(self)
            end: dict[str, Callable[[], object]] = {"stop": self.tunnel.stop, "cancel": task.cancel}
            for each in how.split("+"):
                end[each]()
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                await asyncio.wait([task])
            assert task.cancelled() == ("cancel" in how)
        assert self.tunnel.status().state is State.STOPPED
        assert "tunnel_failed" not in self.journal.names(debug=True)


HOWS = ["stop", "cancel", "stop+stop", "stop+cancel"]


async def test_stop_before_the_start(relay: Sshd) -> None:
    """A tunnel that was stopped while idle never dials."""
    run = Run(profile_of(relay_of(relay), forward(free_port())))
    async with nothing_left():
        run.tunnel.stop()
        await run.tunnel.run()
    status = run.tunnel.status()
    assert (status.state, status.attempts) == (State.STOPPED, 0)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("limit", [0, 20, 500, 1200, 1700, 2000, 2200, 2400, 2600])
async def test_ended_while_dialing(
    relay: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, limit: int
) -> None:
    """The relay falls silent after so many bytes: in its greeting, the key exchange, the login, a forward's reply."""
    monkeypatch.setattr(session, "CLOSE_TIME", 0.1)
    async with Gate(relay.port, limit) as gate:
        known = write_known_hosts(tmp_path / "known", relay.host_key, port=gate.port)
        listen, local = free_port(), free_port()
        forwards = forward(listen), forward(local, direction=Direction.LOCAL)
        run = Run(profile_of(relay_of(relay, port=gate.port, known_hosts=known), *forwards))

        async def until(run: Run) -> None:
            await gate.stalled.wait()

        await run.ended_by(how, until)
        assert is_free(local)


@pytest.mark.parametrize("how", HOWS)
async def test_ended_while_up(relay: Sshd, how: str) -> None:
    """With a connection open through the forward; the relay's port is free when run() has returned."""
    listen = free_port()
    async with echoing() as target:
        run = Run(profile_of(relay_of(relay), forward(listen, target)))

        async def until(run: Run) -> None:
            await run.journal.says("session_established")
            await has_settled(relay)
            async with line(listen) as talking:
                assert await talking.echoes()

        await run.ended_by(how, until)
        assert is_free(listen)


@pytest.mark.parametrize("how", HOWS)
async def test_ended_while_backing_off(relay: Sshd, how: str) -> None:
    """The wait is over at once, without another dial."""
    run = Run(profile_of(relay_of(relay, port=free_port()), forward(free_port())))

    async def until(run: Run) -> None:
        await run.journal.says("dial_failed")
        assert run.tunnel.status().state is State.BACKOFF

    await run.ended_by(how, until)
    assert run.tunnel.status().attempts == 1
    assert run.time.sleepers == 0


@pytest.mark.parametrize("how", ["cancel", "stop"])
async def test_ended_while_a_forward_is_asked_again(relay: Sshd, how: str) -> None:
    """An optional forward waits for its next try."""
    run = Run(profile_of(relay_of(relay), forward(relay.port, required=False)))

    async def until(run: Run) -> None:
        await run.journal.says("session_established")
        assert run.tunnel.status().forwards[0].state == "refused"

    await run.ended_by(how, until)


async def test_the_relays_silence_is_in_every_part_of_a_dial(relay: Sshd, tmp_path: Path) -> None:
    """The byte counts above reach from the greeting to the last answer before the tunnel is up."""
    async with Gate(relay.port, 1 << 30) as gate:
        known = write_known_hosts(tmp_path / "known", relay.host_key, port=gate.port)
        run = Run(profile_of(relay_of(relay, port=gate.port, known_hosts=known), forward(free_port())))

        async def until(run: Run) -> None:
            await run.journal.says("session_established")
            assert 2200 < gate.passed < 2700

        await run.ended_by("stop", until)


@pytest.mark.parametrize("how", ["stop", "stop+cancel", "cancel"])
async def test_ended_while_the_relay_no_longer_answers(relay: Sshd, how: str) -> None:
    """A relay that hangs gets three seconds for the farewell, and a cancelled farewell none."""
    run = Run(profile_of(relay_of(relay), forward(free_port())))

    async def until(run: Run) -> None:
        await run.journal.says("session_established")
        await has_settled(relay)
        for pid in descendants(relay.pid):
            os.kill(pid, signal.SIGSTOP)

    await run.ended_by(how, until)
