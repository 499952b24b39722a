"""What happens to a tunnel and its users when its connection carries no data any more, but nobody has closed it."""

from __future__ import annotations

import signal

import pytest

from tests.lab.net import Lab
from tests.lab.product import MOSH, Daemon, profile_text
from tests.lab.scene import scene
from tunneld.core.supervise.lifecycle import State

pytestmark = pytest.mark.lab

NEVER_CHECKING = {
    "ClientAliveInterval": "0"
}  # sshd's default, with which a relay keeps a dead session's ports for hours
FREQUENT_KEEPALIVE = (
    "[keepalive]\ninterval = 1\ncount = 60\n"  # asks each second, and does not give up within a test's time
)
RARE_KEEPALIVE = "[keepalive]\ninterval = 600\n"  # does not ask within a test's time, unless something gives a reason


def test_a_host_takes_its_ports_back_after_a_power_cut(lab: Lab) -> None:
    """The relay still holds the ports for the old session; the new session ends the old one, and no other."""
    with (
        scene(lab, options=NEVER_CHECKING, visitors=True) as place,
        Daemon(lab.pi, profile_text(place.keeper)) as daemon,
    ):
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
    """Long before the keepalive gives it up, a second session takes its place, and a person's mosh goes on."""
    with (
        scene(lab, options=NEVER_CHECKING) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=MOSH + FREQUENT_KEEPALIVE)) as daemon,
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
    """After a short silence on the link, a person types on in the same session."""
    with (
        scene(lab) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=FREQUENT_KEEPALIVE)) as daemon,
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
    """The keepalive would ask only after ten minutes; when the interface comes back, the daemon asks at once."""
    with (
        scene(lab, options=NEVER_CHECKING) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=RARE_KEEPALIVE)) as daemon,
    ):
        daemon.wait_up(mosh=False)
        lab.black_hole()
        lab.pi.shell("ip link set eth0 down; ip link set eth0 up; ip route replace default via 192.168.1.1")
        daemon.wait_for(lambda status: status.sessions == 2, what="a second session")
        daemon.wait_up(mosh=False)
        with place.ssh() as ssh:
            ssh.echoes(3)


def test_a_daemon_that_stood_still_asks_at_once(lab: Lab) -> None:
    """A daemon that was stopped, as in a suspend, checks its connection at once, since that may be dead."""
    with (
        scene(lab, options=NEVER_CHECKING) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=RARE_KEEPALIVE)) as daemon,
    ):
        daemon.wait_up(mosh=False)
        daemon.send(signal.SIGSTOP)
        lab.black_hole()
        lab.pi.shell("sleep 5")
        daemon.send(signal.SIGCONT)
        daemon.wait_for(lambda status: status.sessions == 2, what="a second session")
        daemon.wait_up(mosh=False)
