"""A tunnel against a real sshd: coming up, losing sessions, backing off, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sshd import SSHD, Sshd, descendants, free_port, make_key, running_sshd, write_known_hosts
from tests.tunnel.supervised import (
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
from tunneld.profile import Direction, Keepalive, Mosh, PortRange, Relay
from tunneld.ssh.connect.failure import SessionError
from tunneld.tunnel.forwards import Forwards
from tunneld.tunnel.session import CALM_TIME, Session
from tunneld.tunnel.tunnel import address_of


def end_sessions(relay: Sshd) -> None:
    """Kill every session on the relay, as its administrator or a lack of memory may."""
    for pid in descendants(relay.pid):
        os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def started_again(relay: Sshd) -> AsyncIterator[None]:
    """The same relay, after its sshd was killed."""
    assert SSHD is not None
    command = [SSHD, "-D", "-e", "-f", str(relay.folder / "sshd_config")]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        assert process.stderr is not None
        while b"Server listening" not in await process.stderr.readline():
            pass
        yield
    finally:
        for pid in [*descendants(process.pid), process.pid]:
            os.kill(pid, signal.SIGKILL)
        await process.communicate()


# Coming up


async def test_a_tunnel_comes_up_and_carries(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """Bytes cross the forward, status counts the connection, and the log has one event for each transition."""
    listen = free_port()
    async with (
        echoing() as target,
        running(profile_of(relay_of(relay), forward(listen, target)), journal, time) as tunnel,
    ):
        await journal.says("session_established")
        async with line(listen) as talking:
            assert await talking.echoes()
            status = tunnel.status()
            assert (status.state, status.attempts, status.sessions) == (State.UP, 1, 1)
            assert status.relay == f"{relay.user}@127.0.0.1:{relay.port}"
            assert [(each.state, each.connections, each.total) for each in status.forwards] == [("listening", 1, 1)]
    assert journal.names() == ["tunnel_started", "session_established", "stop_requested", "tunnel_stopped"]
    assert all(event["tunnel"] == "pi" for event in journal.events)
    assert tunnel.status().state is State.STOPPED


async def test_up_means_that_every_required_forward_listens(
    tmp_path: Path, journal: Journal, time: VirtualTime
) -> None:
    """One required forward is forbidden: the attempt fails with its name, and what was open is closed again."""
    mine, theirs = free_port(), free_port()
    async with (
        running_sshd(tmp_path / "relay", options=[f"PermitListen 127.0.0.1:{mine}"]) as relay,
        running(profile_of(relay_of(relay), forward(mine), forward(theirs)), journal, time) as tunnel,
    ):
        failed = await journal.says("dial_failed")
        status = tunnel.status()
        assert failed["failure"] == "forward forbidden"
        assert str(theirs) in failed["reason"]
        assert (status.state, status.sessions) == (State.BACKOFF, 0)
        assert {each.state for each in status.forwards} == {"waiting"}
        await until(lambda: is_free(mine))  # not at once: see has_settled
    assert "session_established" not in journal.names(debug=True)


async def test_an_optional_forward_is_asked_again_on_the_live_session(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """It is refused: the tunnel is up all the same, status says why, and once the port is free it listens."""
    mine, theirs = free_port(), free_port()
    profile = profile_of(relay_of(relay), forward(mine), forward(theirs, required=False))
    with taken(theirs) as other:
        async with running(profile, journal, time) as tunnel:
            await journal.says("forward_refused")
            await journal.says("session_established")
            refused = tunnel.status().forwards[1]
            assert refused.state == "refused"
            assert refused.failure is not None
            assert refused.failure.failure is Failure.FORWARD_BUSY
            assert refused.next_try_in == pytest.approx(5, abs=0.1)
            other.close()
            time.advance(5)
            await journal.says("forward_opened", listen=f"127.0.0.1:{theirs}")
            status = tunnel.status()
            assert [each.state for each in status.forwards] == ["listening", "listening"]
            assert status.sessions == 1


async def test_a_tunnel_without_remote_forwards_hears_from_the_relay(
    tmp_path: Path, journal: Journal, time: VirtualTime
) -> None:
    """A local forward asks the relay nothing, so a request of its own proves that it answers."""
    async with running_sshd(tmp_path / "relay", options=["LogLevel DEBUG1"]) as relay:
        local = forward(free_port(), direction=Direction.LOCAL)
        async with running(profile_of(relay_of(relay), local, keepalive=Keepalive(interval=1000)), journal, time):
            await journal.says("session_established")
            async with asyncio.timeout(10):
                await relay.log_says("rtype keepalive@openssh.com")


async def test_local_and_dynamic_forwards_listen_here(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """They carry to the relay's side, and their ports are free after the stop."""
    local, dynamic = free_port(), free_port()
    profile = profile_of(
        relay_of(relay),
        forward(local, relay.port, direction=Direction.LOCAL),
        forward(dynamic, direction=Direction.DYNAMIC),
    )
    async with running(profile, journal, time) as tunnel:
        await journal.says("session_established")
        assert [each.state for each in tunnel.status().forwards] == ["listening", "listening"]
        async with line(local) as talking:
            assert await talking.greets(b"SSH-2.0-")
    assert is_free(local)
    assert is_free(dynamic)


