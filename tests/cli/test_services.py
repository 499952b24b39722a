"""What `tunneld status` says about a service; tests/lab/test_systemd_service.py asks a real systemd."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunneld.cli.services import Services, describe_service, service_line
from tunneld.systemd.units import UnitState

RUNNING = UnitState(
    name="tunneld@pi-home.service",
    user=False,
    loaded="loaded",
    active="active",
    sub="running",
    file="enabled",
    result="success",
    pid=17,
    exit_code=0,
    restarts=0,
    says="up 3 h",
)
FAILED = replace(RUNNING, active="failed", sub="failed", result="exit-code", exit_code=78, says="pi-home.toml:3: wrong")


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (RUNNING, "running, starts at boot"),
        (replace(RUNNING, file="disabled"), "running, does NOT start at boot"),
        (replace(RUNNING, restarts=1), "running, starts at boot, restarted once after a fault"),
        (replace(RUNNING, restarts=3), "running, starts at boot, restarted 3 times after a fault"),
        (replace(RUNNING, active="inactive"), "stopped, starts at boot"),
        (replace(RUNNING, active="activating"), "starting, starts at boot"),
        (FAILED, "failed with exit code 78, starts at boot"),
        (replace(FAILED, result="watchdog"), "failed (watchdog), starts at boot"),
        (
            replace(RUNNING, active="activating", sub="auto-restart", exit_code=70),
            "being restarted after exit code 70, starts at boot",
        ),
    ],
)
def test_a_service_is_one_line(state: UnitState, line: str) -> None:
    """What systemd has words of its own for is said in ours."""
    assert service_line(state) == f"tunneld@pi-home.service: {line}"


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        (RUNNING, "for more, run `tunneld status` as root, or as a member of the group tunneld"),
        (FAILED, "correct that, then run `systemctl restart tunneld@pi-home`"),
        (replace(FAILED, exit_code=70), "read `journalctl -u tunneld@pi-home`"),
        (replace(RUNNING, active="inactive", says=""), "run `systemctl start tunneld@pi-home`"),
        (replace(RUNNING, active="inactive", says="", user=True), "run `systemctl --user start tunneld@pi-home`"),
        (replace(FAILED, exit_code=70, user=True), "read `journalctl --user -u tunneld@pi-home`"),
    ],
)
def test_a_tunnel_whose_daemon_is_silent_has_a_line_to_type(state: UnitState, advice: str) -> None:
    """Another one for each reason, and for a user's own service."""
    assert describe_service("pi-home", state).splitlines()[-1] == f"  to do     {advice}"


def test_a_stopped_service_says_nothing_old() -> None:
    """Its last status text was true only while it ran."""
    stopped = replace(RUNNING, active="inactive")
    assert "up 3 h" in describe_service("pi-home", RUNNING)
    assert "up 3 h" not in describe_service("pi-home", stopped)
    assert describe_service("pi-home", stopped).startswith("pi-home: not running\n")


def test_without_systemd_there_are_no_services() -> None:
    """A container, for example; nobody is asked then."""
    with Services() as services:
        assert services.names() == set()
        assert services.of("pi-home") is None
