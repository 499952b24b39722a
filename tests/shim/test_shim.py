"""The shim over a real sshd: the real agent, real UDP on loopback, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.shim.scene import MOSH_SIZED, Client, Scene, agent_pid, scene
from tunneld.core.supervise.backoff import Limits
from tunneld.log import logger
from tunneld.profile import Keepalive, Mosh, PortRange, Profile, Relay
from tunneld.tunnel.tunnel import Tunnel


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as made:
        await made.until(lambda status: status.state == "ready")
        yield made


async def test_a_datagram_crosses_and_its_answer_comes_back(up: Scene) -> None:
    """A datagram that a client sends to the ingress reaches the server's port unchanged, and the answer comes back."""
    with Client(up.port) as client:
        assert await client.ask(MOSH_SIZED) == b"\x80" + MOSH_SIZED[1:]
        assert await client.ask(bytes(1252)) == b"\x80" + bytes(1251)


async def test_small_datagrams_take_two_connections_of_their_own(up: Scene) -> None:
    """Once there is a flow, two more SSH connections carry it, each datagram once, and the control stream rests."""
    with Client(up.port) as client:
        await client.ask(MOSH_SIZED)
        await up.until(lambda status: sum(carrier.rtt is not None for carrier in status.carriers) == 3)
        before = {carrier.name: carrier.sent for carrier in up.shim.status().carriers}
        for _ in range(5):  # fewer than the window, so that none waits
            await client.ask(MOSH_SIZED)
        after = {carrier.name: carrier.sent for carrier in up.shim.status().carriers}
        assert {name: after[name] - before[name] for name in after} == {"control": 0, "stream-1": 5, "stream-2": 5}
        status = await up.until(lambda status: status.counters.get("host_datagrams_duplicate", 0) >= 5)
        assert status.counters["host_datagrams_in"] == 6


async def test_status_says_ready_only_while_a_session_is_served(tmp_path: Path) -> None:
    """Before it and after it, however it ended, mosh waits for the tunnel."""
    async with scene(tmp_path) as made:
        assert made.shim.status().reason == "waiting for the tunnel"
        await made.until(lambda status: status.state == "ready")
        assert made.shim.status().reason == ""
    assert (made.shim.status().state, made.shim.status().reason) == ("starting", "waiting for the tunnel")


async def test_sources_stay_apart(up: Scene) -> None:
    """Each client has a socket of its own towards the server, so the server can tell them apart."""
    with Client(up.port) as one, Client(up.port) as other:
        await one.ask(MOSH_SIZED)
        await other.ask(MOSH_SIZED)
        await one.ask(MOSH_SIZED)
    assert len(up.echo.sources) == 2


async def test_what_is_not_mosh_stays_outside(up: Scene) -> None:
    """Datagrams that no mosh-client sends are dropped at the ingress: neither the host nor the server sees any."""
    with Client(up.port) as client:
        for junk in (b"", b"short", b"\xff" * 100, bytes(1473), bytes(9000)):
            client.sock.send(junk)
        await client.ask(MOSH_SIZED)  # the ingress has seen everything that came before
    assert up.shim.status().counters["host_datagrams_in"] == 1
    assert up.echo.received == 1


async def test_status_shows_the_counters_of_both_ends(up: Scene) -> None:
    """The agent reports its counters as soon as it serves."""
    status = await up.until(lambda status: any(name.startswith("relay_") for name in status.counters))
    assert (status.counters["host_datagrams_stale"], status.counters["relay_datagrams_stale"]) == (0, 0)


async def test_a_port_without_a_server_costs_its_flow(up: Scene) -> None:
    """When nothing listens on a flow's port, the flow ends on both sides at once."""
    with Client(up.port + 1) as client:
        client.sock.send(MOSH_SIZED)
        status = await up.until(lambda status: status.counters.get("host_flows_refused_by_target") == 1)
    assert status.flows == 0


async def test_the_agent_leaves_with_the_session(up: Scene) -> None:
    """When the SSH session ends, the agent frees the ingress and removes what it made."""
    up.connection.abort()
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", up.port))
                break
            await asyncio.sleep(0.02)


