"""The booted machine works as tests expect, without tunneld on it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.booted import Booted
from tests.lab.net import Lab

pytestmark = pytest.mark.lab

BOOTS = "journalctl --list-boots --no-pager | grep -cE '^ *-?[0-9]+ '"
UNIT = "[Service]\nType=oneshot\nExecStart=touch /run/it-ran\n[Install]\nWantedBy=multi-user.target\n"


@pytest.fixture
def machine(able_to_boot: None, lab: Lab) -> Iterator[Booted]:
    with Booted(lab.pi) as booted:
        yield booted


def test_what_is_enabled_runs_after_a_power_cut(machine: Booted) -> None:
    """After a new boot from the same disk, files are there, /run is empty, and enabled units start."""
    first = machine.shell(BOOTS)
    machine.write("/etc/systemd/system/probe.service", UNIT)
    machine.shell("systemctl enable probe; touch /run/gone /root/kept")
    assert not machine.path("/run/it-ran").exists()
    machine.cut_power()
    machine.boot()
    assert machine.path("/run/it-ran").exists()
    assert machine.path("/root/kept").exists()
    assert not machine.path("/run/gone").exists()
    assert (first, machine.shell(BOOTS)) == ("1\n", "2\n")


def test_a_booted_machine_is_on_the_network_of_its_host(lab: Lab, machine: Booted) -> None:
    """It has pi's address and knows the relay by name."""
    assert "192.168.1.2" in machine.shell("ip -4 -o address show eth0")
    assert "60.9.9.2" in machine.shell("getent hosts relay")


def test_a_booted_machine_is_healthy(machine: Booted) -> None:
    """No unit fails without tunneld, so a unit that fails in another test is ours."""
    assert machine.run(["systemctl", "is-system-running"]).stdout.strip() == "running"
    assert machine.shell("systemctl --failed --no-legend") == ""


def test_a_booted_machine_leaves_nothing_behind(able_to_boot: None, lab: Lab) -> None:
    """No process, mount or cgroup is left, and this machine's /dev and /etc have not changed."""
    before = footprint(lab)
    with Booted(lab.pi) as machine:
        machine.shell("hostname elsewhere; touch /etc/written /dev/made; useradd --create-home vera")
        assert footprint(lab) != before
    assert footprint(lab) == before


def footprint(lab: Lab) -> dict[str, object]:
    """All that a machine on pi's network could leave here. Other runs of the lab use other names."""
    groups = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "mount -t cgroup2 none /mnt; find /mnt -name '*-booted'"],
        capture_output=True,
        text=True,
        check=True,
    )
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return {
        "mounts": [line for line in mounts if str(lab.directory) in line or lab.pi.namespace in line],
        "hostname": Path("/proc/sys/kernel/hostname").read_text(),
        "users": Path("/etc/passwd").read_text(),
        "written": Path("/etc/written").exists() or Path("/dev/made").exists() or Path("/dev/log").exists(),
        "cgroups": [line for line in groups.stdout.splitlines() if lab.pi.namespace in line],
        "processes": subprocess.run(["ip", "netns", "pids", lab.pi.namespace], capture_output=True).stdout,
    }
