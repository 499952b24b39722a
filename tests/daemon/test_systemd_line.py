"""What systemd is told while the daemon runs: when, in virtual time, and over a real socket."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import leaping
from tests.datagrams import inbox
from tunneld.daemon.systemd_line import LINE_INTERVAL, SECOND_LINE_DELAY, SystemdLine
from tunneld.systemd.notify import NotifySocket


@dataclass
class Notified:
    """Stands for the socket to systemd: notes when each line and each sign of life came."""

    watchdog: float | None = None
    is_heard: bool = True
    lines: list[tuple[float, str]] = field(default_factory=list)
    signs: list[float] = field(default_factory=list)

    def status(self, text: str) -> None:
        self.lines.append((asyncio.get_running_loop().time(), text))

    def alive(self) -> None:
        self.signs.append(asyncio.get_running_loop().time())


def told(notified: Notified, *, seconds: float, changes: dict[float, str] | None = None) -> Notified:
    """Run for so long, in no time; at each of the `changes` the line becomes another one."""

    async def run() -> None:
        line = ["started"]
        systemd = SystemdLine(notified, lambda: line[-1])  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(systemd.run())
            for at, text in (changes or {}).items():
                await asyncio.sleep(at - asyncio.get_running_loop().time())
                line.append(text)
                systemd.moved()
            await asyncio.sleep(seconds - asyncio.get_running_loop().time())
            running.cancel()

    leaping.run(run(), leaping.Leaping())
    return notified


@pytest.mark.parametrize(("watchdog", "interval"), [(4, 2), (60, LINE_INTERVAL), (None, LINE_INTERVAL)])
def test_signs_of_life_come_twice_in_the_watchdogs_time(watchdog: float | None, interval: float) -> None:
    """So one sign may be late without harm (sd_watchdog_enabled(3)); a line is never older than ten seconds."""
    notified = told(Notified(watchdog), seconds=41)
    assert notified.signs == pytest.approx([interval * number for number in range(int(40 / interval) + 1)])
    assert [at for at, _ in notified.lines] == notified.signs


def test_news_is_told_at_once_and_what_follows_it_soon() -> None:
    """A change of a tunnel does not wait for the next line; nor does mosh, which gets ready a moment later."""
    notified = told(Notified(), seconds=9, changes={3: "up"})
    assert notified.lines == [(0, "started"), (3, "up"), (3 + SECOND_LINE_DELAY, "up")]


def test_after_news_a_watchdog_that_is_faster_still_counts() -> None:
    """The second line does not delay a sign of life."""
    notified = told(Notified(watchdog=1), seconds=2.3, changes={1.2: "up"})
    assert notified.signs == pytest.approx([0, 0.5, 1.0, 1.2, 1.7, 2.2])


async def test_a_loop_that_hangs_gives_no_sign_of_life(tmp_path: Path) -> None:
    """The signs come from the event loop that moves the tunnels' bytes, and from no other thread."""
    with inbox(tmp_path) as systemd:
        notify = NotifySocket({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "40000"})
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(SystemdLine(notify, lambda: "up").run())
            await systemd.hears("WATCHDOG=1")
            systemd.take()
            time.sleep(0.1)  # noqa: ASYNC251 (this is the hang)
            assert systemd.texts() == []
            await systemd.hears("WATCHDOG=1")
            running.cancel()


async def test_without_systemd_it_does_nothing() -> None:
    """No timer wakes a daemon that nobody listens to."""
    async with asyncio.timeout(1):
        await SystemdLine(NotifySocket({}), lambda: "up").run()
