"""`tunneld mosh` between real NATs: it finds the best path, keeps it, and takes no datagrams from strangers."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.lab.homeward import Homeward, homeward, is_direct, is_on_stream
from tests.lab.hostile import assail
from tests.lab.moves import (
    allow_udp,
    forbid_udp,
    give_ipv6,
    go_away,
    go_home,
    new_inside_address,
    new_outside_address,
    route_without_nat,
    wire_laptop_to_home,
)
from tests.lab.net import CONE, SYMMETRIC, Host, Lab
from tests.lab.overheard import Capture, CapturedDatagram, forger, listening
from tests.lab.product import agents, size_of
from tests.lab.typist import typing

pytestmark = pytest.mark.lab

ONE_WAY = 0.02  # seconds, on each link: 80 ms there and back
LATEST = 1.5  # seconds that an echo may take when a path dies, as long as another path or a stream works
BACK = 2.0  # seconds from a move to the next echo
UPGRADE = 60.0  # seconds until UDP is used again
MEGABYTE = 1 << 20
TO_SERVER, TO_CLIENT = b"\x00", b"\x80"  # how mosh's datagrams begin


@contextmanager
def homes(
    lab: Lab, *, pi: str = CONE, laptop: str = CONE, firewall: bool | None = None, wired: bool = False
) -> Iterator[Homeward]:
    """A round trip of 80 ms, and routers with these kinds of NAT.

    `firewall`: no NAT at all, but a firewall (True) or none (False). `wired`: the laptop has a cable to pi's LAN.
    """
    for gateway, kind in (("homegw", pi), ("lapgw", laptop)):
        lab.set_nat(gateway, kind)
    if firewall is not None:
        route_without_nat(lab, firewall=firewall)
    if wired:
        wire_laptop_to_home(lab)
    for link in (lab.home_link, lab.laptop_link):
        link.set(delay=ONE_WAY)
    with homeward(lab) as home:
        yield home


# Paths that are found


def test_two_port_keeping_nats_get_a_direct_path(lab: Lab) -> None:
    """Both ends learn their outside addresses from the jump host and punch; an echo takes little more than 80 ms."""
    with homes(lab) as home, home.mosh() as terminal:
        home.wait_direct(timeout=10)
        assert statistics.median(terminal.echoes(20)) < 110


@pytest.mark.parametrize(("pi", "laptop"), [(SYMMETRIC, SYMMETRIC), (CONE, SYMMETRIC), (SYMMETRIC, CONE)])
def test_a_symmetric_nat_gets_a_relayed_path(lab: Lab, pi: str, laptop: str) -> None:
    """The outside port is not known in advance, so both ends meet at the jump host, over UDP."""
    with homes(lab, pi=pi, laptop=laptop) as home, home.mosh() as terminal:
        home.wait_relayed(timeout=15)
        assert statistics.median(terminal.echoes(20)) < 120


@pytest.mark.parametrize("firewall", [False, True], ids=["open", "replies only"])
def test_hosts_without_nat_get_a_direct_path(lab: Lab, firewall: bool) -> None:
    """Their own addresses suffice; both ends punch through a firewall that lets only replies in."""
    with homes(lab, firewall=firewall) as home, home.mosh() as terminal:
        seen = home.wait_direct(timeout=10)
        assert "192.168.1.2" in seen["in_use"]["remote"]
        terminal.echoes(3)


def test_two_machines_in_one_lan_speak_there(lab: Lab) -> None:
    """ssh goes out to the relay and back in, but datagrams stay in the LAN."""
    with homes(lab, wired=True) as home:
        go_home(lab)
        with home.mosh() as terminal:
            home.wait_for(
                lambda seen: is_direct(seen) and "192.168.1.2" in seen["in_use"]["remote"], what="the LAN's path"
            )
            assert statistics.median(terminal.echoes(10)) < 40


def test_a_mapped_ssh_port_is_hint_enough(lab: Lab) -> None:
    """Without a jump host, the addresses that SSH shows suffice where NATs keep ports (as in the patch of 2012)."""
    with homes(lab) as home:
        lab.map_port("homegw", protocol="tcp", ports="22", to=lab.pi.address)
        with home.mosh("pi-mapped") as terminal:
            home.wait_direct(timeout=10)
            terminal.echoes(3)


def test_ipv6_is_a_direct_path_where_ipv4_is_none(lab: Lab) -> None:
    """There are two symmetric NATs and no UDP over IPv4 at all; the IPv6 firewalls let only replies in."""
    with homes(lab, pi=SYMMETRIC, laptop=SYMMETRIC) as home:
        give_ipv6(lab)
        forbid_udp(lab, "everywhere")
        with home.mosh() as terminal:
            seen = home.wait_direct(timeout=10)
            assert "2a00:1:1::2" in seen["in_use"]["remote"]
            terminal.echoes(3)


def test_no_udp_anywhere_leaves_the_stream(lab: Lab) -> None:
    """The stream carries from the first key on, without a wait for UDP."""
    with homes(lab) as home:
        forbid_udp(lab, "everywhere")
        with home.mosh() as terminal:
            assert statistics.median(terminal.echoes(20)) < 120
            assert is_on_stream(home.wait_stream(timeout=5))


def test_udp_may_be_forbidden_by_the_user(lab: Lab) -> None:
    """With `--no-udp` neither end opens a UDP socket to the outside."""
    with homes(lab) as home, home.mosh("pi-home", "--no-udp") as terminal:
        terminal.echoes(3)
        assert not outside_ports(lab.laptop)
        assert not outside_ports(lab.pi)


# Paths that die, and come back


@pytest.mark.parametrize("where", ["between homes", "everywhere"])
def test_no_key_is_lost_when_the_direct_path_dies(lab: Lab, where: str) -> None:
    """A person types on; every echo comes within LATEST, also of the keys that were under way."""
    with homes(lab) as home, home.mosh() as terminal:
        home.wait_direct()
        with typing(terminal) as typist:
            time.sleep(2)
            forbid_udp(lab, where)  # type: ignore[arg-type]
            time.sleep(6)
        assert max(typist.finish()) < LATEST
        assert not is_direct(home.wait_for(lambda seen: not is_direct(seen), what="another carrier", timeout=5))


def test_udp_that_comes_back_is_used_again(lab: Lab) -> None:
    """Within a minute a direct path is in use again, by itself."""
    with homes(lab) as home, home.mosh() as terminal:
        home.wait_direct()
        forbid_udp(lab, "everywhere")
        home.wait_stream()
        terminal.echoes(3)
        allow_udp(lab)
        home.wait_direct(timeout=UPGRADE)
        terminal.echoes(3)


def test_a_dead_relay_is_no_loss_to_a_direct_path(lab: Lab) -> None:
    """The relay's sshd goes away for good: echoes go on as before, over the same direct path."""
    with homes(lab) as home, home.mosh() as terminal:
        home.wait_direct()
        with typing(terminal) as typist:
            time.sleep(1)
            home.scene.relay.stop(connections=True)
            time.sleep(8)
        late = typist.finish()
        assert max(late) < LATEST
        assert statistics.median(late) < 0.15
        assert is_direct(home.wait_direct(timeout=1))