async def test_a_dead_agent_is_started_again(up: Scene) -> None:
    """Killed, the agent is back within seconds, and status said meanwhile why mosh was not available."""
    os.kill(agent_pid(up.sshd.pid), signal.SIGKILL)
    await up.until(lambda status: status.state == "unavailable" and "ended" in status.reason)
    await up.until(lambda status: status.state == "ready")
    with Client(up.port) as client:
        await client.ask(MOSH_SIZED)


async def test_a_dedicated_stream_that_dies_is_replaced(up: Scene) -> None:
    """Losing one of the two connections loses no flow, and a new one takes its place."""
    with Client(up.port) as client:
        await client.ask(MOSH_SIZED)
        await up.until(lambda status: sum(carrier.rtt is not None for carrier in status.carriers) == 3)
        up.dialled[0].abort()
        await client.ask(MOSH_SIZED)
        await up.until(lambda status: len(up.dialled) == 3 and len(status.carriers) == 3)
        assert await client.ask(MOSH_SIZED)
    assert len(up.echo.sources) == 1


async def test_streams_that_are_refused_do_not_hammer_the_relay(tmp_path: Path) -> None:
    """Two logins that fail every second would have the relay lock this address out; one log line tells of each."""
    with capture_logs() as events:
        async with scene(tmp_path) as made:
            await made.until(lambda status: status.state == "ready")
            (tmp_path / "authorized_keys").write_text("")
            with Client(made.port) as client:
                await client.ask(MOSH_SIZED)
                await made.until(lambda _: len(failures(events)) == 2)
    assert [event["retry_in"] for event in failures(events)] == [60.0, 60.0]
    assert not made.dialled


def failures(events: list[Any]) -> list[Any]:
    return [event for event in events if event["event"] == "stream_failed"]


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """A profile with mosh, whose tunnel nobody runs."""
    mosh = Mosh(PortRange(60001, 60010), "0.0.0.0", "127.0.0.1")
    return Profile("pi-home", tmp_path / "pi-home.toml", (Relay("relay.example"),), mosh=mosh)


def test_a_tunnel_gives_its_shim_the_profiles_limits(profile: Profile) -> None:
    """The profile's [backoff] counts for the shim's connections too, and a changed one without a new shim."""
    tunnel = Tunnel(replace(profile, backoff=Limits(initial=7)), log=logger())
    shim = tunnel._shim
    assert shim is not None
    assert shim.limits == Limits(initial=7)
    tunnel._adopt(replace(profile, backoff=Limits(initial=8)))
    assert tunnel._shim is shim
    assert shim.limits == Limits(initial=8)


def test_a_changed_keepalive_makes_another_shim(profile: Profile) -> None:
    """The session is made anew for it, and the agent is to hear the new figures."""
    tunnel = Tunnel(profile, log=logger())
    before = tunnel._shim
    tunnel._adopt(replace(profile, keepalive=Keepalive(interval=3)))
    assert tunnel._shim is not None
    assert tunnel._shim is not before


async def test_shell_noise_does_no_harm(tmp_path: Path) -> None:
    """Whatever a start-up file prints before the agent speaks is skipped."""
    noise = 'command="printf \'welcome\\nto\\0the relay\\n\'; eval \\"$SSH_ORIGINAL_COMMAND\\""'
    async with scene(tmp_path, key_options=noise) as made:
        await made.until(lambda status: status.state == "ready")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/usr/sbin/nologin", "This account is currently not available"),
        ("exit 3", "exit status 3"),
        ("exec /nowhere/python3", "no python3"),
        ("echo only a shell here", "only a shell here"),
    ],
)
async def test_status_says_why_a_relay_does_not_run_the_agent(tmp_path: Path, command: str, why: str) -> None:
    """A forced command, a login shell that refuses, a missing Python: status says which."""
    async with scene(tmp_path, key_options=f'command="{command}"') as made:
        status = await made.until(lambda status: status.state == "unavailable")
        assert why in status.reason
        assert not made.connection.is_closed()


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """The ingress opens all of its ports or none, and says which one another program holds."""
    async with scene(tmp_path) as made:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
            await made.until(lambda status: status.state == "ready")
            os.kill(agent_pid(made.sshd.pid), signal.SIGKILL)
            await made.until(lambda status: status.state == "unavailable")
            holder.bind(("127.0.0.1", made.port + 2))
            status = await made.until(lambda status: "UDP port" in status.reason)
        assert f"UDP port {made.port + 2} on 127.0.0.1: Address already in use" in status.reason
