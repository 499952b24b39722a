"""A laptop that sleeps: no program on it runs, no packet reaches it, and routers and servers forget its connections."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator

from tests.lab.net import Host, Lab
from tests.lab.product import processes
from tests.sshd import standing_still

OUTSIDE = "60.2.2.2"  # the laptop's address as the servers see it


@contextlib.contextmanager
def asleep(lab: Lab) -> Iterator[None]:
    """The laptop sleeps in this block: its link is cut before its programs stop, and mended after they continue."""
    lab.laptop_link.cut()
    try:
        with standing_still(processes(lab.laptop)):
            yield
    finally:
        lab.laptop_link.mend()


def forget_flows(lab: Lab) -> None:
    """Make both routers forget every flow."""
    for gateway in ("homegw", "lapgw"):
        lab.hosts[gateway].shell("conntrack -F")


def kill_ssh(lab: Lab) -> None:
    """Kill the laptop's sshd sessions; what the laptop sends on those connections afterwards is answered by RST."""
    pids = {pid for host in (lab.relay, lab.pi) for _, pid in _connections(host)}
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def drop_ssh(lab: Lab) -> None:
    """Drop all that the laptop sends on its present SSH connections; neither side is told."""
    ports = {port for host in (lab.relay, lab.pi) for port, _ in _connections(host)}
    assert ports
    rule = f"ip saddr 60.2.2.0/24 tcp sport {{ {', '.join(sorted(ports))} }} drop"
    lab.hosts["inet"].shell(
        f"nft 'table ip hole {{ chain forward {{ type filter hook forward priority filter; {rule}; }}; }}'"
    )


def _connections(server: Host) -> list[tuple[str, int]]:
    """The laptop's port and the process id of sshd, for each SSH connection from the laptop."""
    lines = server.run(["ss", "-Htnp", "state", "established", "sport = :22", "dst", OUTSIDE]).stdout.splitlines()
    return [(line.split()[3].rpartition(":")[2], int(pid)) for line in lines for pid in re.findall(r"pid=(\d+)", line)]
