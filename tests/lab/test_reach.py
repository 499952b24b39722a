"""Dialling a relay over a slow link and a dead one: the round trips of a login, and how soon a link's return counts."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.lab.client import Person, person
from tests.lab.net import Lab
from tests.lab.sshd import Sshd
from tunneld.profile import Keepalive, Relay
from tunneld.ssh.connect.dial import dial

pytestmark = pytest.mark.lab

ROUND_TRIP = 0.2  # seconds; long, so that this machine's own work hardly counts


def relay_of(lab: Lab, keeper: Person) -> Relay:
    return Relay(
        host=lab.relay.address,
        user="root",
        identity=(keeper.key.path,),
        known_hosts=keeper.known_hosts,
        ssh_config=False,
    )


async def listen(relay: Relay) -> tuple[float, float]:
    """Seconds until the login, and until the first forward listens."""
    begun = time.monotonic()
    connection = await dial(relay, Keepalive(interval=10, count=3))
    logged_in = time.monotonic() - begun
    await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 22)
    listening = time.monotonic() - begun
    connection.close()
    await connection.wait_closed()
    return logged_in, listening


@pytest.fixture
def keeper(lab: Lab) -> Person:
    return person(lab.pi, "keeper")


@pytest.fixture
def relay(lab: Lab, keeper: Person) -> Relay:
    return relay_of(lab, keeper)


def test_a_forward_listens_after_seven_round_trips(lab: Lab, keeper: Person, relay: Relay) -> None:
    """Six round trips are the login: TCP, the greeting, two for the keys, the invitation, the signature."""
    with Sshd(lab.relay, (keeper.key.public,)) as sshd, lab.pi.entered():
        keeper.trust(sshd.known_hosts(lab.relay.address))
        lab.home_link.set(delay=ROUND_TRIP / 2)
        took = [asyncio.run(listen(relay)) for _ in range(3)]
    assert min(logged_in for logged_in, _ in took) < 7 * ROUND_TRIP
    assert min(listening for _, listening in took) < 8 * ROUND_TRIP


def test_a_link_that_returns_while_we_dial_is_used_within_a_second(lab: Lab, keeper: Person, relay: Relay) -> None:
    """At any moment of the return; the kernel's own SYNs would come only 7 s and 15 s after the first."""

    async def cut_for(seconds: float) -> float:
        lab.home_link.cut()
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(listen(relay))
            await asyncio.sleep(seconds)
            lab.home_link.mend()
            mended = time.monotonic()
            await listening
        return time.monotonic() - mended

    with Sshd(lab.relay, (keeper.key.public,)) as sshd, lab.pi.entered():
        keeper.trust(sshd.known_hosts(lab.relay.address))
        lab.home_link.set(delay=0.02)
        assert asyncio.run(cut_for(3.2)) < 2
        assert asyncio.run(cut_for(4.6)) < 2
