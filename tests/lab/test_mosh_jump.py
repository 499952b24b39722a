"""`tunneld mosh` through a jump host between two symmetric NATs: our agent on the jump host forwards the packets."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lab.client import FAR_END, READY
from tests.lab.machine import end
from tests.lab.net import SYMMETRIC, Lab
from tests.lab.product import TUNNELD, bound_ports
from tests.lab.scene import Scene, scene
from tests.lab.terminal import Terminal
from tests.until import wait_until
from tunneld.core.pair import stun

pytestmark = pytest.mark.lab

ONE_WAY = 0.02  # seconds, on each link: 80 ms there and back
RTT = 80.0  # ms
PORTS = "40111:40112"  # those that the relay's firewall lets through


@contextmanager
def people(lab: Lab) -> Iterator[Scene]:
    """Two symmetric NATs, a relay that lets UDP in only at PORTS, and a plain `ssh -R` as the tunnel to pi."""
    for gateway in ("homegw", "lapgw"):
        lab.set_nat(gateway, SYMMETRIC)
    for link in (lab.home_link, lab.laptop_link):
        link.set(delay=ONE_WAY)
    lab.relay.shell(
        f"nft 'table ip guard {{ chain input {{ type filter hook input priority filter; "
        f"udp dport != {PORTS.replace(':', '-')} drop; }}; }}'"
    )
    with scene(lab, visitors=True) as place:
        forward = ("-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:2222:127.0.0.1:22")
        tunnel = lab.pi.popen(place.keeper.ssh(*forward, "relay", "sleep 1000"))
        wait_until(lambda: 2222 in bound_ports(lab.relay), what="the forward on the relay")
        place.guest.config.write_text(
            place.guest.config.read_text()
            + "Host pi-home\nHostName 127.0.0.1\nPort 2222\nProxyJump relay\nHostKeyAlias pi-home\n"
        )
        yield place
        end(tunnel)


@contextmanager
def mosh(place: Scene, *options: str) -> Iterator[Terminal]:
    """`tunneld mosh pi-home` to a far end that echoes, once that is ready."""
    argv = [*TUNNELD, "mosh", "-F", str(place.guest.config), "--relay-ports", PORTS, *options, "pi-home"]
    with Terminal(place.lab.laptop, [*argv, "--", *FAR_END], env=runtime(place)) as terminal:
        terminal.wait_for(READY, timeout=30)
        yield terminal


def runtime(place: Scene) -> dict[str, str]:
    folder = place.lab.laptop.directory / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    return {"XDG_RUNTIME_DIR": str(folder)}


def seen(place: Scene) -> dict[str, Any]:
    """What `tunneld mosh --paths --json` says of the session; empty when none answers."""
    asked = place.lab.laptop.run([*TUNNELD, "mosh", "--paths", "--json"], check=False, env=runtime(place))
    lines = asked.stdout.splitlines()
    return dict(json.loads(lines[0])) if lines else {}


def wait_for(place: Scene, holds: Callable[[dict[str, Any]], object], timeout: float = 20) -> dict[str, Any]:
    found: list[dict[str, Any]] = [{}]

    def asked() -> bool:
        found[0] = seen(place)
        return bool(found[0]) and bool(holds(found[0]))

    try:
        wait_until(asked, what="the way", timeout=timeout, every=0.2)
    except TimeoutError as late:
        raise AssertionError(f"{late}; {json.dumps(found[0], indent=1)}") from None
    return found[0]


def is_relayed(session: dict[str, Any]) -> bool:
    return bool(session["pair"]["in_use"].get("kind") == "relay")


def test_two_symmetric_nats_meet_at_the_jump_host(lab: Lab) -> None:
    """They meet over UDP, at a port that the relay's firewall lets through; the session logs in at the relay twice."""
    with people(lab) as place, mosh(place) as terminal:
        session = wait_for(place, is_relayed)
        assert session["pair"]["in_use"]["remote"].startswith("60.9.9.2:4011")
        assert session["jump"] == {"host": "relay", "says": f"its agent is at {session['pair']['in_use']['remote']}"}
        assert min(terminal.echoes(20, pace=0.05)) < RTT + 25
        wait_for(place, lambda session: [stream["greeted"] for stream in session["pair"]["streams"]] == [True, True])
        assert place.relay.log.count("Accepted publickey") == 1 + 2  # the tunnel, and two streams


def test_the_agent_on_the_jump_host_needs_no_ssh(lab: Lab) -> None:
    """The relay's sshd and every SSH connection there die; echoes still come, over the same path."""
    with people(lab) as place, mosh(place) as terminal:
        wait_for(place, is_relayed)
        place.relay.stop(connections=True)
        assert max(terminal.echoes(10, pace=0.3)) < 1500
        assert is_relayed(seen(place))
        place.relay.start()


def test_sessions_that_have_ended_leave_their_ports(lab: Lab) -> None:
    """Four sessions, one after the other, work with the two ports that are open."""
    with people(lab) as place:
        for _ in range(4):
            with mosh(place) as terminal:
                wait_for(place, is_relayed)
                terminal.write("\x1e.")
                terminal.process.wait(10)


def test_strangers_reach_neither_end_through_the_agent(lab: Lab) -> None:
    """The agent forwards nothing that strangers send, and the session goes on."""
    with people(lab) as place, mosh(place) as terminal:
        port = int(wait_for(place, is_relayed)["pair"]["in_use"]["remote"].rpartition(":")[2])
        before = seen(place)["pair"]["counts"]
        chance = random.Random(5)
        with lab.hosts["inet"].listener(socket.SOCK_DGRAM) as stranger:
            for _ in range(300):
                stranger.sendto(chance.randbytes(chance.randrange(1, 1472)), ("60.9.9.2", port))
                stranger.sendto(stun.request(chance.randbytes(12)), ("60.9.9.2", port))
        assert max(terminal.echoes(10, pace=0.1)) < 1500
        after = seen(place)["pair"]["counts"]
        for why in ("packets_of_strangers", "packets_forged", "packets_wrong_size", "packets_unasked"):
            assert after.get(why, 0) == before.get(why, 0), why
