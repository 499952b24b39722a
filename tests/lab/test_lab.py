"""The lab works as tests expect, shown with plain OpenSSH and plain mosh, without tunneld."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab import namespace
from tests.lab.client import Person, person
from tests.lab.net import CONE, RENUMBERING, SYMMETRIC, Lab
from tests.lab.sshd import Sshd
from tests.lab.terminal import Terminal
from tests.lab.udp import PORT, outside_address, receive, reflector, round_trips, udp_socket
from tests.until import wait_until

pytestmark = pytest.mark.lab

RELAY = ("60.9.9.2", PORT)
INET = ("60.1.1.1", PORT)


def test_a_link_delays_by_what_it_was_told(lab: Lab) -> None:
    """With 40 ms each way, the median round trip is 81 ms, give or take 2."""
    lab.home_link.set(delay=0.04)
    with reflector(lab.relay), udp_socket(lab.pi) as asking:
        assert statistics.median(round_trips(asking, RELAY, count=20)) == pytest.approx(81, abs=2)


def test_a_link_without_settings_costs_next_to_nothing(lab: Lab) -> None:
    """The emulator itself adds less than 2 ms to a round trip."""
    with reflector(lab.relay), udp_socket(lab.pi) as asking:
        assert statistics.median(round_trips(asking, RELAY, count=50)) < 2


def test_jitter_spreads_the_delay(lab: Lab) -> None:
    """Up to 20 ms are added to a frame, evenly."""
    lab.home_link.set("up", jitter=0.02)
    with reflector(lab.relay), udp_socket(lab.pi) as asking:
        taken = round_trips(asking, RELAY, count=60)
    assert min(taken) < 6
    assert statistics.median(taken) == pytest.approx(10, abs=4)
    assert max(taken) > 14


def test_a_link_loses_by_what_it_was_told(lab: Lab) -> None:
    """Of 2,000 datagrams at 10 %, 200 are lost, give or take four standard deviations, and none the other way."""
    lab.home_link.set("up", loss=0.1)
    with udp_socket(lab.pi) as sending, udp_socket(lab.relay, port=PORT) as receiving:
        for sent in range(100, 2001, 100):  # the kernel drops what exceeds a thousand frames at once
            for _ in range(100):
                sending.sendto(b"x", RELAY)
            _wait_for_frames(lab, sent)
        arrived = 0
        while receive(receiving, timeout=0.2) is not None:
            arrived += 1
    assert 2000 - arrived == lab.home_link.counters()["up"]["lost"] == pytest.approx(200, abs=54)
    assert lab.home_link.counters()["down"]["lost"] == 0


def test_a_rate_is_kept_and_its_queue_is_bounded(lab: Lab) -> None:
    """At 1 Mbit/s a frame of 1,250 bytes takes 10 ms; with room for ten, some 29 of 40 sent at once are dropped."""
    lab.home_link.set("up", rate=1_000_000, room=12_500)
    with udp_socket(lab.pi) as sending, udp_socket(lab.relay, port=PORT) as receiving:
        started = time.monotonic()
        for _ in range(40):
            sending.sendto(bytes(1250 - 42), RELAY)  # 42 bytes are Ethernet's, IP's and UDP's
        arrivals = []
        while receive(receiving, timeout=0.2) is not None:
            arrivals.append(time.monotonic() - started)
        assert lab.home_link.counters()["up"]["overflowed"] == 40 - len(arrivals) == pytest.approx(29, abs=2)
    assert arrivals[-1] == pytest.approx(0.01 * len(arrivals), abs=0.01)


def test_a_cut_is_silent_and_can_be_mended(lab: Lab) -> None:
    """During a cut no datagram and no error comes; afterwards the same sockets work again."""
    with reflector(lab.relay), udp_socket(lab.pi) as asking:
        before = outside_address(asking, RELAY)
        lab.home_link.cut()
        assert outside_address(asking, RELAY) is None
        lab.home_link.mend()
        assert outside_address(asking, RELAY) == before


def test_one_direction_can_be_cut_alone(lab: Lab) -> None:
    """With the way down cut, what pi sends still arrives."""
    with udp_socket(lab.relay, port=PORT) as receiving, udp_socket(lab.pi) as sending:
        lab.home_link.cut("down")
        sending.sendto(b"one way", RELAY)
        assert receive(receiving, timeout=1) == b"one way"
        assert lab.home_link.counters()["up"]["passed"] == 1


def test_a_cone_keeps_the_port_for_every_destination(lab: Lab) -> None:
    """A port-restricted cone: from outside, the socket has one address for all, with its own port number."""
    with reflector(lab.relay), reflector(lab.hosts["inet"]), udp_socket(lab.pi) as asking:
        expected = f"60.1.1.2:{asking.getsockname()[1]}"
        assert [outside_address(asking, there) for there in (RELAY, INET)] == [expected, expected]


def test_a_symmetric_nat_has_a_port_for_each_destination(lab: Lab) -> None:
    """The same socket looks different from two places."""
    lab.set_nat("homegw", SYMMETRIC)
    with reflector(lab.relay), reflector(lab.hosts["inet"]), udp_socket(lab.pi) as asking:
        seen = [outside_address(asking, there) for there in (RELAY, INET)]
        port = asking.getsockname()[1]
    assert all(address and address.startswith("60.1.1.2:") for address in seen)
    assert len({*seen, f"60.1.1.2:{port}"}) == 3


def test_a_renumbering_nat_has_one_other_port_for_every_destination(lab: Lab) -> None:
    """All places see the same port, which is not the socket's own and cannot be guessed."""
    lab.set_nat("homegw", RENUMBERING)
    with reflector(lab.relay), reflector(lab.hosts["inet"]), udp_socket(lab.pi) as asking:
        seen = {outside_address(asking, there) for there in (RELAY, INET)}
        port = asking.getsockname()[1]
    assert len(seen) == 1
    assert f"60.1.1.2:{port}" not in seen


