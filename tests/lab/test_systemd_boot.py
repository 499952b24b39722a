"""A tunnel that was enabled once comes up by itself after every kind of boot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.service import CHECKING_RELAY, USER_PROFILES, Home, home, profile
from tests.lab.sshd import Sshd
from tunneld.core.supervise.lifecycle import State

pytestmark = pytest.mark.lab

LATE = 30  # seconds after the boot when the network comes
DOWN = 60  # seconds after the boot when the relay of `office` comes
QUICK = "[backoff]\nmaximum = 5\n"  # the default is a minute, whose random part would make these tests slow


@pytest.fixture
def pi(able_to_boot: None, tmp_path: Path) -> Iterator[Home]:
    with home(tmp_path, options=CHECKING_RELAY) as made:
        yield made


def test_an_enabled_tunnel_is_up_after_a_boot(pi: Home) -> None:
    """An orderly shutdown frees the ports; after the boot the tunnel is up within seconds."""
    pi.enable(profile(2222))
    pi.wait_passing()
    pi.machine.shut_down()
    assert not pi.holds(2222)
    pi.machine.boot(wait=False)
    pi.wait_passing(timeout=15)
    assert pi.wait_up().attempts == 1
    assert pi.machine.run(["systemctl", "is-system-running", "--wait"]).stdout.strip() == "running"


def test_a_tunnel_is_up_after_a_power_cut(pi: Home) -> None:
    """The relay still holds the dead session's port for a while; the tunnel takes it as soon as it can."""
    pi.enable(profile(2222, rest=QUICK))
    with pi.connect():
        pi.lab.home_link.cut()
        pi.machine.cut_power()
        forget_connections(pi)
        pi.lab.home_link.mend()
        assert pi.holds(2222)  # the relay does not know of the power cut
        pi.machine.boot(wait=False)
        pi.wait_passing(timeout=30)
    assert pi.wait_up().sessions == 1


def test_a_user_s_tunnel_is_up_after_a_boot_without_a_login(pi: Home) -> None:
    """The user vera enables it without root, which switches lingering on; she need not log in again."""
    pi.write_profile(profile(2322), name="vera-home", folder=USER_PROFILES)
    said = pi.type("tunneld enable vera-home", user="vera")
    assert "linger   switched on" in said
    assert "tunnel   vera-home: up 0 s to relay" in said
    assert pi.machine.path("/var/lib/systemd/linger/vera").exists()
    pi.machine.cut_power()
    pi.machine.boot(wait=False)
    pi.wait_passing(2322, timeout=30)
    assert pi.machine.shell("loginctl list-sessions --no-legend") == ""
    shown = pi.type("systemctl --user status --no-pager tunneld@vera-home", user="vera")
    assert 'Status: "up ' in shown
    said = pi.type("tunneld status", user="vera")
    assert "tunneld@vera-home.service: running, starts at boot" in said
    assert "linger   stays on" in pi.type("tunneld disable vera-home", user="vera")
    assert pi.type("find ~/.config/systemd $XDG_RUNTIME_DIR/tunneld -name '*tunneld*' 2>&- || :", user="vera") == ""
    assert not pi.holds(2322)


def test_a_boot_without_network_or_relay_ends_in_a_tunnel(pi: Home) -> None:
    """The services are ready though no relay can be reached; the tunnels come up later.

    `pi-home` finds its relay when the network comes, half a minute late; the relay of `office` is away for a minute.
    """
    office = Sshd(pi.lab.relay, pi.scene.relay.authorized, pi.scene.relay.options, port=2022, name="office")
    pi.machine.write("/root/.ssh/known_hosts", pi.scene.keeper.known_hosts.read_text() + office.known_hosts("relay"))
    pi.enable(profile(2222, rest=QUICK))
    pi.write_profile(profile(2422, relay="port = 2022\n", rest=QUICK), name="office")
    assert "nothing listens at relay:2022" in pi.type("tunneld enable office")
    pi.machine.shut_down()
    pi.lab.pi.shell("ip link set eth0 down")
    pi.machine.boot()
    booted = time.monotonic()
    assert pi.machine.run(["systemctl", "is-system-running"]).stdout.strip() == "running"
    for name in ("pi-home", "office"):
        assert pi.property("ActiveState", unit=f"tunneld@{name}") == "active"
        pi.wait_for(lambda status: status.state is State.BACKOFF, what="it has tried", name=name)
        assert "next try in" in pi.shown(f"tunneld@{name}")
    time.sleep(booted + LATE - time.monotonic())  # a real sleep: this is the length of the fault
    pi.lab.pi.shell("ip link set eth0 up; ip route add default via 192.168.1.1")
    pi.wait_passing(timeout=15)
    assert not pi.holds(2422)
    time.sleep(booted + DOWN - time.monotonic())
    with office:
        pi.wait_passing(2422, timeout=15)
        assert pi.wait_up("office").sessions == 1
        for name in ("pi-home", "office"):
            assert pi.property("NRestarts", unit=f"tunneld@{name}") == "0"
            assert len(pi.journal(name).splitlines()) < 20  # a minute without a relay does not fill the journal


def forget_connections(pi: Home) -> None:
    """Drop what the kernel still sends on the dead machine's connections: a machine without power sends nothing."""
    pi.lab.pi.shell("nft add table ip dead; nft 'add chain ip dead out { type filter hook output priority 0; }'")
    for line in pi.lab.pi.shell("ss -Htn state all dport = :22").splitlines():
        port = line.split()[3].rpartition(":")[2]
        pi.lab.pi.shell(f"nft add rule ip dead out tcp sport {port} drop")
