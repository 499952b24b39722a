"""Faults that a tunnel meets in its life: each trial breaks something and mends it again, as often as a test wants."""

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
from tests.lab.crowd import VisitKind, crowd, targets
from tests.lab.net import GATEWAYS, Lab
from tests.lab.sshd import descendants
from tunneld.core.supervise.lifecycle import State
from tunneld.profile import Mode
from tunneld.status.snapshot import TunnelStatus

A_DAY = 86_400  # seconds
CLOCK_TOLERANCE = 60  # seconds; much less than a day suffices
ACCEPTS_AGAIN = 1.2  # seconds: asyncio and sshd try to accept again 1 s after they found no free descriptor

Fault = Callable[[Lab], AbstractContextManager[None]]


@contextlib.contextmanager
def black_hole(lab: Lab) -> Iterator[None]:
    """In this block the home's link drops every packet silently."""
    lab.home_link.cut()
    yield
    lab.home_link.mend()


@contextlib.contextmanager
def unplugged(lab: Lab) -> Iterator[None]:
    """In this block the cable is pulled out of pi, which loses its default route by that."""
    lab.pi.shell("ip link set eth0 down")
    yield
    lab.pi.shell(f"ip link set eth0 up\nip route replace default via {GATEWAYS['pi']}")


def flap(course: Course, fault: Fault, *, times: int, up: float = 2, down: float = 2) -> None:
    """Break the link for `down` seconds and let it work for `up` seconds, `times` times."""
    for _ in range(times):
        with fault(course.lab):
            time.sleep(down)
        time.sleep(up)


def reconnect(course: Course, *, times: int, seed: int, within: float = 0.4) -> None:
    """Kill every session at the relay, at a random moment in the first `within` seconds after a session came up."""
    chance = random.Random(seed)
    for _ in range(times):
        sessions = course.wait_up().sessions
        time.sleep(within * chance.random())
        end_sessions(course)
        course.wait_up(sessions=sessions)


def relays_take_turns(course: Course, *, times: int, seed: int) -> None:
    """The first of two relays is switched off, the second reboots while it is alone, and the first comes back."""
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
    """Whether this relay is up and has had more than `after` sessions."""
    part = status.relays[relay]
    return part.state is State.UP and part.sessions > after


def _leads(status: TunnelStatus, relay: int) -> bool:
    """Whether this relay serves; in mode "all" each one does."""
    return status.mode == Mode.ALL.value or status.relay == status.relays[relay].relay


def end_sessions(course: Course) -> None:
    """Kill the sessions of the relay's sshd; sshd itself goes on listening."""
    for pid in descendants(course.relay_pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def visit(course: Course, *, visits: int, seed: int, turned_away: bool = False) -> Counter[VisitKind]:
    """Send a crowd (see crowd.py) through every kind of forward."""

    async def visited() -> Counter[VisitKind]:
        async with targets([(course.lab.pi, TARGET), (course.lab.relay, TARGET)]):
            return await crowd(course.entrances, visits=visits, seed=seed, turned_away=turned_away)

    return asyncio.run(visited())


@contextlib.contextmanager
def few_descriptors(pid: int, *, more: int = 0) -> Iterator[None]:
    """A process may open only `more` descriptors above its highest in this block; its children inherit the limit."""
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
    """End every session while the relay's sshd can open 0 more descriptors, then 1, and so on up to `most`."""
    for more in range(most + 1):
        sessions = course.wait_up().sessions
        with few_descriptors(course.relay_pid, more=more):
            end_sessions(course)
            time.sleep(seconds)
        course.wait_up(sessions=sessions)


def host_without_descriptors(course: Course, *, seconds: float, most: int) -> None:
    """End every session while tunneld can open 0 more descriptors, then one less than it had, down to `most` less."""
    for less in range(most + 1):
        sessions = course.wait_up().sessions
        with few_descriptors(course.daemon.process.pid, more=-less):
            end_sessions(course)
            time.sleep(seconds)
        course.wait_up(sessions=sessions)


def visit_without_descriptors(course: Course, *, visits: int, seed: int) -> None:
    """A crowd comes while the host lacks descriptors, then each process of the relay; the last crowd finds enough."""
    for pid in (course.daemon.process.pid, *descendants(course.relay_pid)):
        with contextlib.suppress(FileNotFoundError), few_descriptors(pid, more=5):
            visit(course, visits=visits, seed=seed, turned_away=True)
        time.sleep(ACCEPTS_AGAIN)
    done = visit(course, visits=visits, seed=seed)
    assert done.total() == visits


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """In this block the disk is full."""
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
    """The relay runs one program in each SSH connection, then none (MaxSessions): mosh may fail, forwards must work."""
    relay, usual = course.place.relay, dict(course.place.relay.options)
    for most in (1, 0):
        relay.options = usual | {"MaxSessions": str(most)}
        restart(course)
        assert visit(course, visits=visits, seed=most).total() == visits
    relay.options = usual
    restart(course)


def restart(course: Course) -> None:
    """Reboot the relay, and wait for a new session."""
    sessions = course.wait_up().sessions
    course.place.relay.restart()
    course.wait_up(sessions=sessions)


def without_disk(course: Course, *, times: int) -> None:
    """The disks of the host and the relay are full while sessions end and the profile is read again."""
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
    """Set the wall clock a day back, then a day ahead, then right; after each step a session is ended."""
    for offset in (-A_DAY, A_DAY, 0):
        sessions = course.wait_up().sessions
        course.clock.set(offset)
        assert abs(course.held().gauge.clock - datetime.now(UTC).timestamp() - offset) < CLOCK_TOLERANCE
        time.sleep(seconds)
        assert course.wait_up().sessions == sessions, "a session ended because the clock was set"
        end_sessions(course)
        course.wait_up(sessions=sessions, mosh=True)


def without_names(course: Course, *, seconds: float, times: int) -> None:
    """The name server is silent, so the relay's name has no address; the next session uses the address known before."""
    asked = course.names.asked
    course.names.silent = True
    for _ in range(times):
        sessions = course.wait_up().sessions
        end_sessions(course)
        course.wait_up(sessions=sessions)
        time.sleep(seconds / times)
    assert course.names.asked > asked
    course.names.silent = False