def test_a_session_outlives_all_its_paths_and_streams(lab: Lab) -> None:
    """The laptop's link is cut for 12 s; what was typed meanwhile arrives within 10 s of its return."""
    with homes(lab) as home, home.mosh() as terminal:
        home.wait_direct()
        lab.laptop_link.cut()
        mark = terminal.mark()
        terminal.write("meanwhile")
        time.sleep(12)
        lab.laptop_link.mend()
        mended = time.monotonic()
        assert terminal.wait_for("meanwhile", since=mark, timeout=30) - mended < 10


# A laptop that moves


def renumber_outside(lab: Lab) -> None:
    new_outside_address(lab, "lapgw", "60.2.2.3")


def renumber_inside(lab: Lab) -> None:
    new_inside_address(lab, "192.168.2.3")


@pytest.mark.parametrize("move", [renumber_outside, renumber_inside, go_home])
def test_a_move_costs_two_seconds_at_most(lab: Lab, move: Callable[[Lab], None]) -> None:
    """The router's outside address changes, the laptop's own does, or the laptop enters pi's LAN."""
    with homes(lab, wired=True) as home, home.mosh() as terminal:
        home.wait_direct()
        with typing(terminal) as typist:
            time.sleep(1)
            move(lab)
            moved = time.monotonic()
            time.sleep(8)
        late = typist.finish()
        echoes = [press + took for press, took in zip(typist.pressed, late, strict=True) if press > moved]
        assert min(echoes) - moved < BACK
        home.wait_direct()


def test_a_laptop_goes_home_and_away_again(lab: Lab) -> None:
    """At home datagrams stay in the LAN, outside they take the internet, in the same session."""
    with homes(lab, wired=True) as home, home.mosh() as terminal:
        home.wait_direct()
        for move, inside in ((go_home, True), (go_away, False)):
            move(lab)
            home.wait_for(
                lambda seen, inside=inside: (  # type: ignore[misc]
                    is_direct(seen) and ("192.168.1.2" in seen["in_use"]["remote"]) is inside
                ),
                what=move.__name__,
                timeout=30,
            )
            terminal.echoes(5)


