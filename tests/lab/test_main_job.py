"""The main job as a whole: a host behind NAT holds a tunnel to a plain OpenSSH relay, and stock mosh crosses it."""

from __future__ import annotations

import socket
import statistics
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.hostile import assail
from tests.lab.net import SYMMETRIC, Lab
from tests.lab.product import MOSH, QUICK, Daemon, agents, bound_ports, profile_text, size_of
from tests.lab.scene import scene
from tests.lab.sshd import Sshd
from tests.until import wait_until

pytestmark = pytest.mark.lab

INGRESS = range(60001, 60011)
MEGABYTE = 1 << 20


def test_stock_mosh_types_through_the_ingress(lab: Lab) -> None:
    """The README's command works without tunneld on the laptop; an echo takes 80 ms of delay and at most 30 ms more."""
    lab.home_link.set(delay=0.02)
    lab.laptop_link.set(delay=0.02)
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        with place.mosh() as terminal:
            assert 80 < statistics.median(terminal.echoes(30)) < 110


def test_stock_mosh_types_through_a_relay_without_gatewayports(lab: Lab) -> None:
    """The other documented command: ssh uses the relay as jump host, and the ingress carries the datagrams."""
    text = ('listen = "127.0.0.1:2222"\nto = "127.0.0.1:22"',)
    with (
        scene(lab, options={"GatewayPorts": "no"}, visitors=True) as place,
        Daemon(lab.pi, profile_text(place.keeper, forwards=text)) as daemon,
    ):
        daemon.wait_up()
        with place.mosh_by_jump() as terminal:
            assert statistics.median(terminal.echoes(10)) < 100


def test_stock_mosh_types_between_two_symmetric_nats(lab: Lab) -> None:
    """The kind of NAT does not matter, since both ends send to the relay."""
    for gateway in ("homegw", "lapgw"):
        lab.set_nat(gateway, SYMMETRIC)
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        with place.mosh() as terminal:
            assert statistics.median(terminal.echoes(10)) < 100


def test_three_people_type_at_once(lab: Lab) -> None:
    """Each has a mosh-server, an ingress port and an echo of his own."""
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        with place.mosh() as one, place.mosh() as two, place.mosh() as three, ThreadPoolExecutor() as pool:
            everyone = list(pool.map(lambda terminal: terminal.echoes(20, pace=0.05), (one, two, three)))
            status = daemon.wait_for(lambda status: status.mosh.flows >= 3, what="three flows are counted")
        assert all(statistics.median(echoes) < 100 for echoes in everyone)
        assert status.mosh.flows == 3


def test_a_bulk_copy_does_not_stop_a_person_typing(lab: Lab) -> None:
    """Datagrams have their own SSH connections, so they share 8 Mbit/s with the copy and do not queue behind it."""
    lab.home_link.set(delay=0.02)
    lab.home_link.set("up", rate=8_000_000, room=64_000)
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        with place.mosh() as terminal:
            copy = lab.laptop.popen(place.guest.ssh("-p", "2222", "relay", "cat /dev/zero"))
            wait_until(lambda: lab.home_link.counters()["up"]["bytes"] > 3 * MEGABYTE, what="the copy runs")
            assert statistics.median(terminal.echoes(20, pace=0.05)) < 300
            assert copy.poll() is None


def test_hostile_datagrams_neither_crash_nor_grow_anything(lab: Lab) -> None:
    """During 2,000 hostile datagrams and 4,000 more, from a thousand ports, a person types on; neither end grows."""
    sources = [f"60.5.0.{number}" for number in range(1, 21)]
    lab.hosts["inet"].shell("\n".join(f"ip address add {source}/32 dev lo" for source in sources))

    def attack(count: int, seed: int) -> int:
        relay = lab.relay.address
        return assail(
            lab.hosts["inet"], relay, INGRESS, count=count, rate=2000, sources=sources, sockets=1000, seed=seed
        )

    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        with place.mosh() as terminal, ThreadPoolExecutor() as pool:
            terminal.echoes(5)
            pids = [daemon.process.pid, *agents(lab.relay)]
            start = [size_of(pid) for pid in pids]
            attacking = pool.submit(attack, 2000, 1)
            assert statistics.median(terminal.echoes(20, pace=0.05)) < 300
            assert attacking.result() > 1900
            first = [size_of(pid) for pid in pids]
            for seed in (2, 3):
                attack(2000, seed)
                assert statistics.median(terminal.echoes(5)) < 300
            last = [size_of(pid) for pid in pids]
        assert agents(lab.relay) == pids[1:]
        status = daemon.wait_up()
        assert status.sessions == 1
    assert len(pids) >= 2
    for before, then, after in zip(start, first, last, strict=True):
        assert then.resident - before.resident < 8 * MEGABYTE
        assert after.resident - then.resident < 1 * MEGABYTE
        assert after.descriptors - before.descriptors < 300


def test_noise_from_start_up_files_does_no_harm(lab: Lab) -> None:
    """The agent runs on a relay whose shell prints a greeting and random bytes at each start."""
    noise = lab.relay.directory / "noisy"
    noise.write_text("echo welcome, stranger\nhead -c 3000 /dev/urandom\necho >&2 and complain\n")
    lab.relay.prelude.append(f"[ ! -e ~/.bashrc ] || mount --bind {noise} ~/.bashrc")
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        greeted = lab.pi.run(place.keeper.ssh("relay", "true"))
        assert greeted.stdout.startswith("welcome, stranger\n")
        with place.mosh() as terminal:
            terminal.echoes(3)


