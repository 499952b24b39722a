"""The contenders of the recovery bench, who keep a tunnel up: tunneld, autossh, and a unit with `Restart=always`.

Each contender is started in its usual way, and all have the same keepalive. The bench starts a contender again after it
has killed it.

Tested in tests/bench/test_recovery.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from typing import Final

from bench.tunnels import autossh_command, profile, ssh_command
from tests.lab.client import Person
from tests.lab.product import Daemon

OURS, AUTOSSH, LOOP = "tunneld", "autossh", "loop"  # loop: a unit with Restart=always and RestartSec=10
PORT: Final = 2222  # on the relay; it leads to the host's own sshd
TO: Final = "127.0.0.1:22"
LISTEN: Final = f"127.0.0.1:{PORT}"

# What systemd does for a unit with Restart=always and RestartSec=10; the shell stands for systemd.
RESTART: Final = 'while :; do "$@"; sleep 10; done'

Start = Callable[[Person, int], subprocess.Popen[bytes]]


def _tunneld(keeper: Person, keepalive: int) -> subprocess.Popen[bytes]:
    rest = f"[keepalive]\ninterval = {keepalive}\n"
    text = profile(keeper, host="relay", port=22, forwards=((LISTEN, TO),), rest=rest)
    daemon = Daemon(keeper.machine, text)
    daemon.start()
    return daemon.process


def _autossh(keeper: Person, keepalive: int) -> subprocess.Popen[bytes]:
    # The units of autossh set this variable. Without it autossh gives up when its first ssh ends within 30 s, and would
    # stay away after a power cut.
    return _logged(keeper, autossh_command(_ssh(keeper, keepalive)), {"AUTOSSH_GATETIME": "0"})


def _loop(keeper: Person, keepalive: int) -> subprocess.Popen[bytes]:
    return _logged(keeper, ["sh", "-c", RESTART, "sh", *_ssh(keeper, keepalive)], {})


def _ssh(keeper: Person, keepalive: int) -> list[str]:
    return ssh_command(keeper, ("relay",), (f"{LISTEN}:{TO}",), alive_interval=keepalive)


def _logged(keeper: Person, command: list[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with (keeper.machine.directory / "ssh.log").open("ab") as log:
        return keeper.machine.popen(command, stderr=log, env=more)


CONTENDERS: Final[Mapping[str, Start]] = {OURS: _tunneld, AUTOSSH: _autossh, LOOP: _loop}
