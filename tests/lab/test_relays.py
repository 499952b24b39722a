"""Two relays: in mode "failover" the second takes over while the first is gone; in mode "all" both serve at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.lab.client import Person, person
from tests.lab.net import Host, Lab
from tests.lab.product import MOSH, TUNNELD, Daemon, bound_ports
from tests.lab.sshd import Sshd
from tests.lab.terminal import Terminal
from tests.until import wait_until
from tunneld.core.supervise.failover import SETTLED_AFTER
from tunneld.core.supervise.lifecycle import State
from tunneld.status.snapshot import TunnelStatus

pytestmark = pytest.mark.lab

SECOND = "60.2.2.1"  # the host `inet` is the second relay; this is its address on the laptop's side
SOCKS = 1080
FORWARDS = """
[[forward]]
listen = "0.0.0.0:2222"
to = "127.0.0.1:22"
"""
PROXY = f"""
[[forward]]
listen = "127.0.0.1:{SOCKS}"
direction = "dynamic"
"""
QUICK = "[keepalive]\ninterval = 1\ncount = 2\n[backoff]\ninitial = 0.5\nmaximum = 2\nreturn_after = 4\n"


@dataclass(frozen=True, slots=True)
class Place:
    """`first` and `second` are the sshds of the two relays; the guest trusts pi's host key through either relay."""

    lab: Lab
    first: Sshd
    second: Sshd
    keeper: Person
    guest: Person

    def profile(self, mode: str, rest: str) -> str:
        relays = "".join(
            f'[[relay]]\nhost = "{host}"\nuser = "root"\nidentity = "{self.keeper.key.path}"\n'
            f'known_hosts = "{self.keeper.known_hosts}"\nssh_config = false\n'
            for host in ("relay", SECOND)
        )
        return f'mode = "{mode}"\n{relays}{FORWARDS}{rest}{QUICK}'

    def ssh(self, host: str) -> Terminal:
        return self.guest.ssh_terminal("-p", "2222", host)


@pytest.fixture
def place(lab: Lab) -> Iterator[Place]:
    keeper, guest = person(lab.pi, "keeper"), person(lab.laptop, "guest")
    options = {"GatewayPorts": "clientspecified"}
    with contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(Sshd(machine, (keeper.key.public,), options))
            for machine in (lab.relay, lab.hosts["inet"])
        )
        home = stack.enter_context(Sshd(lab.pi, (guest.key.public,)))
        keeper.trust(first.known_hosts("relay") + second.known_hosts(SECOND))
        guest.trust(home.known_hosts("[relay]:2222", f"[{SECOND}]:2222"))
        yield Place(lab, first, second, keeper, guest)


def test_the_second_takes_over_and_gives_back(place: Place) -> None:
    """A person who uses the first relay before its return to service is not disturbed by that return."""
    second = place.lab.hosts["inet"]
    with Daemon(place.lab.pi, place.profile("failover", MOSH + PROXY)) as daemon:
        daemon.wait_up()
        assert bound_ports(second).isdisjoint({2222, 60001})
        place.first.stop(connections=True)
        daemon.wait_for(_serves(SECOND, mosh=True), what="the second relay", timeout=15)
        assert SOCKS in bound_ports(place.lab.pi)
        with place.ssh(SECOND) as ssh, place.guest.mosh_terminal(SECOND, "-p", "2222") as mosh:
            ssh.echoes(3)
            mosh.echoes(3)
        daemon.wait_for(lambda status: status.since > SETTLED_AFTER, what="the second relay has served for long enough")
        place.first.start()
        daemon.wait_for(lambda status: _states(status) == ["up", "up"], what="the first relay is healthy")
        assert {2222} <= bound_ports(place.lab.relay) & bound_ports(second)
        with place.ssh("relay") as ssh:
            ssh.echoes(3)
            daemon.wait_for(_serves("relay", mosh=True), what="the first relay again", timeout=15)
            ssh.echoes(3)
        wait_until(lambda: 2222 not in bound_ports(second), what="the second is left")
        assert SOCKS in bound_ports(place.lab.pi)
        with place.guest.mosh_terminal("relay", "-p", "2222") as mosh:
            mosh.echoes(3)
        assert daemon.log.count('"relay_changed"') == 2
        assert daemon.stop() == 0


def test_a_relay_that_is_cut_off_is_replaced_before_it_is_given_up(place: Place) -> None:
    """The second relay serves while the first session is still open; that session serves again once packets pass."""
    patient = place.profile("failover", "").replace("count = 2", "count = 60")
    with Daemon(place.lab.pi, patient) as daemon:
        daemon.wait_up(mosh=False)
        _drop(place.lab.relay)
        status = daemon.wait_for(_serves(SECOND), what="the second relay", timeout=15)
        assert status.relays[0].state is State.UP
        with place.ssh(SECOND) as ssh:
            ssh.echoes(3)
        place.lab.relay.run(["nft", "flush", "ruleset"])
        daemon.wait_for(_serves("relay"), what="the first relay again", timeout=20)
        with place.ssh("relay") as ssh:
            ssh.echoes(3)


def test_every_relay_at_once(place: Place) -> None:
    """When one relay dies, the other is not disturbed; the tunnel stays up, and the first joins again."""
    with Daemon(place.lab.pi, place.profile("all", MOSH)) as daemon:
        daemon.wait_for(_all_up, what="both relays")
        for host in ("relay", SECOND):
            with place.guest.mosh_terminal(host, "-p", "2222") as mosh:
                mosh.echoes(3)
        with place.ssh(SECOND) as ssh:
            place.first.stop(connections=True)
            status = daemon.wait_for(lambda status: _states(status) == ["backoff", "up"], what="one relay")
            assert status.state is State.UP
            assert "1 of 2 relays up" in _said(daemon)
            ssh.echoes(3)
            place.first.start()
            daemon.wait_for(_all_up, what="both relays")
            ssh.echoes(3)
        assert daemon.stop() == 0
        assert bound_ports(place.lab.relay).isdisjoint({2222, 60001})


def _serves(host: str, *, mosh: bool = False) -> Callable[[TunnelStatus], bool]:
    def holds(status: TunnelStatus) -> bool:
        ready = not mosh or status.mosh.state == "ready"
        return status.state is State.UP and status.relay == f"root@{host}" and ready

    return holds


def _all_up(status: TunnelStatus) -> bool:
    return _states(status) == ["up", "up"] and all(each.mosh.state == "ready" for each in status.relays)


def _states(status: TunnelStatus) -> list[str]:
    return [each.state.value for each in status.relays]


def _said(daemon: Daemon) -> str:

    return daemon.machine.run([*TUNNELD, "status", daemon.name], env=daemon.environment).stdout


def _drop(machine: Host) -> None:
    """From now on the machine drops every packet that comes in."""
    machine.shell(
        "nft add table ip cut; nft 'add chain ip cut inward { type filter hook input priority 0; policy drop; }'"
    )
