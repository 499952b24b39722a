"""Seconds from the start of the program to a forward that accepts connections, compared with ssh and autossh.

    python -m bench.start [--json] [--quick]

The bench watches the relay's listener from outside, every two milliseconds. The same wrappers start each subject. In
each round, all subjects take turns.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.numbers import median, quantile, ratio, rotated
from bench.report import Arguments, Cell, Column, Table, begin, emit, progress
from bench.tunnels import MOSH, autossh_command, await_listener, has, listens, profile, ssh_command, tunnelds
from tests.lab.client import Person, person
from tests.lab.machine import end
from tests.lab.net import Lab
from tests.lab.sshd import Sshd
from tests.until import wait_until

PORT: Final = 7000
SSH, AUTOSSH = "ssh -R", "autossh + ssh -R"
OURS, OURS_MOSH = "tunneld run", "tunneld run, until mosh is ready"
WAYS: Final = {"no delay": 0.0, "40 ms round trip": 0.02}  # seconds each way, on the host's link

PASS, HELP, VERSION = "python -c pass", "tunneld --help", "ssh -V"
COMMANDS: Final = {
    PASS: (sys.executable, "-c", "pass"),
    HELP: (sys.executable, "-m", "tunneld", "--help"),
    VERSION: ("ssh", "-V"),
}

Subject = Callable[[], float]
Times = Mapping[str, list[float]]


@contextmanager
def subjects(folder: Path, delay: float) -> Iterator[Mapping[str, Subject]]:
    """The subjects. Calling one opens its tunnel for a moment, and returns the seconds until the tunnel was up."""
    with Lab(folder) as lab:
        lab.home_link.set(delay=delay)
        keeper = person(lab.pi, "keeper")
        with Sshd(lab.relay, (keeper.key.public,)) as relay:
            keeper.trust(relay.known_hosts("relay"))
            ssh = ssh_command(keeper, ("relay",), (f"127.0.0.1:{PORT}:127.0.0.1:22",))
            found: dict[str, Subject] = {SSH: lambda: _by_command(lab, relay, ssh)}
            if has("autossh"):
                found[AUTOSSH] = lambda: _by_command(lab, relay, autossh_command(ssh))
            found[OURS] = lambda: _by_tunneld(lab, relay, keeper, mosh=False)
            found[OURS_MOSH] = lambda: _by_tunneld(lab, relay, keeper, mosh=True)
            yield found


def _by_command(lab: Lab, relay: Sshd, command: Sequence[str]) -> float:
    began = time.perf_counter()
    process = lab.pi.popen(command)
    try:
        await_listener(_pid(relay), PORT, what=command[0])
        return time.perf_counter() - began
    finally:
        end(process)
        _await_free(relay)


def _by_tunneld(lab: Lab, relay: Sshd, keeper: Person, *, mosh: bool) -> float:
    forwards = ((f"127.0.0.1:{PORT}", "127.0.0.1:22"),)
    text = profile(keeper, host="relay", port=22, forwards=forwards, rest=MOSH if mosh else "")
    began = time.perf_counter()
    with tunnelds(lab.pi, {"pi-home": text}):
        if mosh:
            log = lab.pi.directory / "tunneld.log"
            wait_until(lambda: "mosh_ready" in log.read_text(), what="mosh is ready", timeout=30, every=0.002)
        else:
            await_listener(_pid(relay), PORT, what="tunneld")
        taken = time.perf_counter() - began
    _await_free(relay)
    return taken


def _pid(relay: Sshd) -> int:
    assert relay.process is not None
    return relay.process.pid


def _await_free(relay: Sshd) -> None:
    wait_until(lambda: not listens(_pid(relay), PORT), what="the relay's port is free again", timeout=60)


def rounds_of(measured: Mapping[str, Subject], rounds: int) -> Times:
    found: dict[str, list[float]] = {name: [] for name in measured}
    for number in range(-1, rounds):
        for name, measure in rotated(measured, number):
            taken = measure()
            # The first round fills caches, and is not counted.
            found[name] += [taken] if number >= 0 else []
    return found


def command_time(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def table(title: str, found: Times, *, peer: str, note: str = "") -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, times in found.items():
        against = ratio(times, found[peer])
        more = 1000 * (median(times) - median(found[peer]))
        rows.append((name, against.middle, against.spread, more, 1000 * median(times), 1000 * quantile(times, 0.95)))
    return Table(
        title,
        (
            Column("subject"),
            Column(f"x {peer}"),
            Column("spread", "s"),
            Column("more, ms", "+.0f"),
            Column("median, ms", ".0f"),
            Column("p95, ms", ".0f"),
        ),
        tuple(rows),
        note,
    )


def run(given: Arguments) -> list[Table]:
    rounds = 3 if given.quick else 15
    tables = []
    for title, delay in WAYS.items():
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, subjects(Path(folder), delay) as measured:
            found = rounds_of(measured, rounds)
        tables.append(table(f"From start to a forward that accepts, {title}", found, peer=SSH))
        progress(f"start: {title} measured")
    commands = {name: lambda command=command: command_time(command) for name, command in COMMANDS.items()}
    return [*tables, table("The command line", rounds_of(commands, rounds), peer=PASS)]


def main() -> None:
    given = begin(__doc__ or "")
    emit("start", run(given), given)


if __name__ == "__main__":
    main()
