"""The canary: status says of each forward whether data passes, with real servers on every machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lab.net import Lab
from tests.lab.product import QUICK, TUNNELD, Daemon, profile_text
from tests.lab.scene import scene
from tunneld.core.supervise.lifecycle import State
from tunneld.status.snapshot import TunnelStatus

pytestmark = pytest.mark.lab

DELAY = 0.02  # seconds each way on the host's link; a canary's visit takes two round trips

# The relay refuses all connections to the forward's port, as after somebody has set up a firewall.
REFUSE_FORWARD = (
    "nft add table inet wall; nft add chain inet wall in '{ type filter hook input priority 0; }';"
    " nft add rule inet wall in tcp dport 2222 reject with tcp reset"
)


def verdict(wanted: str) -> Callable[[TunnelStatus], bool]:
    def holds(status: TunnelStatus) -> bool:
        canary = status.forwards[0].canary
        return canary is not None and canary.verdict == wanted

    return holds


@pytest.mark.parametrize("options", [{}, {"AllowTcpForwarding": "remote"}], ids=["by channel", "by program"])
def test_a_canary_goes_all_the_way_and_is_not_counted(lab: Lab, options: dict[str, str]) -> None:
    """Its two round trips are told in milliseconds; only a person's connection is counted as the first."""
    lab.home_link.set(delay=DELAY)
    with scene(lab, options=options) as place, Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as daemon:
        status = daemon.wait_for(verdict("passes"), what="the canary is back")
        (forward,) = status.forwards
        assert forward.canary is not None
        assert forward.canary.rtt is not None
        assert 4 * DELAY < forward.canary.rtt < 1
        assert (forward.connections, forward.total) == (0, 0)
        told = lab.pi.run([*TUNNELD, "status", daemon.name], env=daemon.environment).stdout
        assert "0 connections (0 in all); passes in " in told
        with place.ssh() as ssh:
            ssh.echoes(3)
            assert [each.total for each in daemon.wait_up(mosh=False).forwards] == [1]


def test_a_dead_target_is_told_from_a_dead_tunnel(lab: Lab) -> None:
    """The host's sshd does not run: the tunnel is up, and status says that the target refuses connections."""
    with scene(lab) as place:
        place.home.stop()
        with Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as daemon:
            status = daemon.wait_for(verdict("target"), what="the canary is back")
            assert status.state is State.UP
            assert status.forwards[0].canary is not None
            assert status.forwards[0].canary.text == "Connection refused"


def test_a_relay_that_allows_only_listening_keeps_the_tunnel(lab: Lab) -> None:
    """The relay allows neither a channel nor a command: the tunnel works, and status names the setting to change."""
    with (
        scene(lab, authorized=lambda key: f'permitopen="192.0.2.1:1",command="exit 1" {key}') as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as daemon,
    ):
        status = daemon.wait_for(verdict("unknown"), what="the canary is back")
        assert status.forwards[0].canary is not None
        assert "permitopen" in status.forwards[0].canary.text
        with place.ssh() as ssh:
            ssh.echoes(3)


def test_a_session_that_passes_nothing_is_made_anew(lab: Lab) -> None:
    """The session answers and its port listens, but no data passes; two failed visits end it, one could be chance."""
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper, rest=QUICK)) as daemon:
        daemon.wait_for(verdict("passes"), what="the canary is back")
        daemon.stop()
        lab.relay.shell(REFUSE_FORWARD)
        daemon.start()
        status = daemon.wait_for(verdict("broken"), what="the canary is back")
        assert status.state is State.UP
        status = daemon.wait_for(lambda status: status.sessions == 2, what="another session", timeout=60)
        assert status.failure is not None
        assert "0.0.0.0:2222 is broken" in status.failure.text
        lab.relay.shell("nft delete table inet wall")
        daemon.wait_for(verdict("passes"), what="the canary is back", timeout=60)
