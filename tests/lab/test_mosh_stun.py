"""`tunneld mosh --stun` where only a STUN server can tell the two ends their outside addresses."""

from __future__ import annotations

import socket
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.coturn import stun_server
from tests.lab.homeward import Homeward, Snapshot, homeward, is_direct, is_on_stream
from tests.lab.net import CONE, RENUMBERING, Lab
from tests.lab.product import TUNNELD, agents
from tunneld.core.pair import stun
from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.path import PROBE_TIMES

pytestmark = pytest.mark.lab

ONE_WAY = 0.02  # seconds, on each link: 80 ms there and back
SERVER = "60.9.9.1"
TRIED = 7.0  # seconds; by then every address of the first round has been tried
LIES = 20  # answers of each kind to each question
PROBE = 31  # bytes
ROUNDS = 3  # at most so many rounds of probes at each end during the test


@pytest.mark.parametrize(
    ("way", "nat"),
    [("pi-home", CONE), ("pi-home", RENUMBERING), ("pi-mapped", RENUMBERING)],
    ids=["addresses unknown", "addresses and ports unknown", "ports unknown"],
)
def test_a_named_server_makes_a_direct_path(able_to_reflect: None, lab: Lab, way: str, nat: str) -> None:
    """Without an agent on a jump host, `--stun` finds a direct path, also where routers change ports.

    With a server name that has no address the session stays on the stream, and `--paths` says why.
    """
    for gateway in ("homegw", "lapgw"):
        lab.set_nat(gateway, nat)
    for link in (lab.home_link, lab.laptop_link):
        link.set(delay=ONE_WAY)
    lab.map_port("homegw", protocol="tcp", ports="22", to=lab.pi.address)
    with homeward(lab) as home, stun_server(lab.hosts["inet"], SERVER):
        forbid_programs(home)
        with home.mosh(way, "--stun", "nobody.example") as terminal:
            home.wait_for(lambda seen: is_on_stream(seen) and seen["in_use"]["since"] > TRIED, what="all was tried")
            assert not agents(lab.relay)
            said = lab.laptop.run([*TUNNELD, "mosh", "--paths"], env=home.environment).stdout
            assert "nobody.example: no address that can be asked is known" in said
            terminal.write("\x1e.")
            terminal.process.wait(10)
        with home.mosh(way, "--stun", SERVER) as terminal:
            assert home.wait_direct(timeout=10)["in_use"]["kind"] == "reflexive"
            assert statistics.median(terminal.echoes(20)) < 110


def test_a_lying_server_directs_no_data_at_a_victim(lab: Lab) -> None:
    """A server names a victim's address again and again, also unasked: the ends send the victim only a few probes."""
    for link in (lab.home_link, lab.laptop_link):
        link.set(delay=ONE_WAY)
    lab.map_port("homegw", protocol="tcp", ports="22", to=lab.pi.address)
    with homeward(lab) as home, lab.relay.listener(socket.SOCK_DGRAM) as victim, lying(lab, victim) as lies:
        victim.setblocking(False)
        with home.mosh("pi-mapped", "--stun", SERVER) as terminal:
            seen = home.wait_for(lambda seen: named(seen, victim) and is_direct(seen), what="it was believed")
            terminal.echoes(20, pace=0.1)
            assert is_direct(home.wait_direct(timeout=1))
            assert seen["counts"]["packets_unasked"] > LIES
        assert lies
        received = list(iter(lambda: taken(victim), b""))
        assert 0 < len(received) <= 2 * ROUNDS * len(PROBE_TIMES)
        assert {len(each) for each in received} == {PROBE}


@contextmanager
def lying(lab: Lab, victim: socket.socket) -> Iterator[list[bytes]]:
    """Run a STUN server that answers with the victim's address; yields the requests that it got."""
    named = UdpAddress(lab.relay.address, victim.getsockname()[1])
    requests: list[bytes] = []
    with lab.hosts["inet"].listener(socket.SOCK_DGRAM, port=3478, address=SERVER) as server:

        def serve() -> None:
            while (asked := server.recvfrom(2048))[0] != b"end":
                request, source = asked
                requests.append(request)
                lie = stun.respond(request, named) or b""
                others = [stun.respond(stun.request(bytes(12)), named) or b"", lie + bytes(1300), lie[:-1]]
                for answer in [*others, lie] * LIES:
                    server.sendto(answer, source)

        thread = threading.Thread(target=serve, name="liar")
        thread.start()
        try:
            yield requests
        finally:
            with lab.hosts["inet"].listener(socket.SOCK_DGRAM) as ending:
                ending.sendto(b"end", (SERVER, 3478))
            thread.join()


def named(seen: Snapshot, victim: socket.socket) -> bool:
    return any(path["remote"].endswith(f":{victim.getsockname()[1]}") for path in seen["paths"])


def taken(sock: socket.socket) -> bytes:
    try:
        return sock.recv(2048)
    except BlockingIOError:
        return b""


def forbid_programs(home: Homeward) -> None:
    """Let the guest jump through the relay, but run no program there."""
    authorized = home.scene.relay.directory / "authorized_keys"
    public = home.scene.guest.key.public
    lines = authorized.read_text()
    assert public in lines
    authorized.write_text(lines.replace(public, f'restrict,port-forwarding,command="exit 1" {public}'))
