"""An obstacle course for one daemon, and counts that show whether the daemon leaks anything on it.

Only a name server knows the relay's address, a test can set the daemon's wall clock, and the daemon and the relay
have small disks.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab import gauge
from tests.lab.clock import Clocks
from tests.lab.crowd import Entrance
from tests.lab.gauge import Gauge
from tests.lab.names import NameServer, ask_only
from tests.lab.net import Lab
from tests.lab.product import MOSH, Daemon, profile_text
from tests.lab.scene import Scene, scene
from tests.lab.sshd import Sshd, descendants
from tests.until import wait_until
from tunneld.cli.status import ask
from tunneld.core.supervise.lifecycle import State
from tunneld.errors import TunneldError
from tunneld.profile import Mode
from tunneld.status.snapshot import TunnelStatus

DISK: Final = "8m"  # of pi and of the relay: keys, profiles, logs, state
TARGET: Final = 7000  # on either side's loopback
REMOTE, LOCAL, SOCKS = 7001, 7002, 7003
SPARE: Final = "60.1.1.1"  # a second relay's address
REMOTE_FORWARDS: Final = (
    'listen = "0.0.0.0:2222"\nto = "127.0.0.1:22"',
    f'listen = "127.0.0.1:{REMOTE}"\nto = "127.0.0.1:{TARGET}"',
)
FORWARDS: Final = (
    *REMOTE_FORWARDS,
    f'direction = "local"\nlisten = "127.0.0.1:{LOCAL}"\nto = "127.0.0.1:{TARGET}"',
    f'direction = "dynamic"\nlisten = "127.0.0.1:{SOCKS}"',
)
# The daemon notices faults soon and recovers soon, so that many faults fit into a test's time.
PACE: Final = (
    "[keepalive]\ninterval = 1\ncount = 2\n"
    "[backoff]\ninitial = 0.2\nmaximum = 2\nstable_after = 0.2\nreturn_after = 1\n"
    "[canary]\ninterval = 60\n"
)

STEADY: Final = 1.0  # seconds without a change after which a daemon counts as at rest
REST_TIME: Final = 20.0  # seconds to wait for the end of what is being closed: a close may take 3, a running lookup 10

# By how much a daemon's figures may grow in a trial. A leak shows in the objects first: a forgotten session is some
# hundred objects, a forgotten connection a few.
MORE_OBJECTS: Final = 1200  # asyncio keeps up to a hundred cancelled timers; `re` keeps compiled expressions
MORE_HEAP: Final = 256 << 10
MORE_RESIDENT: Final = 4 << 20  # bytes; gaps between live objects, whose growth stops by itself


@dataclass(frozen=True, slots=True)
class Held:
    """What the daemon and its relays hold at one moment; `served` counts the processes below the relays' sshd."""

    gauge: Gauge
    served: int
    connections: int  # through forwards, as the status counts them

    @property
    def counts(self) -> dict[str, int]:
        found = self.gauge
        return {
            "tasks": found.tasks,
            "threads": found.threads,
            "descriptors": found.descriptors,
            "processes on the relay": self.served,
            "connections": self.connections,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """The counts before and after a trial, and how long it `took` in seconds.

    `sessions`: how many came up during the trial; None with several relays.
    """

    before: Held
    after: Held
    sessions: int | None
    took: float

    def growth(self, what: str) -> int:
        """By how much one of the gauge's figures has grown."""
        return int(getattr(self.after.gauge, what) - getattr(self.before.gauge, what))

    def leaks(self) -> list[str]:
        """In words, what the daemon holds now and did not hold before; empty when nothing leaked."""
        then, now = self.before.counts, self.after.counts
        found = [f"{what}: {now[what]} instead of {then[what]}" for what in then if now[what] != then[what]]
        if now["tasks"] != then["tasks"]:
            found.append(f"of tasks there are more: {_increase(self.before.gauge.doing, self.after.gauge.doing)}")
        for what, most in (("objects", MORE_OBJECTS), ("heap", MORE_HEAP), ("resident", MORE_RESIDENT)):
            if self.growth(what) > most:
                found.append(f"{what}: {self.growth(what)} more, by kinds: {self.grown_kinds()}")
        return found

    def grown_kinds(self) -> dict[str, int]:
        """The kinds of objects whose number grew most, and by how much."""
        return _increase(self.before.gauge.kinds, self.after.gauge.kinds, unlisted=gauge.COMMON)


def _increase(before: Mapping[str, int], after: Mapping[str, int], *, unlisted: int = 0) -> dict[str, int]:
    """Each kind whose count grew and by how much, largest first, at most 12.

    A kind that `before` does not list counts as `unlisted` there.
    """
    more = {kind: times - before.get(kind, unlisted) for kind, times in after.items()}
    return {kind: times for kind, times in sorted(more.items(), key=lambda each: -each[1])[:12] if times > 0}


@dataclass(frozen=True, slots=True)
class Course:
    """Everything that a trial may break."""

    place: Scene
    spare: Sshd | None  # a second relay
    daemon: Daemon
    names: NameServer
    clock: Clocks
    report: Path

    @property
    def lab(self) -> Lab:
        return self.place.lab

    @property
    def disks(self) -> tuple[Path, Path]:
        return self.lab.pi.directory, self.lab.relay.directory

    @property
    def relays(self) -> tuple[Sshd, ...]:
        return (self.place.relay,) if self.spare is None else (self.place.relay, self.spare)

    @property
    def relay_pid(self) -> int:
        assert self.place.relay.process is not None
        return self.place.relay.process.pid

    @property
    def entrances(self) -> tuple[Entrance, ...]:
        """The ports that lead into each kind of forward."""
        lab = self.lab
        return (
            Entrance(lab.relay, REMOTE),
            Entrance(lab.pi, LOCAL),
            Entrance(lab.relay, REMOTE),
            Entrance(lab.pi, SOCKS, socks_to=TARGET),
        )

    def status(self) -> TunnelStatus | None:
        """The status from the daemon's socket, which is quicker than `tunneld status`; None without an answer."""
        with contextlib.suppress(TunneldError):
            return ask(self.lab.pi.directory / "run" / f"{self.daemon.name}.sock")
        return None

    def wait_for(self, holds: Callable[[TunnelStatus], object], *, what: str, timeout: float = 30) -> TunnelStatus:
        """The first status for which `holds` is true.

        Raises:
            AssertionError: none within `timeout` seconds, or the daemon ended; with the last status and the log.
        """
        seen: list[TunnelStatus | None] = [None]

        def asked() -> bool:
            assert self.daemon.process.poll() is None, f"{what}: tunneld ended\n{self.daemon.log[-6000:]}"
            seen[0] = self.status()
            return seen[0] is not None and bool(holds(seen[0]))

        try:
            wait_until(asked, what=what, timeout=timeout, every=0.02)
        except TimeoutError as late:
            raise AssertionError(f"{late}; status: {seen[0]}\n{self.daemon.log[-6000:]}") from None
        assert seen[0] is not None
        return seen[0]

    def wait_up(self, *, sessions: int = 0, mosh: bool = False, timeout: float = 30) -> TunnelStatus:
        """Return once the tunnel is up and has had more than `sessions` sessions; with `mosh`, mosh is ready too."""
        return self.wait_for(
            lambda status: status.sessions > sessions and is_up(status, mosh=mosh),
            what=f"the tunnel is up after {sessions} sessions",
            timeout=timeout,
        )

    def held(self) -> Held:
        """Count what the daemon and the relays hold now."""
        last = gauge.read(self.report)
        self.daemon.send(signal.SIGUSR1)
        wait_until(lambda: gauge.read(self.report) != last, what="the daemon is counted")
        found = gauge.read(self.report)
        assert found is not None
        served = (descendants(each.process.pid) for each in self.relays if each.process is not None)
        # After the gauge: the daemon answers this question in one more task, which must not be counted.
        through = self.wait_for(lambda _: True, what="status").forwards
        return Held(found, sum(map(len, served)), sum(each.connections for each in through))

    def at_rest(self) -> Held:
        """Wait until the counts have not changed for STEADY seconds, and return them."""
        self.wait_up(mosh=True)
        found, since = self.held(), time.monotonic()
        deadline = since + REST_TIME
        while time.monotonic() < since + STEADY:
            assert time.monotonic() < deadline, f"tunneld does not come to rest: {found}"
            time.sleep(STEADY / 4)
            before, found = found, self.held()
            if found.counts != before.counts:
                since = time.monotonic()
        return found

    def after(self, trial: Callable[[Course], object]) -> Outcome:
        """Run a trial, wait until the tunnel is up again and has had time to clean up, and compare the counts.

        Raises:
            AssertionError: the trial failed, the tunnel does not come up, or a traceback was logged.
        """
        before, began, sessions = self.at_rest(), time.monotonic(), self.wait_up().sessions
        trial(self)
        took = time.monotonic() - began
        more = self.wait_up(mosh=True).sessions - sessions if self.spare is None else None
        after = self._back_to(before)
        assert "Traceback" not in self.daemon.log, self.daemon.log
        return Outcome(before, after, more, took)

    def _back_to(self, before: Held) -> Held:
        """Return the counts as soon as they equal `before`, and after REST_TIME in any case."""
        deadline = time.monotonic() + REST_TIME
        while (found := self.held()).counts != before.counts and time.monotonic() < deadline:
            time.sleep(STEADY / 4)
        self.wait_up(mosh=True)
        return found


def is_up(status: TunnelStatus, *, mosh: bool = False) -> bool:
    """Whether every forward listens; in mode "all", at every relay."""
    parts = status.relays if status.mode == Mode.ALL.value else (status,)
    return all(
        each.state is State.UP
        and (not mosh or each.mosh.state == "ready")
        and all(forward.state == "listening" for forward in each.forwards)
        for each in parts
    )


@contextlib.contextmanager
def course(folder: Path, *, mode: Mode | None = None) -> Iterator[Course]:
    """A tunnel with mosh and every kind of forward, up on entry and stopped cleanly at the end.

    With a `mode` there are two relays, and all forwards are remote ones.
    """
    with Lab(folder) as lab, contextlib.ExitStack() as stack:
        for host in (lab.pi, lab.relay):
            stack.enter_context(_disk(host.directory))
        ask_only(lab.pi, lab.relay.address)
        names = stack.enter_context(NameServer(lab.relay, {"relay": lab.relay.address}))
        options = {"SetEnv": f"HOME={lab.relay.directory / 'home'}", "MaxStartups": "1000"}
        place = stack.enter_context(scene(lab, options=options))
        spare = None if mode is None else stack.enter_context(_spare(place))
        clock, report = Clocks(folder), folder / "gauge.json"
        daemon = Daemon(
            lab.pi,
            _profile(place, mode),
            program=(sys.executable, gauge.__file__, str(report)),
            more=clock.environment,
        )
        stack.enter_context(daemon)
        found = Course(place, spare, daemon, names, clock, report)
        found.wait_up(mosh=True)
        yield found
        assert daemon.stop() == 0, daemon.log


def _profile(place: Scene, mode: Mode | None) -> str:
    if mode is None:
        return profile_text(place.keeper, forwards=FORWARDS, rest=MOSH + PACE)
    text = profile_text(place.keeper, forwards=REMOTE_FORWARDS, rest=MOSH + PACE)
    relay, _, rest = text.replace("[relay]", "[[relay]]").partition("\n\n")
    second = relay.replace('host = "relay"', f'host = "{SPARE}"')
    return f'mode = "{mode.value}"\n{relay}\n{second}\n{rest}'


def _spare(place: Scene) -> Sshd:
    """A second relay, on the router between the first and everybody else."""
    spare = Sshd(place.lab.hosts["inet"], place.relay.authorized, place.relay.options)
    place.keeper.trust(spare.known_hosts(SPARE))
    return spare


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Mount a small file system in memory at `folder` for this block."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
