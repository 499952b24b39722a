"""A laptop that sleeps: nothing on it runs, no packet reaches it, and the world forgets it meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator

from tests.lab.net import Host, Lab
from tests.lab.product import processes
from tests.sshd import standing_still

OUTSIDE = "60.2.2.2"  # where the laptop's connections come from


@contextlib.contextmanager
def asleep(lab: Lab) -> Iterator[None]:
    """The laptop sleeps in this block: its network goes first and comes back last."""
    lab.laptop_link.cut()
    try:
        with standing_still(processes(lab.laptop)):
            yield
    finally:
        lab.laptop_link.mend()


def forget_flows(lab: Lab) -> None:
    """Both routers forget every flow."""
    for gateway in ("homegw", "lapgw"):
        lab.hosts[gateway].shell("conntrack -F")


def end_ssh(lab: Lab) -> None:
    """The servers give the laptop's connections up; who speaks on one afterwards is told so."""
    pids = {pid for host in (lab.relay, lab.pi) for _, pid in _connections(host)}
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def lose_ssh(lab: Lab) -> None:
    """What the laptop says on its connections of now gets lost, and nobody is told."""
    ports = {port for host in (lab.relay, lab.pi) for port, _ in _connections(host)}
    assert ports
    rule = f"ip saddr 60.2.2.0/24 tcp sport {{ {', '.join(sorted(ports))} }} drop"
    lab.hosts["inet"].shell(
        f"nft 'table ip hole {{ chain forward {{ type filter hook forward priority filter; {rule}; }}; }}'"
    )


def _connections(server: Host) -> list[tuple[str, int]]:
    """The laptop's port, and sshd's process, of each."""
    lines = server.run(["ss", "-Htnp", "state", "established", "sport = :22", "dst", OUTSIDE]).stdout.splitlines()
    return [(line.split()[3].rpartition(":")[2], int(pid)) for line in lines for pid in re.findall(r"pid=(\d+)", line)]
