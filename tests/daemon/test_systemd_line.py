"""What systemd is told while the daemon runs, over a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datagrams import Inbox, inbox
from tunneld.daemon import systemd_line
from tunneld.daemon.systemd_line import SystemdLine
from tunneld.systemd.notify import NotifySocket


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Inbox]:
    with inbox(tmp_path) as opened:
        yield opened


def notify(systemd: Inbox, seconds: float) -> NotifySocket:
    return NotifySocket({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": str(int(seconds * 1_000_000))})


async def test_the_watchdog_hears_of_us_twice_in_its_time(systemd: Inbox) -> None:
    """One sign of life may be late without harm."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(SystemdLine(notify(systemd, 0.2), lambda: "up").run())
        started = time.monotonic()
        for _ in range(5):
            await systemd.hears("WATCHDOG=1")
        running.cancel()
    assert 0.35 <= time.monotonic() - started < 2


async def test_a_loop_that_hangs_gives_no_sign_of_life(systemd: Inbox) -> None:
    """The signs come from the loop that moves the tunnels' bytes, from no thread beside it."""
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(SystemdLine(notify(systemd, 0.1), lambda: "up").run())
        await systemd.hears("WATCHDOG=1")
        systemd.take()
        time.sleep(0.3)  # noqa: ASYNC251 (this is the hang)
        assert systemd.texts() == []
        await systemd.hears("WATCHDOG=1")
        running.cancel()


async def test_news_is_told_at_once_and_what_follows_it_soon(systemd: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move of a tunnel does not wait for the beat; nor does mosh, which gets ready a moment later."""
    monkeypatch.setattr(systemd_line, "SECOND_LINE_DELAY", 0.05)
    monkeypatch.setattr(systemd_line, "LINE_INTERVAL", 1000.0)
    said = ["dialing"]
    told = SystemdLine(NotifySocket({"NOTIFY_SOCKET": systemd.address}), lambda: said[-1])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(told.run())
        assert await systemd.hears("STATUS") == "STATUS=dialing"
        said.append("up")
        told.moved()
        assert await systemd.hears("STATUS") == "STATUS=up"
        said.append("up; mosh")
        assert await systemd.hears("STATUS") == "STATUS=up; mosh"
        running.cancel()


async def test_without_systemd_it_does_nothing() -> None:
    """No timer wakes a daemon that nobody listens to."""
    async with asyncio.timeout(1):
        await SystemdLine(NotifySocket({}), lambda: "up").run()
