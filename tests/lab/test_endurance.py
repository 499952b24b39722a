"""One daemon meets the faults that a year may bring; after each it is up again and leaks nothing.

`python -m bench.endurance` runs the same trials for longer.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.lab import trials
from tests.lab.course import Course, course
from tests.lab.crowd import VisitKind
from tests.lab.machine import end
from tests.lab.product import TUNNELD, bound_ports
from tests.lab.trials import Fault, black_hole, full, unplugged
from tests.until import wait_until

pytestmark = pytest.mark.lab

ANOTHER: Final = 7009  # the port of a second tunnel


@pytest.fixture(scope="module")
def ground(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    """One tunnel for all tests. It is up before and after each test, and stops cleanly at the end."""
    with course(tmp_path_factory.mktemp("course")) as made:
        yield made


def another_profile(ground: Course) -> Path:
    relay = ground.daemon.text.partition("[[forward]]")[0]
    profile = ground.lab.pi.directory / "second.toml"
    profile.write_text(f'{relay}[[forward]]\nlisten = "127.0.0.1:{ANOTHER}"\nto = "127.0.0.1:9"\n')
    return profile


@contextmanager
def another(ground: Course, profile: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a second tunneld on pi in this block; it logs to pi's disk."""
    with (ground.lab.pi.directory / "second.log").open("wb") as log:
        started = ground.lab.pi.popen([*TUNNELD, "run", profile], stdout=log, stderr=log, env=ground.daemon.environment)
    try:
        yield started
    finally:
        end(started)


def test_reconnects_leave_nothing_behind(ground: Course) -> None:
    """Each session is killed soon after it came up, at a random moment."""
    outcome = ground.after(partial(trials.reconnect, times=8, seed=1))
    assert outcome.leaks() == []
    assert outcome.sessions is not None
    assert outcome.sessions >= 8


@pytest.mark.parametrize("fault", [black_hole, unplugged])
def test_a_flapping_link_leaves_nothing_behind(ground: Course, fault: Fault) -> None:
    """The link is away for two seconds, then back for two; no session is left over on either side."""
    assert ground.after(partial(trials.flap, fault=fault, times=1)).leaks() == []


def test_connections_that_are_reset_leave_nothing_behind(ground: Course) -> None:
    """A third of the visits are reset, by either side; the others get their whole echo, in the same session."""
    outcome = ground.after(partial(trials.visit, visits=1080, seed=1))
    assert outcome.leaks() == []
    assert outcome.sessions == 0


def test_a_third_of_a_crowd_is_reset(ground: Course) -> None:
    """The trial does what it says."""
    done = trials.visit(ground, visits=90, seed=2)
    assert done == {VisitKind.ECHO: 60, VisitKind.LEAVE: 10, VisitKind.RESET_HERE: 10, VisitKind.RESET_THERE: 10}


def test_a_relay_without_descriptors_is_outlasted(ground: Course) -> None:
    """The relay's sshd cannot accept connections, or cannot serve them; once it can, the tunnel comes up."""
    assert ground.after(partial(trials.relay_without_descriptors, seconds=0.4, most=3)).leaks() == []


def test_running_out_of_descriptors_is_outlasted(ground: Course) -> None:
    """tunneld has too few descriptors for a session and its listeners: the tunnel waits for them and does not fail."""
    assert ground.after(partial(trials.host_without_descriptors, seconds=0.3, most=3)).leaks() == []


def test_a_crowd_that_takes_every_descriptor_leaves_nothing_behind(ground: Course) -> None:
    """Visitors without a descriptor are turned away, by the host or the relay; later visitors are served."""
    assert ground.after(partial(trials.visit_without_descriptors, visits=30, seed=3)).leaks() == []


def test_a_relay_that_runs_few_programs_keeps_the_forwards(ground: Course) -> None:
    """With MaxSessions 1, and with 0, every visit through the forwards succeeds."""
    assert ground.after(partial(trials.few_sessions, visits=18)).leaks() == []


def test_a_full_disk_does_not_stop_a_tunnel(ground: Course) -> None:
    """Full disks on the host and on the relay do no harm, since a tunnel need not write anything."""
    assert ground.after(partial(trials.without_disk, times=1)).leaks() == []


def test_the_log_continues_when_the_disk_has_room_again(ground: Course) -> None:
    """Lines that could not be written are lost; later lines are logged."""
    with full(ground.disks[0]):
        ground.daemon.send(signal.SIGHUP)
        ground.wait_up(mosh=True)
    known = ground.daemon.log
    ground.daemon.send(signal.SIGHUP)
    wait_until(lambda: "profile_unchanged" in ground.daemon.log[len(known) :], what="a reload is logged")


def test_a_tunnel_starts_on_a_full_disk(ground: Course) -> None:
    """As after a boot with a full /var: the tunnel comes up, and stops with exit code 0."""
    profile = another_profile(ground)
    with full(ground.disks[0]), another(ground, profile) as started:
        wait_until(lambda: ANOTHER in bound_ports(ground.lab.relay), what="the second tunnel is up")
        started.terminate()
        assert started.wait(10) == 0


def test_a_tunnel_that_starts_before_the_name_server_comes_up(ground: Course) -> None:
    """As after a power cut in the whole house: tunneld knows no earlier address of the relay, and waits for one."""
    ground.names.silent = True
    with another(ground, another_profile(ground)):
        asked = ground.names.asked
        wait_until(lambda: ground.names.asked > asked, what="a name is asked for")
        ground.names.silent = False
        wait_until(lambda: ANOTHER in bound_ports(ground.lab.relay), what="the second tunnel is up", timeout=20)


def test_setting_the_clock_disturbs_nothing(ground: Course) -> None:
    """Set a day back, two days ahead, and right again: no session ends by it, and the next comes up as usual."""
    outcome = ground.after(partial(trials.clock_steps, seconds=0.5))
    assert outcome.leaks() == []
    assert outcome.sessions == 3


def test_a_dead_name_server_is_outlasted(ground: Course) -> None:
    """The relay's name cannot be looked up; sessions come back nevertheless, and no lookup is left running."""
    assert ground.after(partial(trials.without_names, seconds=2, times=1)).leaks() == []
