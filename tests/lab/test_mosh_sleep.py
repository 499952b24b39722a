"""`tunneld mosh` on a laptop that sleeps: soon after it wakes, the session works, though all its connections died."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.lab.asleep import asleep, drop_ssh, forget_flows, kill_ssh
from tests.lab.clock import Clocks
from tests.lab.homeward import Snapshot, homeward, is_direct
from tests.lab.moves import new_outside_address
from tests.lab.net import Lab
from tests.lab.product import agents, running

pytestmark = pytest.mark.lab

ONE_WAY = 0.02  # seconds, on each link: 80 ms there and back
SLEEP = 12  # seconds; by then the far end has given up all paths, and tries them again at growing intervals
BANNER = 6.5  # seconds without an answer after which mosh shows its banner
# No other text on the screen has these letters, since mosh may repaint the screen with its banner.
BEFORE, AFTER = "XVZ", "QJW"


def move(lab: Lab) -> None:
    new_outside_address(lab, "lapgw", "60.2.2.3")


def stay(lab: Lab) -> None:
    pass


@pytest.mark.parametrize(
    ("way", "is_told", "wake_up", "lose"),
    [
        (("pi-home",), True, stay, kill_ssh),
        (("pi-home",), True, move, drop_ssh),
        (("pi-mapped",), False, move, drop_ssh),
        (("pi-mapped", "--no-udp"), True, stay, drop_ssh),
    ],
    ids=["where it was", "elsewhere", "untold", "no UDP"],
)
def test_a_laptop_wakes_into_its_session(
    lab: Lab, way: tuple[str, ...], is_told: bool, wake_up: Callable[[Lab], None], lose: Callable[[Lab], None]
) -> None:
    """Flows and SSH connections die during the sleep; the far programs live, and the session goes on.

    Echoes of keys from before and after the sleep come within BANNER. With `is_told`, CLOCK_MONOTONIC stood still
    during the sleep, as on a real laptop; without, it went on, so mosh shows its banner at once.
    """
    for link in (lab.home_link, lab.laptop_link):
        link.set(delay=ONE_WAY)
    lab.map_port("homegw", protocol="tcp", ports="22", to=lab.pi.address)
    clocks = Clocks(lab.directory)
    with homeward(lab) as home, home.mosh(*way, more=clocks.environment) as terminal:
        before = home.wait_for(lambda seen: has_all(seen, way), what="two streams, and a path")
        there = agents(lab.pi), running(lab.pi, "mosh-server")
        mark = terminal.mark()
        lab.laptop_link.cut()
        terminal.write(BEFORE)
        home.wait_for(lambda seen: said(seen) > said(before), what="the last key of before was sent")
        with asleep(lab):
            fell_asleep = time.monotonic()
            lose(lab)
            forget_flows(lab)
            wake_up(lab)
            time.sleep(SLEEP)
            if is_told:
                clocks.slept(int(time.monotonic() - fell_asleep))  # rounded down, so that the clock never goes back
        woke = time.monotonic()
        terminal.write(AFTER)
        for key in BEFORE + AFTER:
            assert terminal.wait_for(key, since=mark, timeout=30) - woke < BANNER
        assert ("Last contact" in terminal.text_since(mark)) is not is_told
        after = home.wait_for(lambda seen: has_all(seen, way) and not names(seen) & names(before), what="all anew")
        assert "the network changed" in [change["what"] for change in after["history"]]
        terminal.echoes(3)
        assert (agents(lab.pi), running(lab.pi, "mosh-server")) == there


def has_all(seen: Snapshot, way: tuple[str, ...]) -> bool:
    """Whether two streams are open and, except with `--no-udp`, a direct path is in use."""
    has_streams = len(seen["streams"]) == 2 and all(stream["greeted"] for stream in seen["streams"])
    return has_streams and (is_direct(seen) or "--no-udp" in way)


def names(seen: Snapshot) -> set[str]:
    return {stream["name"] for stream in seen["streams"]}


def said(seen: Snapshot) -> int:
    count: int = seen["counts"]["datagrams_out"]
    return count
