"""The programs with which a host can hold a reverse tunnel: tunneld, and those that it is compared with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import target
from tests.lab.client import Person
from tests.lab.machine import Machine, end
from tests.lab.product import TUNNELD, Daemon
from tests.until import wait_until

SAME_CIPHER = "aes128-gcm@openssh.com"
MOSH = '[mosh]\nports = "60001-60010"\nbind = "0.0.0.0"\n'
LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp (include/net/tcp_states.h)


def listens(pid: int, port: int) -> bool:
    """Whether a program listens on the TCP port, in the network namespace of process `pid`; makes no connection."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return any(state == LISTEN and int(local.rpartition(":")[2], 16) == port for _, local, _, state, *_ in fields)


def await_listener(pid: int, port: int, *, what: str, timeout: float = 30) -> None:
    """Wait until a program listens on the port, `timeout` seconds at most; `what` names it in an error."""
    wait_until(lambda: listens(pid, port), what=f"{what}: port {port} listens", timeout=timeout, every=0.002)


@contextmanager
def target_on(machine: Machine, port: int) -> Iterator[int]:
    """Run the service that every forward leads to; gives its process id."""
    process = machine.popen([sys.executable, "-I", "-S", Path(target.__file__), str(port)])
    try:
        await_listener(process.pid, port, what="the target")
        yield process.pid
    finally:
        end(process)


def ssh_command(
    keeper: Person, place: Sequence[str], forwards: Sequence[str], *options: str, alive_interval: int = 10
) -> list[str]:
    """`ssh -N -R ...` as its manual recommends it for a tunnel; `place` are the arguments that name the relay."""
    remote = [word for forward in forwards for word in ("-R", forward)]
    alive = ["-o", "ExitOnForwardFailure=yes", "-o", f"ServerAliveInterval={alive_interval}"]
    return keeper.ssh("-N", *alive, *options, *remote, *place)


@contextmanager
def held(
    machine: Machine, command: Sequence[str], *, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends."""
    process = machine.popen(command, stdin=stdin)
    try:
        yield process
    finally:
        end(process)


def autossh_command(ssh: Sequence[str]) -> list[str]:
    """The same tunnel under autossh, as people use it: without a monitoring port, with ssh's own keepalive."""
    assert ssh[0] == "ssh"
    return ["autossh", "-M", "0", *ssh[1:]]


def has(program: str) -> bool:
    return shutil.which(program) is not None


def profile(
    keeper: Person,
    *,
    host: str,
    port: int,
    forwards: Sequence[tuple[str, str]],
    cipher: str | None = None,
    rest: str = "",
) -> str:
    """A profile's text: `forwards` are pairs of `listen` and `to`, and `cipher`, if given, is set in an ssh_config."""
    config = "false"
    if cipher is not None:
        path = keeper.folder / "one_cipher"
        path.write_text(f"Host *\n  Ciphers {cipher}\n")
        config = f'"{path}"'
    head = (
        f'[relay]\nhost = "{host}"\nport = {port}\nuser = "root"\nidentity = "{keeper.key.path}"\n'
        f'known_hosts = "{keeper.known_hosts}"\nssh_config = {config}\n'
    )
    return head + "".join(f'[[forward]]\nlisten = "{listen}"\nto = "{to}"\n' for listen, to in forwards) + rest


@contextmanager
def tunneld(machine: Machine, name: str, text: str) -> Iterator[Daemon]:
    """Run `tunneld run` with a profile of this text; the tunnel is up when the block begins."""
    with Daemon(machine, text, name) as daemon:
        yield daemon
        daemon.stop()


@contextmanager
def tunnelds(machine: Machine, texts: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run one daemon with a tunnel for each profile; `texts` are the profiles by name."""
    listed = [Daemon(machine, text, name) for name, text in texts.items()]
    for daemon in listed:
        daemon.write(daemon.text)
    for folder in ("home", "run"):
        (machine.directory / folder).mkdir(mode=0o700, exist_ok=True)
    command = [*TUNNELD, "run", *(str(daemon.file) for daemon in listed), "--log-format", "json"]
    with (machine.directory / "tunneld.log").open("wb") as log:
        process = machine.popen(command, stdout=log, stderr=log, env=listed[0].environment)
    try:
        yield process
    finally:
        end(process)