# Hostile datagrams


def test_hostile_datagrams_reach_no_mosh_and_grow_nothing(lab: Lab) -> None:
    """Noise, repetitions, forged sources, wrong keys and oversized datagrams go to every UDP socket.

    Each mosh program still receives only what the other has sent, each datagram once, and a person types on.
    """
    with homes(lab, firewall=False) as home, ExitStack() as stack:
        terminal = stack.enter_context(home.mosh())
        home.wait_direct()
        at_pi, at_laptop = (stack.enter_context(listening(host, "lo")) for host in (lab.pi, lab.laptop))
        passing = stack.enter_context(listening(lab.hosts["wan1"], "home"))
        terminal.echoes(20)
        pids = [pid for host in (lab.pi, lab.laptop, lab.relay) for pid in agents(host)]
        with ThreadPoolExecutor() as pool:
            attack(lab, passing.datagrams[-200:], count=3000, seed=1)
            first = [size_of(pid) for pid in pids]
            attacking = pool.submit(attack, lab, passing.datagrams[-200:], count=6000, seed=2)
            late = terminal.echoes(30, pace=0.1)
            attacking.result()
        last = [size_of(pid) for pid in pids]
        assert statistics.median(late) < 130
        assert is_direct(home.wait_direct(timeout=5))
        settle(terminal.echoes)
        assert_only_sent_datagrams_arrive(at_pi, at_laptop)
    assert len(pids) >= 3
    for then, after in zip(first, last, strict=True):
        assert after.resident - then.resident < MEGABYTE
        assert after.descriptors - then.descriptors < 5


def settle(echoes: Callable[[int], object]) -> None:
    echoes(3)
    time.sleep(0.5)


def attack(lab: Lab, overheard: list[CapturedDatagram], *, count: int, seed: int) -> None:
    """Send `count` datagrams: a third is noise from many ports, the rest are captured datagrams, changed by `bent`."""
    inet = lab.hosts["inet"]
    for host in (lab.pi, lab.laptop, lab.relay):
        ports = outside_ports(host)
        if ports:
            sources = [inet_address(host)]
            sent = assail(
                inet, host.address, ports, count=count // 9, rate=2000, sources=sources, sockets=50, seed=seed
            )
            assert sent > count // 10
    chance = random.Random(seed)
    with forger(inet) as forging:
        for _ in range(count * 2 // 3):
            forging.send(bent(chance.choice(overheard), chance, inet_address(lab.pi)))
            time.sleep(0.0005)


def bent(packet: CapturedDatagram, chance: random.Random, stranger: str) -> CapturedDatagram:
    """A captured packet of the session: unchanged, with another source, changed, cut or lengthened."""
    body = bytearray(packet.payload)
    kind = chance.randrange(6)
    if kind == 1:
        return packet._replace(source=(stranger, chance.randrange(1024, 65536)))
    if kind == 2:
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    elif kind == 3:  # a packet number in the future, and a tag of another key
        body[9:15] = (int.from_bytes(body[9:15], "big") + chance.randrange(1, 1000)).to_bytes(6, "big")
        body[-16:] = chance.randbytes(16)
    elif kind == 4:
        del body[chance.randrange(len(body)) :]
    elif kind == 5:
        body += chance.randbytes(chance.randrange(1, 1400 - min(1399, len(body)) + 1))
    return packet._replace(payload=bytes(body))


def assert_only_sent_datagrams_arrive(at_pi: Capture, at_laptop: Capture) -> None:
    for receiver, sender, head in ((at_pi, at_laptop, TO_SERVER), (at_laptop, at_pi, TO_CLIENT)):
        received = receiver.payloads(head)
        assert len(received) > 20
        assert len(received) == len(set(received))
        assert set(received) <= set(sender.payloads(head))
    strays = [
        each
        for capture in (at_pi, at_laptop)
        for each in capture.datagrams
        if each.payload[:1] not in (TO_SERVER, TO_CLIENT)
    ]
    assert not strays


def outside_ports(host: Host) -> list[int]:
    """The UDP ports of a host that others can reach; mosh-client's is left out, since it talks to loopback only."""
    lines = host.run(["ss", "-Hlunp"]).stdout.splitlines()
    places = [line.split()[3].rpartition(":") for line in lines if "mosh-client" not in line]
    return sorted({int(port) for address, _, port in places if address.strip("[]") not in ("127.0.0.1", "::1")})


def inet_address(host: Host) -> str:
    """The address of `inet` next to a host; `inet` owns it, so datagrams from it are not forged."""
    return {"pi": "60.1.1.1", "laptop": "60.2.2.1", "relay": "60.9.9.1"}[host.name]