async def test_port_zero_is_told_as_what_the_relay_chose(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """The profile says 0, status says where it listens."""
    async with running(profile_of(relay_of(relay), forward(0)), journal, time) as tunnel:
        await journal.says("session_established")
        (told,) = tunnel.status().forwards
        assert told.listen == "127.0.0.1:0"
        assert told.listening.startswith("127.0.0.1:")
        assert not is_free(int(told.listening.rpartition(":")[2]))


# Losing sessions


async def test_a_lost_session_is_dialled_again(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """The relay kills the session: the tunnel waits its turn, and comes up again on the same port."""
    listen = free_port()
    async with (
        echoing() as target,
        running(profile_of(relay_of(relay), forward(listen, target)), journal, time) as tunnel,
    ):
        await journal.says("session_established")
        end_sessions(relay)
        lost = await journal.says("session_lost")
        assert (lost["failure"], lost["retry_in"]) == ("network", 0)
        await journal.says("session_established")
        assert tunnel.status().sessions == 2
        async with line(listen) as talking:
            assert await talking.echoes()


async def test_a_relay_that_restarts_is_found_again(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """While it is away attempts fail with waits between them; once it is back the tunnel comes up."""
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time) as tunnel:
        await journal.says("session_established")
        end_sessions(relay)
        os.kill(relay.pid, signal.SIGKILL)
        failed = await journal.says("dial_failed")
        assert failed["failure"] == "closed"
        async with started_again(relay):
            time.advance(failed["retry_in"])
            await journal.says("session_established")
            assert tunnel.status().sessions == 2


async def test_a_flapping_session_keeps_backing_off(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """A relay that lets us in and then drops us is asked less and less often, up to the maximum."""
    waits = []
    profile = profile_of(relay_of(relay), forward(free_port()), backoff=Limits(initial=1, maximum=16))
    async with running(profile, journal, time):
        for _ in range(6):
            await journal.says("session_established")
            time.advance(29)
            end_sessions(relay)
            waits.append((await journal.says("session_lost"))["retry_in"])
            time.advance(waits[-1])
    assert waits == pytest.approx([0, 1, 2, 4, 8, 16], abs=0.01)


async def test_a_session_that_is_lost_before_it_is_up_backs_off_too(
    relay: Sshd, journal: Journal, time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login costs the relay something, so it is not dialled each second as a silent relay is."""

    async def hung_up(*_: object) -> None:
        raise SessionError(Failure.NETWORK, "the connection is lost")

    monkeypatch.setattr(Forwards, "open", hung_up)
    waits = []
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time):
        for _ in range(4):
            waits.append((await journal.says("dial_failed"))["retry_in"])
            time.advance(waits[-1])
    assert waits == pytest.approx([0, 1, 2, 4], abs=0.01)


async def test_an_outage_begins_with_the_silence(
    relay: Sshd, journal: Journal, time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a session was silent, nobody could use it."""
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time):
        await journal.says("session_established")
        monkeypatch.setattr(Session, "silence", 40.0)
        end_sessions(relay)
        assert (await journal.says("session_established"))["down_for"] == 40


async def test_a_stable_session_starts_again_from_the_bottom(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """Only a session that lived `stable_after` seconds proves that the trouble is over."""
    waits = []
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time):
        for lived in (1, 1, 1, 31, 1):
            await journal.says("session_established")
            time.advance(lived)
            end_sessions(relay)
            waits.append((await journal.says("session_lost"))["retry_in"])
            time.advance(waits[-1])
    assert waits == pytest.approx([0, 1, 2, 0, 1], abs=0.01)


async def test_a_flapping_link_does_not_fill_the_journal(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """Twenty losses make a handful of lines with counts, and a session that holds says how many were left out."""
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time):
        for _ in range(20):
            await journal.says("session_established")
            end_sessions(relay)
            time.advance((await journal.says("session_lost"))["retry_in"])
        await journal.says("session_established")
        await time.slept_on(1)
        time.advance(600)
        stable = await journal.says("session_stable")
        told = [each for each in journal.events if each["event"] in {"session_established", "session_lost"}]
        hidden = [each for each in told if each["level"] == "debug"]
        assert stable["events_not_shown"] == len(hidden)
        assert len(told) == 41
        assert len(told) - len(hidden) <= 5 + 2 * 5  # a reset and an end of file are two reasons
        assert max(each.get("times", 1) for each in told if each not in hidden) >= 16


async def test_a_session_is_not_called_calm_before_it_is_stable(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """Ten minutes without a fault are calm, unless the profile wants more for a stable session."""
    for stable_after, calm in ((30, CALM_TIME), (1000, 1000)):
        profile = profile_of(relay_of(relay), forward(free_port()), backoff=Limits(stable_after=stable_after))
        async with running(profile, journal, time):
            await journal.says("session_established")
            await time.slept_on(1)
        assert time.asked[-1] == calm


# What only a person mends


async def test_a_refused_login_waits_a_minute_and_stands_out(
    relay: Sshd, tmp_path: Path, journal: Journal, time: VirtualTime
) -> None:
    """More attempts would have the relay lock the address out. The log has an error."""
    make_key(tmp_path / "stranger")
    profile = profile_of(relay_of(relay, identity=(tmp_path / "stranger",)), forward(free_port()))
    async with running(profile, journal, time, chance=0.0) as tunnel:
        failed = await journal.says("dial_failed")
        assert (failed["failure"], failed["level"]) == ("authentication", "error")
        assert failed["retry_in"] >= 60
        status = tunnel.status()
        assert status.failure is not None
        assert status.failure.failure is Failure.AUTHENTICATION
        assert status.next_try_in is not None
        assert status.next_try_in >= 60
        time.advance(59)
        await asyncio.sleep(0)
        assert tunnel.status().state is State.BACKOFF


async def test_a_wrong_host_key_waits_a_minute_and_stands_out(
    relay: Sshd, tmp_path: Path, journal: Journal, time: VirtualTime
) -> None:
    """Somebody may be listening in, so nothing is sent until a person has looked."""
    other = make_key(tmp_path / "other")
    known = write_known_hosts(tmp_path / "known_hosts", other.convert_to_public(), port=relay.port)
    async with running(profile_of(relay_of(relay, known_hosts=known), forward(free_port())), journal, time) as tunnel:
        failed = await journal.says("dial_failed")
        assert (failed["failure"], failed["level"]) == ("host key", "error")
        assert failed["retry_in"] >= 60
        assert tunnel.status().state is State.BACKOFF


async def test_a_missing_key_file_is_waited_for(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """A person may put it there, so the tunnel does not give up: it looks again after a minute, and comes up."""
    key = relay.user_key.read_bytes()
    relay.user_key.unlink()
    async with running(profile_of(relay_of(relay), forward(free_port())), journal, time) as tunnel:
        failed = await journal.says("dial_failed")
        assert failed["retry_in"] >= 60
        assert str(relay.user_key) in failed["reason"]
        relay.user_key.write_bytes(key)
        relay.user_key.chmod(0o600)
        time.advance(failed["retry_in"])
        await journal.says("session_established")
        assert tunnel.status().state is State.UP


# Stopping


async def test_stop_frees_the_relays_port_at_once(relay: Sshd, journal: Journal, time: VirtualTime) -> None:
    """When run() has returned the port can be bound, so that a restart never finds it busy."""
    listen = free_port()
    for _ in range(5):
        async with running(profile_of(relay_of(relay), forward(listen)), journal, time):
            await journal.says("session_established")
            await has_settled(relay)
            assert not is_free(listen)
        assert is_free(listen)


async def test_mosh_is_served_beside_the_forwards_and_ends_with_them(
    relay: Sshd, journal: Journal, time: VirtualTime
) -> None:
    """With [mosh] the shim lives in the session: ready while it is up, and nothing of it is left after the stop."""
    port = free_port(kind=socket.SOCK_DGRAM)
    mosh = Mosh(ports=PortRange(port, port), bind="127.0.0.1", to="127.0.0.2")
    async with running(profile_of(relay_of(relay), forward(free_port()), mosh=mosh), journal, time) as tunnel:
        assert tunnel.status().mosh.state == "starting"
        await journal.says("mosh_ready")
        assert tunnel.status().mosh.state == "ready"
        assert tunnel.status().mosh.ports == f"{port}-{port}"


def test_a_relay_is_told_as_ssh_would_be() -> None:
    """What the profile leaves to ssh_config is left out."""
    assert address_of(Relay(host="pi")) == "pi"
    assert address_of(Relay(host="pi", user="me", port=2200)) == "me@pi:2200"
    assert address_of(Relay(host="2001:db8::1", port=22)) == "[2001:db8::1]:22"
