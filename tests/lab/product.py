"""tunneld in the lab: tests start it and ask it by the same commands as its users."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab.client import Person
from tests.lab.machine import Machine
from tests.until import wait_until
from tunneld.core.supervise.lifecycle import State
from tunneld.status.snapshot import TunnelStatus, from_json

TUNNELD: Final = (sys.executable, "-m", "tunneld")
MOSH: Final = '[mosh]\nports = "60001-60010"\nbind = "0.0.0.0"\n'
QUICK: Final = (
    "[keepalive]\ninterval = 1\ncount = 2\n[backoff]\ninitial = 0.5\nmaximum = 2\n"  # notices faults within seconds
)


def profile_text(keeper: Person, *, relay: str = "", forwards: Sequence[str] = (), rest: str = MOSH) -> str:
    """A profile for `keeper`'s machine; `relay` are more lines for [relay], `forwards` the tables of [[forward]]."""
    head = (
        "[relay]\n"
        'host = "relay"\n'
        'user = "root"\n'
        f'identity = "{keeper.key.path}"\n'
        f'known_hosts = "{keeper.known_hosts}"\n'
        "ssh_config = false\n"
    )
    tables = forwards or ('listen = "0.0.0.0:2222"\nto = "127.0.0.1:22"',)
    return head + relay + "\n" + "".join(f"[[forward]]\n{table}\n" for table in tables) + rest


@dataclass(slots=True)
class Daemon:
    """`tunneld run FILE` on `machine`, where FILE holds `text`; its log is kept in a file."""

    machine: Machine
    text: str
    name: str = "pi-home"
    program: Sequence[str | Path] = TUNNELD
    more: Mapping[str, str] = field(default_factory=dict)  # added to its environment
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def file(self) -> Path:
        return self.machine.directory / f"{self.name}.toml"

    @property
    def log(self) -> str:
        return (self.machine.directory / "tunneld.log").read_text(errors="replace")

    @property
    def environment(self) -> Mapping[str, str]:
        """A home and a run folder of its own, so that the tester's own tunnels do not disturb."""
        home = self.machine.directory / "home"
        run = self.machine.directory / "run"
        ours = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "RUNTIME_DIRECTORY": str(run)}
        return ours | dict(self.more)

    def write(self, text: str) -> None:
        self.text = text
        self.file.write_text(text)

    def start(self) -> None:
        for folder in ("home", "run"):
            (self.machine.directory / folder).mkdir(mode=0o700, exist_ok=True)
        self.write(self.text)
        with (self.machine.directory / "tunneld.log").open("ab") as log:
            self.process = self.machine.popen(
                [*self.program, "run", self.file, "--log-format", "json"], stdout=log, stderr=log, env=self.environment
            )

    def status(self) -> TunnelStatus | None:
        """What `tunneld status --json` says; None when no daemon answers."""
        asked = self.machine.run(
            [*TUNNELD, "status", self.name, "--json"], check=False, timeout=15, env=self.environment
        )
        return from_json(asked.stdout) if asked.stdout.strip() else None

    def wait_for(self, holds: Callable[[TunnelStatus], object], *, what: str, timeout: float = 30) -> TunnelStatus:
        """The first status for which `holds` is true.

        Raises:
            AssertionError: none within `timeout` seconds, or the daemon ended; with the last status and the log.
        """
        seen: list[TunnelStatus | None] = []

        def asked() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"{what}: tunneld ended {self.process.returncode}\n{self.log}")
            seen[:] = [self.status()]
            return seen[0] is not None and bool(holds(seen[0]))

        try:
            wait_until(asked, what=what, timeout=timeout, every=0.1)
        except TimeoutError as late:
            raise AssertionError(f"{late}; status: {seen}\n{self.log[-6000:]}") from None
        assert seen[0] is not None
        return seen[0]

    def wait_up(self, *, mosh: bool = True, timeout: float = 30) -> TunnelStatus:
        """Return once the tunnel is up and, unless `mosh` is False, mosh can cross it."""
        return self.wait_for(
            lambda status: status.state is State.UP and (not mosh or status.mosh.state == "ready"),
            what="the tunnel is up" + (" and mosh ready" if mosh else ""),
            timeout=timeout,
        )

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def stop(self, *, timeout: float = 10) -> int:
        """Send SIGTERM, and return the exit code.

        Raises:
            AssertionError: tunneld still runs after `timeout` seconds; with the log.
        """
        self.send(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"tunneld runs on {timeout:g} s after SIGTERM\n{self.log[-6000:]}") from None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if error is not None:
            error.add_note(f"tunneld's log:\n{self.log[-6000:]}")


@dataclass(frozen=True, slots=True)
class Size:
    """How big a process is: resident bytes and open descriptors (proc(5))."""

    resident: int
    descriptors: int


def size_of(pid: int) -> Size:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    resident = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
    return Size(resident, len(os.listdir(f"/proc/{pid}/fd")))


def agents(machine: Machine) -> list[int]:
    """The process ids of our agents on a host: of its Python programs, since no other ones run there."""
    return running(machine, "python")


def running(machine: Machine, name: str) -> list[int]:
    """The process ids of the programs on a host whose file's name starts with `name`."""
    found = []
    for pid in processes(machine):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/exe").readlink().name.startswith(name):
                found.append(pid)
    return sorted(found)


def bound_ports(machine: Machine) -> set[int]:
    """The TCP ports that listen and the UDP ports that are bound on a host."""
    lines = machine.run(["ss", "-Hltun"]).stdout.splitlines()
    return {int(line.split()[4].rpartition(":")[2]) for line in lines}


def processes(machine: Machine) -> Iterator[int]:
    """The process ids of all programs in a host's network namespace."""
    with machine.entered():
        ours = os.readlink("/proc/thread-self/ns/net")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(entry / "ns/net") == ours:
                    yield int(entry.name)
