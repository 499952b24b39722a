"""Stop and cancel, in every state: nothing is left, and the ports are free."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncssh
import pytest

from tests.sshd import Sshd, descendants, free_port, write_known_hosts
from tests.tunnel.supervised import (
    Gate,
    echoing,
    forward,
    has_settled,
    is_free,
    line,
    nothing_left,
    profile_of,
    relay_of,
)
from tests.virtual import Journal, VirtualTime
from tunneld.core.supervise import liveness
from tunneld.core.supervise.lifecycle import State
from tunneld.profile import Direction, Mosh, PortRange, Profile, TcpAddress
from tunneld.ssh.connect.dial import dial
from tunneld.tunnel import session
from tunneld.tunnel.timing import Timing
from tunneld.tunnel.tunnel import Tunnel


class Run:
    """One tunnel in a task, and the two ways to end it."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.journal, self.time = Journal(), VirtualTime()
        self.tunnel = Tunnel(profile, log=self.journal.log, timing=Timing(self.time.clock, self.time.sleep))

    async def ended_by(self, how: str, until: Callable[[Run], Awaitable[None]]) -> None:
        """Run the tunnel, wait for `until`, end the tunnel in this way, and see that it has ended well."""
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


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay on loopback that does not answer at once never will: nobody waits long for it."""
    monkeypatch.setattr(session, "CLOSE_TIME", 0.05)
    monkeypatch.setattr(liveness, "HURRIED_PATIENCE", 0.05)


HOWS = ["stop", "cancel", "stop+stop", "stop+cancel"]


async def test_stop_before_the_start(relay: Sshd) -> None:
    """A tunnel that was stopped while idle never dials."""
    run = Run(profile_of(relay_of(relay), forward(free_port())))
    async with nothing_left():
        run.tunnel.stop()
        await run.tunnel.run()
    status = run.tunnel.status()
    assert (status.state, status.attempts) == (State.STOPPED, 0)


def profile_through(gate: Gate, relay: Sshd, folder: Path) -> Profile:
    """A remote and a local forward, over this wire."""
    known = write_known_hosts(folder / "known", relay.host_key, port=gate.port)
    forwards = forward(free_port()), forward(free_port(), direction=Direction.LOCAL)
    return profile_of(relay_of(relay, port=gate.port, known_hosts=known), *forwards)


# Bytes that a relay says until the tunnel is up, as the first test has measured them.
WHOLE_DIAL: list[int] = []


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("part", [0, 0.01, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98])
async def test_ended_while_dialing(relay: Sshd, tmp_path: Path, how: str, part: float) -> None:
    """The relay falls silent after a part of what it says: in the greeting, the key exchange, the login, a forward."""
    if not WHOLE_DIAL:
        async with Gate(relay.port) as whole:

            async def until_up(run: Run) -> None:
                await run.journal.says("session_established")
                WHOLE_DIAL.append(whole.passed)

            await Run(profile_through(whole, relay, tmp_path)).ended_by("stop", until_up)
    async with Gate(relay.port, int(part * WHOLE_DIAL[0])) as gate:
        profile = profile_through(gate, relay, tmp_path)

        async def until_silent(run: Run) -> None:
            await gate.stalled.wait()

        await Run(profile).ended_by(how, until_silent)
        local = profile.forward[1].listen
        assert isinstance(local, TcpAddress)
        assert is_free(local.port)


@pytest.mark.parametrize("how", HOWS)
async def test_ended_while_a_second_session_is_dialled(relay: Sshd, tmp_path: Path, how: str) -> None:
    """The first session is doubtful, and neither of the two is left."""
    async with Gate(relay.port) as gate:

        async def until(run: Run) -> None:
            await run.journal.says("session_established")
            gate.stalled.set()
            gate.dialled.clear()
            run.tunnel.nudge()
            async with asyncio.timeout(10):
                await gate.dialled.wait()

        await Run(profile_through(gate, relay, tmp_path)).ended_by(how, until)


@pytest.mark.parametrize("turns", [0, 1, 3, 6, 10])
async def test_ended_while_a_second_session_takes_over(relay: Sshd, turns: int) -> None:
    """At whatever moment, neither of the two sessions is left."""
    profile = profile_of(relay_of(relay), forward(free_port()))

    async def until(run: Run) -> None:
        await succeeded(run, relay)
        for _ in range(turns):
            await asyncio.sleep(0)

    await Run(profile).ended_by("stop", until)


async def succeeded(run: Run, relay: Sshd) -> asyncssh.SSHClientConnection:
    """A second connection, which the session that is up has been told to give way to."""
    await run.journal.says("session_established")
    await has_settled(relay)
    second = await dial(run.profile.relay, run.profile.keepalive)
    assert run.tunnel._session is not None
    run.tunnel._session.succeed(second, "there is a better one")
    return second


def gives_way(run: Run) -> bool:
    """The old session is closing, and the second connection waits for the next one."""
    return run.tunnel.status().state is State.UP and run.tunnel.status().sessions == 1


def backs_off(run: Run) -> bool:
    """Between the two sessions; for one turn of the loop."""
    return run.tunnel.status().state is State.BACKOFF


def takes_over(run: Run) -> bool:
    """The new session lives on the second connection, and asks for its forwards."""
    return run.tunnel.status().state is State.DIALING


def has_taken_over(run: Run) -> bool:
    return run.tunnel.status().sessions == 2


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("moment", [gives_way, backs_off, takes_over, has_taken_over])
async def test_the_second_connection_is_closed_whenever_the_tunnel_ends(
    relay: Sshd, moment: Callable[[Run], bool], how: str
) -> None:
    """It is closed whether it waits for its session, or has one."""
    seconds: list[asyncssh.SSHClientConnection] = []

    async def until(run: Run) -> None:
        seconds.append(await succeeded(run, relay))
        async with asyncio.timeout(10):
            while not moment(run):  # noqa: ASYNC110 (it looks between any two turns of the loop)
                await asyncio.sleep(0)
        assert not seconds[0].is_closed()

    await Run(profile_of(relay_of(relay), forward(free_port()))).ended_by(how, until)
    assert seconds[0].is_closed()


@pytest.mark.parametrize("step", ["lost", "backs_off", "backoff_ended", "attempt", "established"])
async def test_the_second_connection_is_closed_when_the_tunnel_crashes(
    relay: Sshd, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A fault of ours, at each step between the two sessions."""
    run = Run(profile_of(relay_of(relay), forward(free_port())))

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    async with nothing_left(), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_ignoring(RuntimeError, run.tunnel.run()))
        second = await succeeded(run, relay)
        monkeypatch.setattr(run.tunnel._timeline, step, crash)
        async with asyncio.timeout(10):
            await asyncio.wait([task])
    assert run.tunnel.status().state is State.FAILED
    assert second.is_closed()


