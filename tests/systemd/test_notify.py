"""What systemd is told, as real datagrams on a real socket."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datagrams import Inbox, inbox
from tunneld.systemd import notify
from tunneld.systemd.notify import LONGEST_STATUS, NotifySocket


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Inbox]:
    """A socket where systemd's would be."""
    with inbox(tmp_path) as opened:
        yield opened


def notifying(systemd: Inbox, **more: str) -> NotifySocket:
    return NotifySocket({"NOTIFY_SOCKET": systemd.address, **more})


def test_each_message_is_one_datagram(systemd: Inbox) -> None:
    """The names are sd_notify(3)'s."""
    say = notifying(systemd)
    assert say.is_heard
    say.ready()
    say.alive()
    say.stopping()
    assert systemd.texts() == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_a_reload_carries_the_time(systemd: Inbox) -> None:
    """systemd 253 and newer wants CLOCK_MONOTONIC with it, to tell this reload from an earlier one."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifying(systemd).reloading()
    (first, second) = systemd.texts()[0].splitlines()
    assert first == "RELOADING=1"
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_status_is_one_line_and_not_said_twice(systemd: Inbox) -> None:
    """A line end would begin another assignment, and the same again is noise on the bus."""
    say = notifying(systemd)
    for text in ("up\nREADY=1", "up READY=1", "down\x1b[2J"):
        say.status(text)
    assert systemd.texts() == ["STATUS=up READY=1", "STATUS=down [2J"]


def test_a_long_status_is_cut(systemd: Inbox) -> None:
    """`systemctl status` is for a terminal."""
    notifying(systemd).status("x" * 1000)
    (text,) = systemd.texts()
    assert len(text) == len("STATUS=") + LONGEST_STATUS
    assert text.endswith("x…")


def test_a_status_that_was_lost_is_said_again(tmp_path: Path) -> None:
    """systemd is restarted, and its socket with it."""
    say = NotifySocket({"NOTIFY_SOCKET": str(tmp_path / "socket")})
    say.status("up")
    with inbox(tmp_path) as systemd:
        say.status("up")
        assert systemd.texts() == ["STATUS=up"]


def test_an_abstract_socket_is_reached() -> None:
    """Containers have them: `@` stands for the zero byte."""
    systemd = Inbox(f"@tunneld-test-{os.getpid()}")
    try:
        notifying(systemd).ready()
        assert systemd.texts() == ["READY=1"]
    finally:
        systemd.close()


def test_without_systemd_nothing_is_said() -> None:
    """In a terminal, or under another supervisor."""
    say = NotifySocket({})
    assert not say.is_heard
    say.ready()
    say.status("up")


def test_a_systemd_that_does_not_listen_holds_nobody_up(systemd: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is full: each message waits for a moment, then is given up."""
    monkeypatch.setattr(notify, "SEND_TIMEOUT", 0.01)
    say = notifying(systemd)
    started = time.monotonic()
    for _ in range(300):
        say.alive()
        if time.monotonic() > started + 0.01:
            break
    else:
        pytest.skip("this kernel's queue is longer than 300")
    assert time.monotonic() < started + 5


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_time(environment: dict[str, str], seconds: float | None) -> None:
    """sd_watchdog_enabled(3): another process's watchdog is not ours."""
    assert NotifySocket(environment).watchdog == seconds
