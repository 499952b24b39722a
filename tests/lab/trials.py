"""What a tunnel goes through in its life, as much of it as wanted: each trial breaks something, and mends it again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.lab.course import TARGET, Course
from tests.lab.crowd import Deed, crowd, targets
from tests.lab.net import GATEWAYS, Lab
from tests.lab.sshd import descendants
from tunneld.core.supervise.lifecycle import State
from tunneld.profile import Mode
from tunneld.status.snapshot import TunnelStatus

A_DAY = 86_400  # seconds
SOON = 60  # seconds; anything that is no day
ACCEPTS_AGAIN = 1.2  # seconds: who finds no descriptor for a connection, asyncio or sshd, looks again after one

Fault = Callable[[Lab], AbstractContextManager[None]]


@contextlib.contextmanager
def black_hole(lab: Lab) -> Iterator[None]:
    """Nothing comes through any more, and nobody is told."""
    lab.home_link.cut()
    yield
    lab.home_link.mend()


@contextlib.contextmanager
def unplugged(lab: Lab) -> Iterator[None]:
    """The cable is pulled out of pi, whose addresses and routes go with it."""
    lab.pi.shell("ip link set eth0 down")
    yield
    lab.pi.shell(f"ip link set eth0 up\nip route replace default via {GATEWAYS['pi']}")


def flap(course: Course, fault: Fault, *, times: int, up: float = 2, down: float = 2) -> None:
    """The link is away for `down` seconds and there for `up`, again and again."""
    for _ in range(times):
        with fault(course.lab):
            time.sleep(down)
        time.sleep(up)


def reconnect(course: Course, *, times: int, seed: int, within: float = 0.4) -> None:
    """The relay's sshd loses every session, at whatever moment `within` a new session's first seconds."""
    chance = random.Random(seed)
    for _ in range(times):
        sessions = course.wait_up().sessions
        time.sleep(within * chance.random())
        end_sessions(course)
        course.wait_up(sessions=sessions)


def relays_take_turns(course: Course, *, times: int, seed: int) -> None:
    """Of two relays the first is switched off, the second reboots while it is alone, and the first comes back."""
    chance = random.Random(seed)
    first, second = course.relays
    for _ in range(times):
        first.stop(connections=True)
        sessions = course.wait_for(lambda status: _has(status, 1), what="the second relay has it").relays[1].sessions
        time.sleep(chance.random())
        second.restart()
        course.wait_for(partial(_has, relay=1, after=sessions), what="the second relay has it again")
        first.start()
        course.wait_for(lambda status: _has(status, 0) and _leads(status, 0), what="the first relay has it")
        time.sleep(chance.random())


def _has(status: TunnelStatus, relay: int, *, after: int = 0) -> bool:
    """Whether this relay has a session after the first so many."""
    part = status.relays[relay]
    return part.state is State.UP and part.sessions > after


def _leads(status: TunnelStatus, relay: int) -> bool:
    """Whether this is the relay that serves, where only one does."""
    return status.mode == Mode.ALL.value or status.relay == status.relays[relay].relay


def end_sessions(course: Course) -> None:
    """Kill what the relay's sshd runs; it goes on listening."""
    for pid in descendants(course.relay_pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def visit(course: Course, *, visits: int, seed: int, turned_away: bool = False) -> Counter[Deed]:
    """A crowd comes through every kind of forward; see crowd.py."""

    async def visited() -> Counter[Deed]:
        async with targets([(course.lab.pi, TARGET), (course.lab.relay, TARGET)]):
            return await crowd(course.ways, visits=visits, seed=seed, turned_away=turned_away)

    return asyncio.run(visited())


@contextlib.contextmanager
def few_descriptors(pid: int, *, more: int = 0) -> Iterator[None]:
    """A process may open so many more than it has, and then none; what it starts meanwhile has the same limit."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + more, limits[1]))
    try:
        yield
    finally:
        for each in (pid, *descendants(pid)):
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(each, resource.RLIMIT_NOFILE, limits)


def relay_without_descriptors(course: Course, *, seconds: float, most: int) -> None:
    """The relay's sshd can open no more, or 1 more, ... up to `most`, when every session has just ended."""
    for more in range(most + 1):
        sessions = course.wait_up().sessions
        with few_descriptors(course.relay_pid, more=more):
            end_sessions(course)
            time.sleep(seconds)
        course.wait_up(sessions=sessions)


def host_without_descriptors(course: Course, *, seconds: float, most: int) -> None:
    """tunneld itself can open no more, or not even again what it has just lost, down to `most` of them."""
    for less in range(most + 1):
        sessions = course.wait_up().sessions
        with few_descriptors(course.daemon.process.pid, more=-less):
            end_sessions(course)
            time.sleep(seconds)
        course.wait_up(sessions=sessions)


def visit_without_descriptors(course: Course, *, visits: int, seed: int) -> None:
    """A crowd for which neither the relay nor the host has enough; then one for which they have."""
    for pid in (course.daemon.process.pid, *descendants(course.relay_pid)):
        with contextlib.suppress(FileNotFoundError), few_descriptors(pid, more=5):
            visit(course, visits=visits, seed=seed, turned_away=True)
        time.sleep(ACCEPTS_AGAIN)
    done = visit(course, visits=visits, seed=seed)
    assert done.total() == visits


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Nothing more can be written there."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        ballast.unlink()


def few_sessions(course: Course, *, visits: int) -> None:
    """The relay allows one channel with a program, then none (MaxSessions): mosh may suffer, forwards must not."""
    relay, usual = course.place.relay, dict(course.place.relay.options)
    for most in (1, 0):
        relay.options = usual | {"MaxSessions": str(most)}
        restart(course)
        assert visit(course, visits=visits, seed=most).total() == visits
    relay.options = usual
    restart(course)


def restart(course: Course) -> None:
    """The relay reboots."""
    sessions = course.wait_up().sessions
    course.place.relay.restart()
    course.wait_up(sessions=sessions)


def without_disk(course: Course, *, times: int) -> None:
    """No room for a log or for any state, on the host and on the relay, while sessions end and profiles are read."""
    with contextlib.ExitStack() as stack:
        for disk in course.disks:
            stack.enter_context(full(disk))
            assert is_full(disk)
        for _ in range(times):
            sessions = course.wait_up(mosh=True).sessions
            end_sessions(course)
            course.daemon.send(signal.SIGHUP)
            course.wait_up(sessions=sessions, mosh=True)


def is_full(disk: Path) -> bool:
    try:
        (disk / "probe").write_bytes(bytes(4096))
    except OSError as error:
        return error.errno == errno.ENOSPC
    finally:
        (disk / "probe").unlink(missing_ok=True)
    return False


def clock_steps(course: Course, *, seconds: float) -> None:
    """The wall clock goes back a day, then to a day ahead, and a session ends in each."""
    for offset in (-A_DAY, A_DAY, 0):
        sessions = course.wait_up().sessions
        course.clock.set(offset)
        assert abs(course.held().gauge.clock - datetime.now(UTC).timestamp() - offset) < SOON
        time.sleep(seconds)
        assert course.wait_up().sessions == sessions, "a session ended because the clock was set"
        end_sessions(course)
        course.wait_up(sessions=sessions, mosh=True)


def without_names(course: Course, *, seconds: float, times: int) -> None:
    """No name server answers, and the relay is known by its name; sessions end, and the next knows where it was."""
    asked = course.names.asked
    course.names.silent = True
    for _ in range(times):
        sessions = course.wait_up().sessions
        end_sessions(course)
        course.wait_up(sessions=sessions)
        time.sleep(seconds / times)
    assert course.names.asked > asked
    course.names.silent = False