async def _ignoring(error: type[Exception], work: Awaitable[None]) -> None:
    try:
        await work
    except* error:
        pass


async def test_an_answer_that_comes_together_with_a_stop(relay: Sshd) -> None:
    """The stop was first, so the tunnel does not come up, and that is no fault."""
    async with Gate(relay.port, 0) as gate:
        run = Run(profile_of(relay_of(relay, port=gate.port), forward(free_port())))

        async def until(run: Run) -> None:
            await gate.dialled.wait()
            run.tunnel.stop()
            run.tunnel._established()
            assert run.tunnel.status().state is State.DRAINING

        await run.ended_by("stop", until)
    assert run.tunnel.status().sessions == 0


async def test_a_failure_that_comes_together_with_a_stop(relay: Sshd) -> None:
    """However they fall together, the tunnel stops and has not crashed."""
    closed = free_port()
    for turns in range(60):
        run = Run(profile_of(relay_of(relay, port=closed), forward(free_port())))

        async def until(run: Run, turns: int = turns) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        await run.ended_by("stop", until)


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
@pytest.mark.parametrize("ready", [False, True])
async def test_ended_while_mosh_is_served(relay: Sshd, how: str, ready: bool) -> None:
    """The agent on the relay is being started, or serves: it and its connections end with the tunnel."""
    port = free_port(kind=socket.SOCK_DGRAM)
    mosh = Mosh(ports=PortRange(port, port), bind="127.0.0.1", to="127.0.0.2")
    run = Run(profile_of(relay_of(relay), forward(free_port()), mosh=mosh))

    async def until(run: Run) -> None:
        await run.journal.says("mosh_ready" if ready else "session_established")

    await run.ended_by(how, until)


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


@pytest.mark.parametrize("how", ["stop", "stop+cancel", "cancel"])
async def test_ended_while_the_relay_no_longer_answers(relay: Sshd, how: str) -> None:
    """A relay that hangs gets CLOSE_TIME for the farewell, however the tunnel is ended."""
    run = Run(profile_of(relay_of(relay), forward(free_port())))

    async def until(run: Run) -> None:
        await run.journal.says("session_established")
        await has_settled(relay)
        for pid in descendants(relay.pid):
            os.kill(pid, signal.SIGSTOP)

    await run.ended_by(how, until)
