"""A running service is restarted, stopped, reloaded, killed, frozen and misconfigured; and what status says then."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.lab.service import CHECKING_RELAY, SYSTEM_PROFILES, Home, home, profile
from tests.until import wait_until
from tunneld.core.supervise.lifecycle import State

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def place(able_to_boot: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One machine for all tests of this file."""
    with home(tmp_path_factory.mktemp("service"), options=CHECKING_RELAY) as made:
        yield made


@pytest.fixture
def pi(place: Home) -> Iterator[Home]:
    """The machine with the tunnel `pi-home` enabled and up, until the test ends."""
    place.enable(profile(2222, 2223))
    place.wait_up()
    yield place
    place.machine.shell("rm -rf /etc/systemd/system/tunneld@.service.d/test.conf")
    place.disable()


def test_status_reads_well(pi: Home) -> None:
    """One line of `systemctl status` sums the tunnel up, and the journal below it shows the last events."""
    wait_until(lambda: 'Status: "up' in pi.shown(), what="the line is there")
    shown = pi.shown()
    assert "tunneld@pi-home.service - Reverse SSH tunnel pi-home" in shown
    assert "; enabled; " in shown
    assert re.search(r'Status: "up \d+ s to relay; ssh 0.0.0.0:2222 to 22; ssh 0.0.0.0:2223 to 22"', shown)
    assert "pi-home: session established (relay root@relay" in shown
    said = pi.type("tunneld status pi-home")
    assert "pi-home: up for" in said
    assert "service   tunneld@pi-home.service: running, starts at boot" in said


def test_the_journal_is_found_by_tunnel(pi: Home) -> None:
    """`journalctl TUNNELD_TUNNEL=pi-home` has its events, with their priorities."""
    found = pi.machine.shell("journalctl --no-pager -b -o cat TUNNELD_TUNNEL=pi-home TUNNELD_EVENT=session_established")
    assert "pi-home: session established" in found
    assert pi.machine.shell("journalctl --no-pager -b -o cat TUNNELD_TUNNEL=pi-home PRIORITY=3") == ""


def test_a_restart_is_over_within_two_seconds(pi: Home) -> None:
    """The relay's port is freed at the stop, so that the first attempt gets it."""
    started = time.monotonic()
    pi.machine.shell("systemctl restart tunneld@pi-home")
    pi.wait_passing()
    assert time.monotonic() - started < 2
    assert pi.wait_up().attempts == 1


def test_a_stop_gives_the_ports_back(pi: Home) -> None:
    """The ports are free at once, with exit code 0; status says that the service is stopped, and how to start it."""
    pi.machine.shell("systemctl stop tunneld@pi-home")
    assert not pi.holds(2222)
    assert pi.property("ExecMainStatus") == "0"
    assert pi.property("Result") == "success"
    said = pi.type("tunneld status pi-home", code=1)
    assert "pi-home: not running" in said
    assert "tunneld@pi-home.service: stopped, starts at boot" in said
    assert "systemctl start tunneld@pi-home" in said


def test_a_reload_restarts_the_changed_forward_alone(pi: Home) -> None:
    """A connection through the unchanged forward goes on, in the same session of the same process."""
    pid = pi.property("MainPID")
    with pi.connect(2222) as held:
        pi.write_profile(profile(2222, 2224))
        pi.machine.shell("systemctl reload tunneld@pi-home")
        pi.wait_passing(2224)
        assert not pi.holds(2223)
        held.sendall(b"SSH-2.0-still\r\n")
        assert held.recv(4096)
    assert pi.property("MainPID") == pid
    assert pi.wait_up().sessions == 1


def test_a_reload_of_a_broken_profile_changes_nothing(pi: Home) -> None:
    """The tunnel goes on as it was, and the journal says what is wrong."""
    pi.write_profile("[relay]\nhots = 3\n")
    pi.machine.shell("systemctl reload tunneld@pi-home")
    wait_until(lambda: "profile rejected" in pi.journal(), what="it is said")
    assert f"{SYSTEM_PROFILES}/pi-home.toml:2: relay.hots" in pi.journal()
    assert pi.passes(2222)
    assert pi.passes(2223)


