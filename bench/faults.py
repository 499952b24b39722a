"""What happens to a tunnel in the recovery bench, and how long tunneld may take to come back.

Each `strike` returns at the moment at which the fault ends: from then on a perfect client could have a session.

Tested in tests/bench/test_recovery.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from bench.process import family
from tests.lab.net import GATEWAYS, Lab
from tests.lab.sshd import Sshd, descendants

NEW_ADDRESS: Final = "60.1.1.77"  # the new public address of the home
REBOOT: Final = 5.0  # seconds without an sshd


@dataclass(slots=True)
class Place:
    """One contender's tunnel, in a lab of its own. `start` starts the contender, `process` is the one that runs."""

    lab: Lab
    relay: Sshd
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]

    def signal_host(self, number: signal.Signals) -> None:
        """Send a signal to the contender, and to all that it has started."""
        _signal(family(self.process.pid), number)

    def signal_relay(self, number: signal.Signals) -> None:
        """Send a signal to the relay's sshd, and to its sessions."""
        assert self.relay.process is not None
        _signal(family(self.relay.process.pid), number)

    def black_hole(self, *ways: str) -> None:
        """From now on, present connections carry nothing `up` or `down`, and nobody is told. New connections work."""
        ports = ", ".join(self._client_ports())
        field = {"up": "sport", "down": "dport"}
        rules = "; ".join(f"tcp {field[way]} {{ {ports} }} drop" for way in ways)
        self.lab.hosts["inet"].shell(
            f"nft 'table ip hole {{ chain forward {{ type filter hook forward priority filter; {rules}; }}; }}'"
        )

    def _client_ports(self) -> list[str]:
        lines = self.lab.relay.run(["ss", "-Htn", "state", "established", "sport = :22"]).stdout.splitlines()
        return [line.split()[3].rpartition(":")[2] for line in lines]


Strike = Callable[[Place], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and the seconds (`aim`) within which tunneld should be back.

    `keepalive` and `client_alive` are intervals in seconds, on the host and on the relay. `lost`: the old session can
    never answer again, so the bench need not ask its listener.
    """

    name: str
    title: str
    strike: Strike
    aim: float
    lost: bool = True
    keepalive: int = 10
    client_alive: int = 10


def _kill_session(place: Place) -> None:
    assert place.relay.process is not None
    _signal(descendants(place.relay.process.pid), signal.SIGKILL)


def _reboot(place: Place) -> None:
    place.relay.stop(connections=True)
    time.sleep(REBOOT)
    place.relay.start()


def _cut(seconds: float) -> Strike:
    """A black hole in the middle of the internet: no interface goes down, so the host's kernel learns nothing."""

    def strike(place: Place) -> None:
        place.lab.home_link.cut()
        time.sleep(seconds)
        place.lab.home_link.mend()

    return strike


def _power_cut(place: Place) -> None:
    """The host is back at once. For the relay, the old connection still exists."""
    place.black_hole("up", "down")
    place.signal_host(signal.SIGKILL)
    place.process.wait()
    place.process = place.start()


def _new_address(place: Place) -> None:
    place.black_hole("up", "down")
    place.lab.hosts["homegw"].shell(
        f"ip address flush dev wan\nip address add {NEW_ADDRESS}/24 dev wan\n"
        f"ip route replace default via {GATEWAYS['homegw']}\nconntrack -F"
    )


def _half_open(way: str) -> Strike:
    return lambda place: place.black_hole(way)


def _sleep(seconds: float) -> Strike:
    """The host's programs stand still. Meanwhile its router forgets the connection."""

    def strike(place: Place) -> None:
        place.signal_host(signal.SIGSTOP)
        place.black_hole("up", "down")
        time.sleep(seconds)
        place.signal_host(signal.SIGCONT)

    return strike


def _freeze(seconds: float) -> Strike:
    """The relay's sshd stands still. Its kernel goes on, and accepts connections."""

    def strike(place: Place) -> None:
        place.signal_relay(signal.SIGSTOP)
        time.sleep(seconds)
        place.signal_relay(signal.SIGCONT)

    return strike


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


FAULTS: Final = (
    Fault("kill", "the relay kills the session", _kill_session, 0.5),
    Fault("reboot", f"the relay reboots, {REBOOT:g} s", _reboot, 1),
    Fault("cut20", "link cut, 20 s", _cut(20), 2, lost=False),
    Fault("cut60", "link cut, 60 s", _cut(60), 2, lost=False),
    Fault("power", "power cut, host back at once", _power_cut, 3),
    Fault("power0", "power cut, ClientAliveInterval 0", _power_cut, 3, client_alive=0),
    Fault("address", "new address", _new_address, 12),
    Fault("address3", "new address, keepalive 3 s", _new_address, 5, keepalive=3),
    Fault("up", "half-open, nothing goes up", _half_open("up"), 12),
    Fault("up3", "half-open, nothing goes up, keepalive 3 s", _half_open("up"), 5, keepalive=3),
    Fault("down", "half-open, nothing comes down", _half_open("down"), 12),
    Fault("down3", "half-open, nothing comes down, keepalive 3 s", _half_open("down"), 5, keepalive=3),
    Fault("resume", "the host resumes after 60 s", _sleep(60), 2),
    Fault("freeze", "the relay stands still for 60 s", _freeze(60), 2, lost=False),
)
