"""Throughput and echo latency through a remote forward, against OpenSSH's own.

    python -m bench.bulk [--json] [--quick]

Everything runs on the loopback of one network namespace, without delay, so the figures show what the tunnel costs in
processor time. Each round takes every subject in turn, and ratios compare subjects within a round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.numbers import median, quantile, ratio, rotated
from bench.process import processor_time
from bench.report import Arguments, Cell, Column, Table, begin, emit, progress
from bench.traffic import await_echo, download_rate, echo_times, upload_rate
from bench.tunnels import SAME_CIPHER, await_listener, held, profile, ssh_command, target_on, tunneld
from tests.lab.client import Person, person
from tests.lab.machine import Machine
from tests.lab.net import Lab
from tests.lab.sshd import Sshd

DIRECT: Final = "no tunnel"
SSH, SSH_SAME = "ssh -R, its default cipher", f"ssh -R, {SAME_CIPHER}"
OURS, OURS_SAME = "tunneld, its default cipher", f"tunneld, {SAME_CIPHER}"
PEER_OF: Final = {OURS: SSH, OURS_SAME: SSH_SAME}
PORTS: Final = {DIRECT: 7000, SSH: 7001, SSH_SAME: 7002, OURS: 7003, OURS_SAME: 7004}  # all lead to the first
TARGET: Final = f"127.0.0.1:{PORTS[DIRECT]}"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: bytes of a copy, echoes of a round, rounds."""

    copy: int
    echoes: int
    rounds: int


FULL = Size(copy=512 << 20, echoes=2000, rounds=9)
QUICK = Size(copy=64 << 20, echoes=200, rounds=2)


@dataclass(frozen=True, slots=True)
class Sample:
    """One subject in one round: copies in MB/s, echoes in microseconds, the host's processor time in s for each GB."""

    up: float
    down: float
    echo: float
    late_echo: float
    processor: float


Samples = Mapping[str, list[Sample]]


@contextmanager
def subjects(folder: Path) -> Iterator[tuple[Machine, Mapping[str, int]]]:
    """All tunnels, up, on one machine whose loopback nobody else uses; and the process on the host's side of each."""
    with Lab(folder) as lab, ExitStack() as stack:
        machine = lab.relay
        keeper = person(machine, "keeper")
        relay = stack.enter_context(Sshd(machine, (keeper.key.public,)))
        keeper.trust(relay.known_hosts("127.0.0.1"))
        pids = {DIRECT: stack.enter_context(target_on(machine, PORTS[DIRECT]))}
        for name in (SSH, SSH_SAME, OURS, OURS_SAME):
            pids[name] = stack.enter_context(_tunnel(machine, keeper, name))
        assert relay.process is not None
        for name, port in PORTS.items():
            await_listener(relay.process.pid, port, what=name)
            await_echo(machine, port)
        yield machine, pids


@contextmanager
def _tunnel(machine: Machine, keeper: Person, name: str) -> Iterator[int]:
    cipher = SAME_CIPHER if name in (SSH_SAME, OURS_SAME) else None
    if name in PEER_OF:
        forwards = ((f"127.0.0.1:{PORTS[name]}", TARGET),)
        text = profile(keeper, host="127.0.0.1", port=22, forwards=forwards, cipher=cipher)
        with tunneld(machine, "same" if cipher else "default", text) as daemon:
            yield daemon.process.pid
    else:
        options = ("-c", cipher) if cipher else ()
        command = ssh_command(keeper, ("127.0.0.1",), (f"127.0.0.1:{PORTS[name]}:{TARGET}",), *options)
        with held(machine, command) as process:
            yield process.pid


def measure(machine: Machine, pids: Mapping[str, int], size: Size) -> Samples:
    """Take a sample of each subject in each round; a first round, which warms everything up, does not count."""
    found: dict[str, list[Sample]] = {name: [] for name in PORTS}
    for number in range(-1, size.rounds):
        for name, port in rotated(PORTS, number):
            sample = _sample(machine, port, pids[name], size)
            found[name] += [sample] if number >= 0 else []
        progress(f"bulk: round {number + 1} of {size.rounds}")
    return found


def _sample(machine: Machine, port: int, pid: int, size: Size) -> Sample:
    echoes = echo_times(machine, port, size.echoes)
    before = processor_time(pid)
    up, down = upload_rate(machine, port, size.copy), download_rate(machine, port, size.copy)
    spent = processor_time(pid) - before
    return Sample(up, down, median(echoes), quantile(echoes, 0.95), spent / (2 * size.copy / 1e9))


def copying(found: Samples) -> Table:
    return Table(
        "Copying through a remote forward",
        (
            Column("subject"),
            Column("up, x ssh"),
            Column("spread", "s"),
            Column("down, x ssh"),
            Column("spread", "s"),
            Column("host's CPU, x ssh"),
            Column("up, MB/s", ".0f"),
            Column("down, MB/s", ".0f"),
            Column("host's CPU, s/GB"),
        ),
        tuple(
            (
                name,
                *_against(found, name, lambda sample: sample.up),
                *_against(found, name, lambda sample: sample.down),
                _against(found, name, lambda sample: sample.processor)[0],
                median([sample.up for sample in samples]),
                median([sample.down for sample in samples]),
                median([sample.processor for sample in samples]),
            )
            for name, samples in found.items()
            if name != DIRECT
        ),
        "Up: from the host to the relay. x ssh: over `ssh -R` with the same choice of cipher, in the same round; a rate"
        " above 1 is faster, processor time below 1 is less. The CPU is that of the host's `ssh` or `tunneld` alone.",
    )


def echoing(found: Samples) -> Table:
    return Table(
        "Echo of 100 bytes through a remote forward",
        (
            Column("subject"),
            Column("median, x ssh"),
            Column("spread", "s"),
            Column("p95, x ssh"),
            Column("median, us", ".0f"),
            Column("p95, us", ".0f"),
        ),
        tuple(
            (
                name,
                *_against(found, name, lambda sample: sample.echo),
                _against(found, name, lambda sample: sample.late_echo)[0],
                median([sample.echo for sample in samples]),
                median([sample.late_echo for sample in samples]),
            )
            for name, samples in found.items()
        ),
        "x ssh: the time over that of `ssh -R` with the same choice of cipher, in the same round; below 1 is faster.",
    )


def _against(found: Samples, name: str, value: Callable[[Sample], float]) -> tuple[Cell, Cell]:
    """The median and the spread of the rounds' ratios; dashes for a subject without a peer."""
    if name not in PEER_OF:
        return None, "-"
    compared = ratio([value(sample) for sample in found[name]], [value(sample) for sample in found[PEER_OF[name]]])
    return compared.middle, compared.spread


def run(given: Arguments) -> list[Table]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, subjects(Path(folder)) as (machine, pids):
        found = measure(machine, pids, QUICK if given.quick else FULL)
    return [copying(found), echoing(found)]


def main() -> None:
    given = begin(__doc__ or "")
    emit("bulk", run(given), given)


if __name__ == "__main__":
    main()
