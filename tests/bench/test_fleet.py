"""The bench of a fleet: its model is sshd's, and the daemon's rules keep what they promise to many hosts and to one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from bench.crowd import Fault, Phase, Processors, Relay, Return, busiest_second, simulate
from bench.fleet import FAULTS, USUAL
from tests import leaping

ROOT = Path(__file__).parents[2]
REBOOT, POWER, UPLINK, SESSIONS = FAULTS
QUICK_REBOOT = Fault("quick", "", ((0, Phase.CLOSED), (5, Phase.OPEN)), told=True)
PLENTY = 1000  # processors that nobody waits for


def seen(fault: Fault, hosts: int, cores: int = 2) -> Return:
    return Return.seen_by(simulate(fault, hosts=hosts, cores=cores), USUAL)


@pytest.mark.parametrize("fault", [REBOOT, POWER], ids=lambda fault: fault.name)
def test_a_fleet_does_not_come_back_in_one_second(fault: Fault) -> None:
    """When its relay reboots, the hosts are spread over a fifth of the outage before sshd listens."""
    found = seen(fault, 100, PLENTY)
    assert busiest_second(found.came) < 0.25 * len(found.back)
    assert found.back[-1] < 0.5 * fault.end


@pytest.mark.parametrize("fault", [UPLINK, SESSIONS], ids=lambda fault: fault.name)
def test_a_fleet_that_cannot_know_is_not_turned_away_for_long(fault: Fault) -> None:
    """Where each host has to believe that it is alone, sshd's own limit spreads them, and nearly all are back soon."""
    found = seen(fault, 120)
    assert found.refused
    assert found.back[len(found.back) * 95 // 100] < 20


@pytest.mark.parametrize(
    ("fault", "middle", "last"), [(QUICK_REBOOT, 1.0, 2.0), (UPLINK, 1.2, 2.0), (SESSIONS, 0.8, 1.0)]
)
def test_one_host_is_back_at_once(fault: Fault, middle: float, last: float) -> None:
    """What is good for a thousand hosts does not keep one waiting: seconds, in the middle and at worst."""
    back = sorted(simulate(fault, hosts=1, cores=PLENTY, seed=seed).back[0] - fault.end for seed in range(20))
    assert back[len(back) // 2] <= middle
    assert back[-1] <= last


def test_the_same_seed_gives_the_same_figures() -> None:
    """So that a picture changes only when a rule has."""
    assert seen(POWER, 20) == seen(POWER, 20)


def test_max_startups_turns_away_as_sshd_does() -> None:
    """Nobody below 10, three in ten from there on, rising to everybody at 100."""
    relay = Relay(REBOOT, Processors(1, 1), Random(1).random)
    shares = []
    for relay.entering in (9, 10, 55, 100, 150):
        shares.append(sum(relay.lets_in(0) for _ in range(2000)) / 2000)
    assert shares == [1, pytest.approx(0.7, abs=0.04), pytest.approx(0.35, abs=0.04), 0, 0]
    assert len(relay.came) == 10000


@pytest.mark.parametrize(("cores", "speed", "ends"), [(1, 1, [2, 3]), (2, 1, [1, 2]), (2, 0.5, [2, 4])])
def test_processors_are_shared_evenly(cores: int, speed: float, ends: list[float]) -> None:
    """A job of one second and one of two, begun together."""

    async def both() -> list[float]:
        machine, loop = Processors(cores, speed), asyncio.get_running_loop()

        async def ended(seconds: float) -> float:
            await machine.work(seconds)
            return loop.time()

        return list(await asyncio.gather(ended(1), ended(2)))

    assert leaping.run(both(), leaping.Leaping()) == pytest.approx(ends)


def test_the_busiest_second_begins_anywhere() -> None:
    """It is not a second of the clock."""
    assert busiest_second([0.0, 0.9, 1.2, 1.8, 5.0]) == 3


def test_a_quick_run_prints_every_fault() -> None:
    """A hundred hosts, as one JSON object."""
    command = [sys.executable, "-m", "bench.fleet", "--quick", "--json", "--hosts", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (table,) = json.loads(done.stdout)["tables"]
    assert [row[0] for row in table["rows"]] == [fault.title for fault in FAULTS]