@pytest.mark.parametrize("kind", [CONE, SYMMETRIC, RENUMBERING])
def test_unasked_datagrams_do_not_come_in_from_outside(lab: Lab, kind: str) -> None:
    """A datagram to the router's public address reaches neither it nor the host, unless a port is mapped."""
    lab.set_nat("homegw", kind)
    with udp_socket(lab.pi, port=PORT) as inside, udp_socket(lab.hosts["homegw"], port=PORT) as router:
        with udp_socket(lab.relay) as outside:
            outside.sendto(b"hello", ("60.1.1.2", PORT))
            assert receive(router, timeout=0.2) is None
            assert receive(inside, timeout=0) is None
            lab.map_port("homegw", protocol="udp", ports=str(PORT), to="192.168.1.2")
        with udp_socket(lab.relay) as outside:
            outside.sendto(b"hello", ("60.1.1.2", PORT))
            assert receive(inside, timeout=1) == b"hello"


def test_openssh_reaches_the_host_through_its_reverse_tunnel(lab: Lab) -> None:
    """`ssh -R` goes out through the NAT, and the laptop comes back through the relay to pi's own sshd."""
    keeper, guest = person(lab.pi), person(lab.laptop)
    with Sshd(lab.pi, (guest.key.public,)) as home, _relay(lab, keeper.key.public) as relay:
        keeper.trust(relay.known_hosts("relay"))
        guest.trust(home.known_hosts("[relay]:2222"))
        _hold_tunnel(keeper, relay, "0.0.0.0:2222:127.0.0.1:22")
        said = lab.laptop.run(guest.ssh("-p", "2222", "relay", "echo $SSH_CONNECTION; cat /etc/hostname"))
    assert said.stdout.startswith("127.0.0.1 ")


def test_without_gatewayports_the_relay_is_the_jump_host(lab: Lab) -> None:
    """The ssh half of the documented way: jump over the relay to the relay's own 127.0.0.1:2222, which leads to pi."""
    keeper, guest = person(lab.pi), person(lab.laptop)
    with (
        Sshd(lab.pi, (guest.key.public,)) as home,
        _relay(lab, keeper.key.public, guest.key.public, GatewayPorts="no") as relay,
    ):
        keeper.trust(relay.known_hosts("relay"))
        guest.trust(relay.known_hosts("relay") + home.known_hosts("pi-home"))
        _hold_tunnel(keeper, relay, "127.0.0.1:2222:127.0.0.1:22")
        jump = ("-J", "relay", "-p", "2222", "-o", "HostName=127.0.0.1", "-o", "HostKeyAlias=pi-home")
        # The address, not the name: `mosh --experimental-remote-ip=local` passes the address to ssh.
        with guest.ssh_terminal(*jump, "60.9.9.2") as terminal:
            assert max(terminal.echoes(5)) < 1000