@pytest.mark.parametrize("way", ["forced", "key"])
def test_a_relay_without_exec_keeps_the_tunnel_and_says_why_mosh_is_not(lab: Lab, way: str) -> None:
    """With `ForceCommand` or `command=`, ssh still goes through the forward, and status gives the reason."""
    options = {"ForceCommand": "echo no commands here"} if way == "forced" else {}
    line = 'command="echo no commands here" {}' if way == "key" else "{}"
    with (
        scene(lab, options=options, authorized=line.format) as place,
        Daemon(lab.pi, profile_text(place.keeper)) as daemon,
    ):
        status = daemon.wait_for(lambda status: status.mosh.state == "unavailable", what="mosh is unavailable")
        assert status.mosh.reason
        assert daemon.wait_up(mosh=False).sessions == 1
        with place.ssh() as terminal:
            terminal.echoes(3)


def test_a_relay_without_python_keeps_the_tunnel_and_says_why_mosh_is_not(lab: Lab) -> None:
    """The reason names Python; the tunnel and ssh through it still work."""
    lab.relay.hide_programs("python*")
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        status = daemon.wait_for(lambda status: status.mosh.state == "unavailable", what="mosh is unavailable")
        assert "python" in status.mosh.reason.lower()
        with place.ssh() as terminal:
            terminal.echoes(3)
        assert daemon.wait_up(mosh=False).sessions == 1


def test_busy_ingress_ports_keep_the_tunnel_and_say_why_mosh_is_not(lab: Lab) -> None:
    """Another program holds an ingress port: ssh works, and mosh is ready once that port is free."""
    with (
        scene(lab) as place,
        lab.relay.listener(socket.SOCK_DGRAM, port=60003) as holder,
        Daemon(lab.pi, profile_text(place.keeper)) as daemon,
    ):
        status = daemon.wait_for(lambda status: status.mosh.state == "unavailable", what="mosh is given up")
        assert "60003" in status.mosh.reason
        with place.ssh() as terminal:
            terminal.echoes(3)
        holder.close()
        daemon.wait_up(timeout=60)


def test_a_jump_host_is_passed_through(lab: Lab) -> None:
    """The relay sees the jump host's address, and mosh crosses the tunnel as usual."""
    with scene(lab) as place, Sshd(lab.hosts["inet"], (place.keeper.key.public,)) as bastion:
        place.keeper.trust(bastion.known_hosts("60.1.1.1"))
        text = profile_text(place.keeper, relay='jump = "root@60.1.1.1"\n')
        with Daemon(lab.pi, text) as daemon:
            daemon.wait_up()
            assert "from 60.9.9.1" in place.relay.log
            assert "from 60.1.1.2" not in place.relay.log
            with place.mosh() as terminal:
                terminal.echoes(5)


def test_a_mosh_session_survives_a_short_cut(lab: Lab) -> None:
    """The SSH session outlives three seconds of silence, and what was typed meanwhile arrives."""
    with scene(lab) as place, Daemon(lab.pi, profile_text(place.keeper)) as daemon:
        daemon.wait_up()
        with place.mosh() as terminal:
            terminal.echoes(3)
            lab.home_link.cut()
            mark = terminal.mark()
            terminal.write("meanwhile")
            with pytest.raises(AssertionError):
                terminal.wait_for("meanwhile", since=mark, timeout=3)
            lab.home_link.mend()
            terminal.wait_for("meanwhile", since=mark, timeout=15)
            assert daemon.wait_up().sessions == 1


def test_a_mosh_session_survives_the_death_of_its_tunnel(lab: Lab) -> None:
    """A cut longer than the keepalive ends the SSH session; the next SSH session carries the same mosh session."""
    checking = {"ClientAliveInterval": "1", "ClientAliveCountMax": "2"}
    with (
        scene(lab, options=checking) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=MOSH + QUICK)) as daemon,
    ):
        daemon.wait_up()
        with place.mosh() as terminal:
            terminal.echoes(3)
            lab.home_link.cut()
            daemon.wait_for(lambda status: status.state != "up", what="the loss is noticed")
            wait_until(lambda: 2222 not in bound_ports(lab.relay), what="the relay noticed too", timeout=20)
            lab.home_link.mend()
            daemon.wait_up()
            terminal.echoes(5, timeout=20)
        assert daemon.wait_up().sessions == 2


def test_a_mosh_session_survives_a_restart_of_the_relay(lab: Lab) -> None:
    """Every SSH session and the agent are killed; the tunnel and mosh come back by themselves."""
    with (
        scene(lab) as place,
        Daemon(lab.pi, profile_text(place.keeper, rest=MOSH + QUICK)) as daemon,
    ):
        daemon.wait_up()
        with place.mosh() as terminal:
            terminal.echoes(3)
            place.relay.restart()
            daemon.wait_for(lambda status: status.sessions == 2, what="a second session")
            daemon.wait_up()
            terminal.echoes(5, timeout=20)
