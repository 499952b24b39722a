"""`tunneld mosh --stun` where nothing but a STUN server knows how the two ends look from outside."""

from __future__ import annotations

import statistics

import pytest

from tests.lab.coturn import stun_server
from tests.lab.homeward import Homeward, homeward, is_on_stream
from tests.lab.net import CONE, RENUMBERING, Lab
from tests.lab.product import agents

pytestmark = pytest.mark.lab

ONE_WAY = 0.02  # seconds, on each link: 80 ms there and back
SERVER = "60.9.9.1"
TRIED = 7.0  # seconds after which every address of the first round has been tried


@pytest.mark.parametrize(
    ("way", "nat"),
    [("pi-home", CONE), ("pi-home", RENUMBERING), ("pi-mapped", RENUMBERING)],
    ids=["addresses unknown", "addresses and ports unknown", "ports unknown"],
)
def test_a_named_server_makes_a_direct_path(able_to_reflect: None, lab: Lab, way: str, nat: str) -> None:
    """The jump host runs nothing for us, or there is none, and routers may change ports; without it, streams remain."""
    for gateway in ("homegw", "lapgw"):
        lab.set_nat(gateway, nat)
    for link in (lab.home_link, lab.laptop_link):
        link.set(delay=ONE_WAY)
    lab.map_port("homegw", protocol="tcp", ports="22", to=lab.pi.address)
    with homeward(lab) as home, stun_server(lab.hosts["inet"], SERVER):
        forbid_programs(home)
        with home.mosh(way) as terminal:
            home.wait_for(lambda seen: is_on_stream(seen) and seen["in_use"]["since"] > TRIED, what="all was tried")
            assert not agents(lab.relay)
            terminal.write("\x1e.")
            terminal.process.wait(10)
        with home.mosh(way, "--stun", SERVER) as terminal:
            assert home.wait_direct(timeout=10)["in_use"]["kind"] == "reflexive"
            assert statistics.median(terminal.echoes(20)) < 110


def forbid_programs(home: Homeward) -> None:
    """The guest may go through the relay, and run nothing there."""
    authorized = home.scene.relay.directory / "authorized_keys"
    public = home.scene.guest.key.public
    lines = authorized.read_text()
    assert public in lines
    authorized.write_text(lines.replace(public, f'restrict,port-forwarding,command="exit 1" {public}'))