def test_a_plain_mosh_session_types_and_echoes(lab: Lab) -> None:
    """The stock script starts a session on the relay; an echo takes one round trip and mosh's few milliseconds."""
    guest = person(lab.laptop)
    lab.laptop_link.set(delay=0.04)
    with _relay(lab, guest.key.public) as relay:
        guest.trust(relay.known_hosts("relay"))
        with guest.mosh_terminal("relay") as terminal:
            assert 80 < statistics.median(terminal.echoes(20)) < 110


def test_a_mosh_session_survives_a_cut(lab: Lab) -> None:
    """What is typed during a cut is shown when the link is back."""
    guest = person(lab.laptop)
    with _relay(lab, guest.key.public) as relay:
        guest.trust(relay.known_hosts("relay"))
        with guest.mosh_terminal("relay") as terminal:
            terminal.echo()
            lab.laptop_link.cut()
            mark = terminal.mark()
            terminal.write("still here")
            with pytest.raises(AssertionError):
                terminal.wait_for("still here", since=mark, timeout=1)
            lab.laptop_link.mend()
            terminal.wait_for("still here", since=mark, timeout=10)


def test_a_terminal_adds_little_to_an_echo(lab: Lab) -> None:
    """An echo by the local kernel is measured in less than 3 ms."""
    with Terminal(lab.pi, ["cat"]) as terminal:
        assert statistics.median(terminal.echoes(50)) < 3


def test_a_relay_reboot_ends_its_sessions(lab: Lab) -> None:
    """A restart of the relay's sshd ends the `ssh -R` that it served."""
    keeper = person(lab.pi)
    with _relay(lab, keeper.key.public) as relay:
        keeper.trust(relay.known_hosts("relay"))
        tunnel = _hold_tunnel(keeper, relay, "0.0.0.0:2222:127.0.0.1:22")
        relay.restart()
        assert tunnel.wait(10)


def test_python_can_be_hidden_on_one_host(lab: Lab) -> None:
    """Python is hidden on the relay only, and the machine itself does not change."""
    lab.relay.hide_programs("python*")
    assert lab.relay.run(["sh", "-c", "command -v python3 || echo none"]).stdout == "none\n"
    assert lab.pi.run(["sh", "-c", "command -v python3"]).stdout


def test_nothing_stays_behind(able: None, tmp_path: Path) -> None:
    """A lab that ends by an error has removed its namespaces and killed the daemons in them."""
    with pytest.raises(ZeroDivisionError), Lab(tmp_path) as lab:
        names = [host.namespace for host in lab.hosts.values()]
        daemon = int(lab.pi.shell("setsid sleep 4711 >/dev/null 2>&1 & echo $!"))
        assert namespace.start_time(daemon)
        raise ZeroDivisionError
    assert not [name for name in names if (namespace.RUN_NETNS / name).exists()]
    wait_until(lambda: not namespace.start_time(daemon), what="the daemon is dead")


def test_leftovers_of_a_dead_run_are_swept(able: None) -> None:
    """A namespace is deleted when the process that made it is gone, and kept while that process lives."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    dead, alive = f"lab-{gone.pid}-1-0-pi", namespace.name_of(999, "pi")
    for name in (dead, alive):
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        assert dead in namespace.sweep()
        assert (namespace.RUN_NETNS / alive).exists()
    finally:
        namespace.delete(alive)


def _wait_for_frames(lab: Lab, count: int) -> None:
    wait_until(lambda: lab.home_link.counters()["up"]["frames"] >= count, what=f"{count} frames have come")


def _relay(lab: Lab, *keys: str, **options: str) -> Sshd:
    return Sshd(lab.relay, keys, {"GatewayPorts": "clientspecified"} | options)


def _hold_tunnel(keeper: Person, relay: Sshd, forward: str) -> subprocess.Popen[bytes]:
    """Start `ssh -N -R` on the keeper's machine and return once the relay listens."""
    port = forward.split(":")[1]
    process = keeper.machine.popen(keeper.ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", forward, "relay"))
    listening = ["ss", "-Hltn", f"sport = :{port}"]
    wait_until(lambda: relay.machine.run(listening).stdout, what=f"the relay listens on {port}", every=0.1)
    return process
