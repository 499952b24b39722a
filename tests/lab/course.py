"""An obstacle course for one daemon, and a gauge that tells whether it has kept anything from it.

The daemon's relay is known to a name server alone, its wall clock can be set, and it and the relay have small disks.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab import gauge
from tests.lab.clock import WallClock
from tests.lab.crowd import Way
from tests.lab.gauge import Gauge
from tests.lab.machine import wait_until
from tests.lab.names import NameServer, ask_only
from tests.lab.net import Lab
from tests.lab.product import MOSH, Daemon, profile_text
from tests.lab.scene import Scene, scene
from tests.lab.sshd import descendants
from tunneld.cli.status import ask
from tunneld.core.lifecycle import State
from tunneld.errors import TunneldError
from tunneld.status import TunnelStatus

DISK: Final = "8m"  # of pi and of the relay: keys, profiles, logs, state
TARGET: Final = 7000  # on either side's loopback
REMOTE, LOCAL, SOCKS = 7001, 7002, 7003
FORWARDS: Final = (
    'listen = "0.0.0.0:2222"\nto = "127.0.0.1:22"',
    f'listen = "127.0.0.1:{REMOTE}"\nto = "127.0.0.1:{TARGET}"',
    f'direction = "local"\nlisten = "127.0.0.1:{LOCAL}"\nto = "127.0.0.1:{TARGET}"',
    f'direction = "dynamic"\nlisten = "127.0.0.1:{SOCKS}"',
)
# Quick to notice and quick to come back, so that many faults fit into a test's time.
PACE: Final = "[keepalive]\ninterval = 1\ncount = 2\n[backoff]\ninitial = 0.2\nmaximum = 2\nstable_after = 0.2\n"

STEADY: Final = 1.0  # seconds without a change, until a daemon is taken to be at rest
REST_TIME: Final = 20.0  # seconds for what has ended to be gone: a close may take 3, a lookup under way 10


# What a daemon may hold more than before, whatever it went through. A leak shows in the objects first: one forgotten
# session is some hundred of them, one forgotten connection a dozen.
MORE_OBJECTS: Final = (
    1500  # asyncio keeps up to a hundred timers that were cancelled; `re` compiles what it first meets
)
MORE_HEAP: Final = 256 << 10
MORE_RESIDENT: Final = 4 << 20  # holes between what lives: they stop to grow, while what is held does not grow at all


@dataclass(frozen=True, slots=True)
class Held:
    """What the daemon and its relay hold at one moment; `served` are the processes below the relay's sshd."""

    gauge: Gauge
    served: int

    @property
    def counts(self) -> dict[str, int]:
        found = self.gauge
        return {
            "tasks": found.tasks,
            "threads": found.threads,
            "descriptors": found.descriptors,
            "processes on the relay": self.served,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial has left behind; `took` in seconds."""

    before: Held
    after: Held
    sessions: int
    took: float

    def more(self, what: str) -> int:
        """The difference of one of the gauge's figures."""
        return int(getattr(self.after.gauge, what) - getattr(self.before.gauge, what))

    def kept(self) -> list[str]:
        """In words, what is held now and was not before; empty when all is where it began."""
        then, now = self.before.counts, self.after.counts
        found = [f"{what}: {now[what]} instead of {then[what]}" for what in then if now[what] != then[what]]
        for what, most in (("objects", MORE_OBJECTS), ("heap", MORE_HEAP), ("resident", MORE_RESIDENT)):
            if self.more(what) > most:
                found.append(f"{what}: {self.more(what)} more, by kinds: {self.grown()}")
        return found

    def grown(self) -> dict[str, int]:
        """The kinds of objects of which there are most more."""
        before, after = self.before.gauge.kinds, self.after.gauge.kinds
        more = {kind: times - before.get(kind, gauge.COMMON) for kind, times in after.items()}
        return {kind: times for kind, times in sorted(more.items(), key=lambda each: -each[1])[:12] if times > 0}


@dataclass(frozen=True, slots=True)
class Course:
    """Everything that a trial may break. `pi`, `relay`: where their disks are."""

    place: Scene
    daemon: Daemon
    names: NameServer
    clock: WallClock
    report: Path

    @property
    def lab(self) -> Lab:
        return self.place.lab

    @property
    def disks(self) -> tuple[Path, Path]:
        return self.lab.pi.directory, self.lab.relay.directory

    @property
    def relay_pid(self) -> int:
        assert self.place.relay.process is not None
        return self.place.relay.process.pid

    @property
    def ways(self) -> tuple[Way, ...]:
        """Into each kind of forward."""
        lab = self.lab
        return Way(lab.relay, REMOTE), Way(lab.pi, LOCAL), Way(lab.relay, REMOTE), Way(lab.pi, SOCKS, socks_to=TARGET)

    def status(self) -> TunnelStatus | None:
        """What the daemon says, quicker than by its command; None when it does not answer."""
        with contextlib.suppress(TunneldError):
            return ask(self.lab.pi.directory / "run" / f"{self.daemon.name}.sock")
        return None

    def wait_for(self, holds: Callable[[TunnelStatus], object], *, what: str, timeout: float = 30) -> TunnelStatus:
        """
        Raises:
            AssertionError: not within `timeout` seconds, or the daemon ended; with the last status and the log.
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
        """Return once it is up, in a session after the first `sessions`; with `mosh`, ready for that, too."""
        return self.wait_for(
            lambda status: (
                status.state is State.UP
                and status.sessions > sessions
                and (not mosh or status.mosh.state == "ready")
                and all(each.state == "listening" for each in status.forwards)
            ),
            what=f"the tunnel is up after {sessions} sessions",
            timeout=timeout,
        )

    def held(self) -> Held:
        """Count now."""
        last = gauge.read(self.report)
        self.daemon.send(signal.SIGUSR1)
        wait_until(lambda: gauge.read(self.report) != last, what="the daemon is counted")
        found = gauge.read(self.report)
        assert found is not None
        return Held(found, len(descendants(self.relay_pid)))

    def at_rest(self) -> Held:
        """A count once nothing has begun or ended for STEADY seconds."""
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
        """What a trial leaves behind, once the tunnel is up again and has had time to let go of everything.

        Raises:
            AssertionError: the trial failed, the tunnel does not come up, or a traceback was logged.
        """
        before, began, sessions = self.at_rest(), time.monotonic(), self.wait_up().sessions
        trial(self)
        took = time.monotonic() - began
        self.wait_up(mosh=True)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self.held().counts == before.counts, what="rest", timeout=REST_TIME, every=0.2)
        assert "Traceback" not in self.daemon.log, self.daemon.log
        return Outcome(before, self.held(), self.wait_up().sessions - sessions, took)


@contextlib.contextmanager
def course(folder: Path) -> Iterator[Course]:
    """A tunnel with every kind of forward and with mosh, up on entry and stopped cleanly at the end."""
    with Lab(folder) as lab, contextlib.ExitStack() as stack:
        for host in (lab.pi, lab.relay):
            stack.enter_context(_disk(host.directory))
        ask_only(lab.pi, lab.relay.address)
        names = stack.enter_context(NameServer(lab.relay, {"relay": lab.relay.address}))
        home = lab.relay.directory / "home"
        place = stack.enter_context(scene(lab, options={"SetEnv": f"HOME={home}", "MaxStartups": "1000"}))
        clock, report = WallClock(folder), folder / "gauge.json"
        daemon = Daemon(
            lab.pi,
            profile_text(place.keeper, forwards=FORWARDS, rest=MOSH + PACE),
            program=(sys.executable, gauge.__file__, str(report)),
            more=clock.environment,
        )
        stack.enter_context(daemon)
        found = Course(place, daemon, names, clock, report)
        found.wait_up(mosh=True)
        yield found
        assert daemon.stop() == 0, daemon.log


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Mount one there, in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
