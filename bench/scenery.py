"""The internet of the ingress bench, all in network namespaces: the tunnels, and the people who type through them.

    client -- NAT == internet -- relay          80 ms from client to host and back, half of it on the host's link
      host -- NAT == internet

The host's router lets UDP pass only for the port of the direct peer. Everything else must use TCP.

Tested by `python -m bench.ingress --quick`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.tunnels import MOSH, await_listener, held, profile, ssh_command, target_on, tunneld
from tests.lab.client import FAR_END, Person, person, ready
from tests.lab.net import GATEWAYS, Lab
from tests.lab.product import Daemon
from tests.lab.sshd import Sshd
from tests.lab.terminal import Terminal

CONGESTION = "cubic"  # Linux's own default, whatever this machine has: it decides how long a copy's queue becomes
ONE_WAY = 0.02  # seconds, on each of the two links: 80 ms from client to host and back

DIRECT, INGRESS = "mosh, direct UDP", "mosh, tunneld's ingress"
SOCAT, SOCAT_SESSION = "mosh, socat over ssh -R", "mosh, socat over ssh -R with a session"
SSH, SSH_PEER = "ssh, tunneld's forward", "ssh, ssh -R"
SUBJECTS = (DIRECT, INGRESS, SOCAT, SOCAT_SESSION, SSH, SSH_PEER)

TARGET = 7000  # on the host: the service that bulk copies come from
DIRECT_UDP = 60011
INGRESS_UDP = 60001
SOCAT_UDP = {SOCAT: 60021, SOCAT_SESSION: 60022}  # on the relay and, for mosh-server, on the host
SOCAT_TCP = {SOCAT: 7021, SOCAT_SESSION: 7022}
SSH_TCP = {SSH: 2222, SSH_PEER: 2223}
# Ports on the relay. A copy through this port shares the subject's tunnel; with direct UDP it shares only the link.
COPY = {INGRESS: 7101, SSH: 7101, SOCAT: 7102, SOCAT_SESSION: 7103, SSH_PEER: 7104, DIRECT: 7102}

# The rule looks at the first packet of a flow, and so holds for both directions.
ONLY_THE_DIRECT_PEER = f"nft insert rule ip filter forward meta l4proto udp ct original proto-dst != {DIRECT_UDP} drop"


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs. Each subject has a terminal; the program at its far end echoes the keys."""

    lab: Lab
    relay: Sshd
    home: Sshd
    keeper: Person
    guest: Person
    daemon: Daemon
    terminals: Mapping[str, Terminal]


@contextmanager
def stage(folder: Path, subjects: Iterable[str] = SUBJECTS) -> Iterator[Stage]:
    """All tunnels are up, and these subjects are at the prompt. The links have their delay, and no other fault."""
    with Lab(folder) as lab, ExitStack() as stack:
        for host in (lab.pi, lab.relay, lab.laptop):
            # By the route, since a namespace may not change the setting (sysctl) for the same purpose.
            host.shell(f"ip route change default via {GATEWAYS[host.name]} congctl {CONGESTION}")
        for link in (lab.home_link, lab.laptop_link):
            link.set(delay=ONE_WAY)
        lab.map_port("homegw", protocol="udp", ports=str(DIRECT_UDP), to=lab.pi.address)
        lab.hosts["homegw"].shell(ONLY_THE_DIRECT_PEER)
        keeper, guest = person(lab.pi, "keeper"), person(lab.laptop, "guest")
        relay = stack.enter_context(Sshd(lab.relay, (keeper.key.public,), {"GatewayPorts": "clientspecified"}))
        home = stack.enter_context(Sshd(lab.pi, (guest.key.public,)))
        keeper.trust(relay.known_hosts("relay"))
        guest.trust(home.known_hosts(*(f"[relay]:{port}" for port in SSH_TCP.values())))
        stack.enter_context(target_on(lab.pi, TARGET))
        daemon = stack.enter_context(_tunneld(lab, keeper))
        for name in SOCAT_UDP:
            _socat(stack, lab, keeper, name)
        stack.enter_context(held(lab.pi, _plain_ssh(keeper)))
        assert relay.process is not None
        for port in {*SSH_TCP.values(), *COPY.values(), *SOCAT_TCP.values()}:
            await_listener(relay.process.pid, port, what="a tunnel")
        daemon.wait_up()
        terminals = {name: stack.enter_context(_terminal(lab, guest, name)) for name in subjects}
        yield Stage(lab, relay, home, keeper, guest, daemon, terminals)


def _tunneld(lab: Lab, keeper: Person) -> AbstractContextManager[Daemon]:
    forwards = ((f"0.0.0.0:{SSH_TCP[SSH]}", "127.0.0.1:22"), (f"127.0.0.1:{COPY[INGRESS]}", f"127.0.0.1:{TARGET}"))
    return tunneld(lab.pi, "pi-home", profile(keeper, host="relay", port=22, forwards=forwards, rest=MOSH))


def _plain_ssh(keeper: Person) -> list[str]:
    forwards = (f"0.0.0.0:{SSH_TCP[SSH_PEER]}:127.0.0.1:22", f"127.0.0.1:{COPY[SSH_PEER]}:127.0.0.1:{TARGET}")
    return ssh_command(keeper, ("relay",), forwards)


def _socat(stack: ExitStack, lab: Lab, keeper: Person, name: str) -> None:
    """What people do by hand: UDP becomes TCP on the relay, goes through a forward, and becomes UDP on the host."""
    udp, tcp = SOCAT_UDP[name], SOCAT_TCP[name]
    forwards = (f"127.0.0.1:{tcp}:127.0.0.1:{tcp}", f"127.0.0.1:{COPY[name]}:127.0.0.1:{TARGET}")
    command = ssh_command(keeper, ("relay",), forwards)
    if name == SOCAT_SESSION:
        # With a session, sshd sets TCP_NODELAY. `-N` has no session, so Nagle's algorithm holds small datagrams back.
        command = [*(word for word in command if word != "-N"), "exec cat"]
    stack.enter_context(held(lab.pi, command, stdin=subprocess.PIPE))
    stack.enter_context(held(lab.pi, ["socat", f"TCP4-LISTEN:{tcp},fork,reuseaddr,nodelay", f"UDP4:127.0.0.1:{udp}"]))
    stack.enter_context(
        held(lab.relay, ["socat", f"UDP4-LISTEN:{udp},fork,reuseaddr", f"TCP4:127.0.0.1:{tcp},nodelay"])
    )


def _terminal(lab: Lab, guest: Person, name: str) -> Terminal:
    if name in SSH_TCP:
        return guest.ssh_terminal("-p", str(SSH_TCP[name]), "relay")
    relay = lab.relay.address
    way = {DIRECT: ("60.1.1.2", DIRECT_UDP), INGRESS: (relay, INGRESS_UDP)} | {
        each: (relay, udp) for each, udp in SOCAT_UDP.items()
    }
    address, port = way[name]
    said = lab.pi.run(["mosh-server", "new", "-p", str(port), "--", *FAR_END]).stdout
    connect = re.search(r"MOSH CONNECT (\d+) (\S+)", said)
    assert connect is not None, said
    return ready(Terminal(lab.laptop, ["mosh-client", address, connect[1]], env={"MOSH_KEY": connect[2]}))