def test_a_killed_daemon_is_started_again(pi: Home) -> None:
    """After `kill -9` systemd starts the daemon again, and the tunnel is back within seconds."""
    pi.machine.shell("systemctl kill --signal=KILL tunneld@pi-home")
    wait_until(lambda: pi.property("NRestarts") == "1", what="systemd starts it again")
    pi.wait_passing()
    assert "restarted once" in pi.type("tunneld status pi-home")


def test_a_frozen_daemon_is_started_again(pi: Home) -> None:
    """systemd restarts a daemon whose event loop no longer feeds the watchdog (after 2 s here, 30 s by default)."""
    pi.machine.write("/etc/systemd/system/tunneld@.service.d/test.conf", "[Service]\nWatchdogSec=2\n")
    pi.machine.shell("systemctl daemon-reload; systemctl restart tunneld@pi-home")
    pi.wait_up()
    frozen = pi.property("MainPID")
    heard = {pi.property("WatchdogTimestampMonotonic")}
    wait_until(lambda: len(heard | {pi.property("WatchdogTimestampMonotonic")}) > 1, what="a first sign of life")
    heard.add(pi.property("WatchdogTimestampMonotonic"))
    wait_until(lambda: pi.property("WatchdogTimestampMonotonic") not in heard, what="a second one")
    assert pi.property("MainPID") == frozen
    pi.machine.shell(f"kill -STOP {frozen}")
    wait_until(lambda: pi.property("NRestarts") == "1", what="systemd starts it again", timeout=30, every=0.2)
    pi.wait_passing()
    assert pi.property("MainPID") != frozen
    assert "Watchdog timeout" in pi.machine.shell("journalctl --no-pager -b -o cat -u tunneld@pi-home")


def test_a_broken_profile_fails_once_and_says_why(pi: Home) -> None:
    """It exits with code 78 and is not restarted; both kinds of status say why. Once mended and enabled, it is up."""
    pi.write_profile(profile(2222) + "[keepalive]\ninterval = -1\n")
    pi.machine.run(["systemctl", "restart", "tunneld@pi-home"], check=False)
    wait_until(lambda: pi.property("ActiveState") == "failed", what="it has failed")
    problem = f"{SYSTEM_PROFILES}/pi-home.toml:8: keepalive.interval"
    assert problem in pi.shown()
    assert "status=78" in pi.shown()
    said = pi.type("tunneld status pi-home", code=1)
    assert "tunneld@pi-home.service: failed with exit code 78, starts at boot" in said
    assert problem in said
    assert pi.property("NRestarts") == "0"
    assert problem in pi.type("tunneld enable pi-home", code=78)
    pi.enable(profile(2222, 2223))
    pi.wait_passing()


def test_a_relay_that_refuses_the_key_is_told_in_one_line(pi: Home) -> None:
    """The service runs on, and its status line says that it needs a person, and what to do."""
    authorized = pi.scene.relay.directory / "authorized_keys"
    lines = authorized.read_text()
    authorized.write_text("")
    try:
        pi.machine.shell("systemctl restart tunneld@pi-home")
        wait_until(lambda: "NEEDS YOU" in pi.shown(), what="the line says so")
        shown = pi.shown()
        told = 'Status: "NEEDS YOU: relay:22 denied root with every key offered (ssh-ed25519 SHA256:'
        assert told in shown
        assert re.search(r'add one of these to ~/.ssh/authorized_keys there; next try in [\dmins ]+"', shown)
        assert pi.property("ActiveState") == "active"
        assert "mend that, on the relay or on this host" in pi.type("tunneld status pi-home", code=1)
    finally:
        authorized.write_text(lines)
    pi.machine.shell("systemctl restart tunneld@pi-home")
    pi.wait_up()


def test_a_new_key_needs_no_more_than_enable(pi: Home) -> None:
    """The service has a copy of each key file; when a file has changed, enable gives it the new one."""
    before = pi.property("MainPID")
    pi.machine.shell("printf '\\n' >>/root/.ssh/known_hosts")
    pi.enable()
    assert pi.property("MainPID") != before
    assert pi.wait_up().state is State.UP
