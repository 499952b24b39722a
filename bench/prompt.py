"""Seconds from the start of a program until the first word from the far machine is on the screen."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from bench.numbers import rotated
from bench.report import progress
from tests.lab.client import FAR_END, PORTS, READY
from tests.lab.homeward import MAPPED, Homeward
from tests.lab.scene import JUMP_WAY
from tests.lab.terminal import Terminal
from tests.until import wait_until

MOSH, SSH, OURS = "mosh", "ssh", "tunneld mosh"
BY_MAPPING, BY_JUMP = "the router's port 22, mapped by hand", "a port of the relay, by ssh -J"
WAYS: Final = (BY_MAPPING, BY_JUMP)
PROMPT_LIMIT: Final = 30.0  # seconds

Prompts = Mapping[tuple[str, str], list[float]]  # seconds, by the way to the host and the program


def prompts(home: Homeward, rounds: int) -> Prompts:
    """Start all programs in turn, each round beginning with another one. The first round does not count."""
    map_ports(home)
    listed = _commands(home)
    found: dict[tuple[str, str], list[float]] = {key: [] for key in listed}
    for number in range(rounds + 1):
        for key, command in rotated(listed, number):
            taken = _prompt(home, command)
            found[key] += [taken] if number else []
        progress(f"keystrokes: prompts, round {number} of {rounds}")
    return found


def map_ports(home: Homeward) -> None:
    """Prepare what plain mosh needs: map ssh's port and mosh's by hand, and trust the server under that name."""
    home.lab.map_port("homegw", protocol="tcp", ports="22", to=home.lab.pi.address)
    home.lab.map_port("homegw", protocol="udp", ports=PORTS.replace(":", "-"), to=home.lab.pi.address)
    home.scene.guest.trust(home.scene.home.known_hosts(MAPPED))


def _commands(home: Homeward) -> Mapping[tuple[str, str], list[str]]:
    guest = home.scene.guest
    return {
        (BY_MAPPING, SSH): guest.ssh("-tt", MAPPED, "--", shlex.join(FAR_END)),
        (BY_MAPPING, MOSH): _mosh(guest.ssh()),
        (BY_MAPPING, OURS): home.command("pi-mapped"),
        (BY_JUMP, SSH): guest.ssh("-tt", "pi-home", "--", shlex.join(FAR_END)),
        # Behind a jump host, mosh must be told where its datagrams go, and mosh-server to listen beyond loopback.
        (BY_JUMP, MOSH): _mosh(guest.ssh(*JUMP_WAY), "--experimental-remote-ip=local", "--bind-server=any"),
        (BY_JUMP, OURS): home.command("pi-home"),
    }


def _mosh(ssh: list[str], *options: str) -> list[str]:
    return ["mosh", "-p", PORTS, *options, f"--ssh={shlex.join(ssh)}", MAPPED, "--", *FAR_END]


def _prompt(home: Homeward, command: list[str]) -> float:
    began = time.monotonic()
    with Terminal(home.lab.laptop, command, env=home.environment) as terminal:
        taken = terminal.wait_for(READY, timeout=PROMPT_LIMIT) - began
        terminal.write("\x04")  # end of input: the far machine's `cat` ends, and with it the session
        with suppress(TimeoutError):
            wait_until(lambda: terminal.process.poll() is not None, what="the end", timeout=5)
    return taken
