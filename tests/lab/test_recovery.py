"""Back before anyone notices: what becomes of the tunnel, and of its users, when its connection is as good as dead."""

from __future__ import annotations

import signal

import pytest

from tests.lab.net import Lab
from tests.lab.product import MOSH, Daemon, profile_text
from tests.lab.scene import scene
from tunneld.core.supervise.lifecycle import State

pytestmark = pytest.mark.lab

NEVER = {"ClientAliveInterval": "0"}  # sshd's default: the relay by itself would hold the ports for hours
ATTENTIVE = "[keepalive]\ninterval = 1\ncount = 60\n"  # asks each second, and gives nobody up within a test's time
PATIENT = "[keepalive]\ninterval = 600\n"  # asks nobody within a test's time, unless there is a reason


def test_a_host_takes_its_ports_back_after_a_power_cut(lab: Lab) -> None:
    """The relay still holds them for the session of before, and would for hours; the new one ends it, and only it."""
    with scene(lab, options=NEVER, visitors=True) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        lab.black_hole()
        daemon.send(signal.SIGKILL)
        daemon.process.wait()
        with place.guest.ssh_terminal("relay") as visitor:
            daemon.start()
            daemon.wait_up()
            with place.ssh() as ssh, place.mosh() as mosh:
                ssh.echoes(3)
                mosh.echoes(3)
            visitor.echoes(3)


@pytest.mark.parametrize("ways", [(), ("up",), ("down",)], ids=["both ways", "up", "down"])
def test_a_connection_that_carries_nothing_is_replaced(lab: Lab, ways: tuple[str, ...]) -> None:
    """Long before it is given up: a second session takes its place, and a person's mosh goes on."""
    with (
        scene(lab, options=NEVER) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=MOSH + ATTENTIVE)) as daemon,
    ):
        daemon.wait_up()
        with place.mosh() as mosh:
            mosh.echoes(3)
            lab.black_hole(*ways)
            daemon.wait_for(lambda status: status.sessions == 2, what="a second session")
            daemon.wait_up()
            mosh.echoes(3)
        with place.ssh() as ssh:
            ssh.echoes(3)


def test_a_session_that_is_merely_late_stays(lab: Lab) -> None:
    """Two seconds without a packet: whoever types goes on in the same session."""
    with (
        scene(lab) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=ATTENTIVE)) as daemon,
    ):
        daemon.wait_up(mosh=False)
        with place.ssh() as ssh:
            ssh.echoes(3)
            lab.home_link.cut()
            daemon.wait_for(lambda status: status.silence is not None, what="doubt")
            lab.home_link.mend()
            ssh.echoes(3)
        status = daemon.wait_for(lambda status: status.silence is None, what="trust")
        assert status.state is State.UP


def test_a_cable_that_is_plugged_in_again_is_noticed(lab: Lab) -> None:
    """Nobody would ask for ten minutes; the interface that comes back makes the daemon ask at once."""
    with (
        scene(lab, options=NEVER) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=PATIENT)) as daemon,
    ):
        daemon.wait_up(mosh=False)
        lab.black_hole()
        lab.pi.shell("ip link set eth0 down; ip link set eth0 up; ip route replace default via 192.168.1.1")
        daemon.wait_for(lambda status: status.sessions == 2, what="a second session")
        daemon.wait_up(mosh=False)
        with place.ssh() as ssh:
            ssh.echoes(3)


def test_a_daemon_that_stood_still_asks_at_once(lab: Lab) -> None:
    """After a suspend, or a machine that was paused, its connection may be long gone."""
    with (
        scene(lab, options=NEVER) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=PATIENT)) as daemon,
    ):
        daemon.wait_up(mosh=False)
        daemon.send(signal.SIGSTOP)
        lab.black_hole()
        lab.pi.shell("sleep 5")
        daemon.send(signal.SIGCONT)
        daemon.wait_for(lambda status: status.sessions == 2, what="a second session")
        daemon.wait_up(mosh=False)
