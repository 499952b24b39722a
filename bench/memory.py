"""How much memory tunnels need, on the host and on the relay, compared with ssh and autossh.

    python -m bench.memory [--json] [--quick]

All figures are MiB, from /proc/PID/smaps_rollup. Processes share pages: RSS counts a shared page in full, PSS divides
it among the processes that use it, and private leaves it out. The bench's own programs are Python too, and share
Python's pages with tunneld. So where nothing else is Python, a tunneld needs more than its PSS here, and at most its
RSS.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.process import Memory, family, memory, total
from bench.report import Arguments, Cell, Column, Table, begin, emit, progress
from bench.tunnels import MOSH, autossh_command, await_listener, has, profile, ssh_command, tunnelds
from tests.lab.client import Person, person
from tests.lab.net import Lab
from tests.lab.product import agents
from tests.lab.sshd import Sshd, descendants
from tests.until import wait_until

FIRST = 7000  # the relay's port of the first tunnel; the other tunnels have the next ones
SETTLE = 3.0  # seconds from the last event to the measurement, so that the garbage of the start is collected
KEYSTROKE: Final = bytes(40)  # enough like a datagram of mosh to open a flow

SSH, AUTOSSH = "ssh -R", "autossh + ssh -R"
OURS, OURS_MOSH, OURS_FLOW = "tunneld", "tunneld, mosh ready", "tunneld, mosh in use"

IMPORTS: Final = {
    "bare Python": "pass",
    "asyncio": "import asyncio",
    "asyncssh": "import asyncssh",
    "pydantic": "import pydantic",
    "asyncssh, structlog, tenacity, pydantic": "import asyncssh, structlog, tenacity, pydantic",
    "all that tunneld run imports": "import tunneld.cli.run, tunneld.log, tunneld.daemon.daemon, tunneld.profile",
    "the agent's imports": "import tunneld.shipped.ingress_agent",
}


@dataclass(frozen=True, slots=True)
class Use:
    """Memory on both sides: of the host's processes, of the sessions of the relay's sshd, and of the agent in them."""

    host: Memory
    relay: Memory
    agent: Memory | None


@dataclass(frozen=True, slots=True)
class Place:
    lab: Lab
    relay: Sshd
    keeper: Person

    def measured(self, *pids: int) -> Use:
        assert self.relay.process is not None
        time.sleep(SETTLE)
        return Use(
            host=total(each for pid in pids for each in family(pid)),
            relay=total(descendants(self.relay.process.pid)),
            agent=total(agents(self.lab.relay)) if agents(self.lab.relay) else None,
        )

    def await_ports(self, count: int) -> None:
        assert self.relay.process is not None
        for port in range(FIRST, FIRST + count):
            await_listener(self.relay.process.pid, port, what="a tunnel", timeout=60)

    def await_gone(self) -> None:
        """Wait until the relay is empty, as the next subject needs it."""
        assert self.relay.process is not None
        pid = self.relay.process.pid
        wait_until(lambda: not descendants(pid), what="the relay's sessions end", timeout=30)


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    with Lab(folder) as lab:
        keeper = person(lab.pi, "keeper")
        with Sshd(lab.relay, (keeper.key.public,), {"MaxStartups": "1000", "MaxSessions": "100"}) as relay:
            keeper.trust(relay.known_hosts("relay"))
            yield Place(lab, relay, keeper)


def by_ssh(here: Place, count: int, *, watched: bool = False) -> Use:
    """Measure `count` tunnels, each by an ssh of its own."""
    commands = [
        ssh_command(here.keeper, ("relay",), (f"127.0.0.1:{FIRST + number}:127.0.0.1:22",)) for number in range(count)
    ]
    started = [here.lab.pi.popen(autossh_command(command) if watched else command) for command in commands]
    try:
        here.await_ports(count)
        return here.measured(*(process.pid for process in started))
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        here.await_gone()


def by_tunneld(here: Place, count: int, *, mosh: bool = False, flow: bool = False) -> Use:
    """Measure `count` tunnels in one daemon. With `mosh` the agent runs; with `flow`, mosh is in use."""
    texts = {
        f"pi-{number}": profile(
            here.keeper,
            host="relay",
            port=22,
            forwards=((f"127.0.0.1:{FIRST + number}", "127.0.0.1:22"),),
            rest=MOSH if mosh else "",
        )
        for number in range(count)
    }
    with tunnelds(here.lab.pi, texts) as process:
        here.await_ports(count)
        if mosh:
            wait_until(lambda: _ready(here), what="mosh is ready", timeout=30)
        if flow:
            _open_flow(here)
        use = here.measured(process.pid)
    here.await_gone()
    return use


def _ready(here: Place) -> bool:
    return "mosh_ready" in (here.lab.pi.directory / "tunneld.log").read_text()


def _open_flow(here: Place) -> None:
    assert here.relay.process is not None
    pid = here.relay.process.pid
    before = len(descendants(pid))
    with here.lab.laptop.entered(), socket.socket(type=socket.SOCK_DGRAM) as knocking:
        knocking.sendto(KEYSTROKE, (here.lab.relay.address, 60001))
    wait_until(lambda: len(descendants(pid)) >= before + 2, what="the datagrams' connections stand", timeout=30)


def imports() -> Mapping[str, Memory]:
    """What a fresh interpreter needs after it has imported something."""
    return {name: _imported(statement) for name, statement in IMPORTS.items()}


def _imported(statement: str) -> Memory:
    program = f"import sys\n{statement}\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return memory(process.pid)


def on_the_host(uses: Mapping[str, tuple[int, Use]]) -> Table:
    one = uses[SSH][1].host.proportional
    rows: list[tuple[Cell, ...]] = []
    for name, (count, use) in uses.items():
        each = use.host.proportional / count
        rows.append((name, count, each / one, each, use.host.proportional, use.host.private, use.host.resident))
    return Table(
        "On the host",
        (
            Column("subject"),
            Column("tunnels", "d"),
            Column("PSS for each, x ssh"),
            Column("PSS for each, MiB"),
            Column("all: PSS", ".1f"),
            Column("all: private", ".1f"),
            Column("all: RSS", ".1f"),
        ),
        tuple(rows),
        "x ssh: relative to one tunnel by one `ssh -R`.",
    )


def on_the_relay(uses: Mapping[str, tuple[int, Use]]) -> Table:
    one = uses[SSH][1].relay.proportional
    return Table(
        "On the relay: sshd's sessions and what they run",
        (
            Column("subject"),
            Column("tunnels", "d"),
            Column("PSS for each, x ssh"),
            Column("PSS for each, MiB"),
            Column("agent: PSS", ".1f"),
            Column("agent: private", ".1f"),
            Column("agent: RSS", ".1f"),
        ),
        tuple(
            (
                name,
                count,
                use.relay.proportional / count / one,
                use.relay.proportional / count,
                *((use.agent.proportional, use.agent.private, use.agent.resident) if use.agent else (None,) * 3),
            )
            for name, (count, use) in uses.items()
        ),
        "MiB, without the sshd that listens, which runs anyway. A mosh in use has two more SSH connections.",
    )


def importing(found: Mapping[str, Memory]) -> Table:
    bare = found["bare Python"]
    return Table(
        "Where it goes: a fresh interpreter after imports",
        (Column("imported"), Column("RSS, x bare Python"), Column("RSS, MiB", ".1f"), Column("private, MiB", ".1f")),
        tuple((name, use.resident / bare.resident, use.resident, use.private) for name, use in found.items()),
    )


def run(given: Arguments) -> list[Table]:
    many = 10 if given.quick else 100
    uses: dict[str, tuple[int, Use]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, place(Path(folder)) as here:
        uses[SSH] = (1, by_ssh(here, 1))
        if has("autossh"):
            uses[AUTOSSH] = (1, by_ssh(here, 1, watched=True))
        uses[OURS] = (1, by_tunneld(here, 1))
        uses[OURS_MOSH] = (1, by_tunneld(here, 1, mosh=True))
        uses[OURS_FLOW] = (1, by_tunneld(here, 1, mosh=True, flow=True))
        progress("memory: single tunnels measured")
        uses[f"{SSH}, {many} of them"] = (many, by_ssh(here, many))
        uses[f"tunneld, {many} in one daemon"] = (many, by_tunneld(here, many))
    return [on_the_host(uses), on_the_relay(uses), importing(imports())]


def main() -> None:
    given = begin(__doc__ or "")
    emit("memory", run(given), given)


if __name__ == "__main__":
    main()
