"""The SSH connections of a running session: made, watched and let go as tunneld.mosh.pool_policy decides."""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tunneld.mosh.failed_start import SSH_FAILED, last_line
from tunneld.mosh.pool_policy import DENIED, SUSPECTED, PooledStream, PoolPolicy
from tunneld.mosh.ssh_process import SshProcess
from tunneld.shipped.pack import NO_JOIN_SOCKET, OTHER_MACHINE
from tunneld.shipped.pair_loop import PairLoop

LOOK_EVERY = 0.5
"""Seconds between two looks at all streams."""

HASTE = 1.0
"""Seconds for an answer after the network changed, and two round trips: TCP seldom survives another address."""

GRACE = 3.0
"""Seconds for an ssh that was told to end."""

REFUSED = "Permission denied"
"""What every ssh says that could not log in."""


class PooledSsh(NamedTuple):
    line: SshProcess
    since: float


class SshPool:
    """`dial` starts an ssh whose stream has this name, and `hear` gets what ssh processes say."""

    def __init__(
        self,
        pairing: PairLoop,
        dial: Callable[[str], tuple[SshProcess, bytes]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pairing = pairing
        self._dial = dial
        self._now = now
        self._keeping: PoolPolicy | None = None
        self._moved = -math.inf
        self._said = ""  # the last words of the last ssh that failed
        self._kept: dict[str, PooledSsh] = {}
        self._greeted: set[str] = set()
        self._leaving: list[tuple[SshProcess, float, bool]] = []
        self._serial = 0
        self._found_no_door = False

    def add(self, line: SshProcess, program: bytes) -> None:
        """Make a stream of an ssh that has just been started; `program` is what it is to run there."""
        source, sink = line.ends()
        with contextlib.suppress(BrokenPipeError):  # it has ended already: reading tells
            os.write(sink, program)  # a pipe holds it whole
        self._pairing.add_stream(line.name, source, sink)
        self._kept[line.name] = PooledSsh(line, self._now())

    def keep(self, since: float) -> None:
        """From `since` on, replace what ends and make what is missing."""
        self._keeping = PoolPolicy(since)
        self._look()

    def moved(self) -> None:
        """The network is another one: streams have to answer anew, and soon."""
        self._moved = self._now()
        if self._keeping:
            self._keeping.moved(self._moved)

    def status(self) -> dict[str, Any] | None:
        """For `--paths`: how attempts at another connection fare; None where the last one came."""
        if not self._keeping or not self._keeping.failures:
            return None
        return {
            "failures": self._keeping.failures,
            "next_in": round(self._keeping.pause(self._now()), 1),
            "said": self._said,
        }

    def lost(self, name: str) -> None:
        """The stream of this name has ended by itself."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return
        self._leaving.append((kept.line, self._now(), name not in self._greeted))
        if self._keeping and name in self._greeted:
            self._keeping.lost(lived=self._now() - kept.since, now=self._now())

    @property
    def is_homeless(self) -> bool:
        """Whether the far agent has ended: nothing leads to it, where it was. Its door alone may have been removed."""
        return self._found_no_door and not self._has_life()

    def close(self, patience: float) -> None:
        """End every ssh; those that go by themselves may, for so long."""
        end = self._now() + patience
        for line in [*(kept.line for kept in self._kept.values()), *(line for line, _, _ in self._leaving)]:
            line.end(max(0.0, end - self._now()))
            line.close()
        self._kept.clear()
        self._leaving.clear()

    def _look(self) -> None:
        self._pairing.call_at(self._now() + LOOK_EVERY, self._look)
        self._bury()
        assert self._keeping
        for name, kept in self._kept.items():
            kept.line.drain()
            if name not in self._greeted and self._pairing.pair.streams[name].greeted:
                self._greeted.add(name)
                self._keeping.came()
        if self._keeping.pause(self._now()) > DENIED and not self._has_life():
            self._keeping.stranded(self._now())
        decision = self._keeping.decide(map(self._seen, self._kept.values()), self._now())
        for name in decision.drops:
            self.drop(name)
        if decision.dials:
            self._serial += 1
            try:
                self.add(*self._dial(f"stream-{self._serial}"))
            except OSError:  # no process, or no file descriptor, is left: later, maybe
                self._fail(denied=False)

    def _seen(self, kept: PooledSsh) -> PooledStream:
        carrier = self._pairing.pair.streams[kept.line.name]
        now = self._now()
        overdue = carrier.waited(now) - 2 * (carrier.rtt or 0)
        if carrier.heard < self._moved:
            overdue += SUSPECTED - HASTE
        return PooledStream(kept.line.name, carrier.greeted, overdue, now - kept.since)

    def drop(self, name: str) -> None:
        """End this stream, and its ssh."""
        self._pairing.drop_stream(name)
        line = self._kept.pop(name).line
        line.is_shown = False
        line.process.terminate()
        self._leaving.append((line, self._now(), name not in self._greeted))

    def _bury(self) -> None:
        """Ask the ssh processes that are to end whether they have, and how."""
        waiting = []
        for line, since, failed in self._leaving:
            status = line.process.poll()
            if status is None:
                waiting.append((line, since, failed))
                if self._now() > since + GRACE:
                    line.process.kill()
            else:
                self._judge(line, status, failed)
        self._leaving = waiting

    def _judge(self, line: SshProcess, status: int, failed: bool) -> None:
        line.drain()
        if failed and self._keeping:
            is_no_use = status in (NO_JOIN_SOCKET, OTHER_MACHINE) and self._has_life()
            self._said = last_line(line.said) or f"ssh ended with status {status}"
            self._fail(denied=is_no_use or (status == SSH_FAILED and REFUSED in line.said))
        self._found_no_door = self._found_no_door or status == NO_JOIN_SOCKET
        self._greeted.discard(line.name)
        line.close()

    def _has_life(self) -> bool:
        """Whether anything leads to the far agent."""
        in_use = self._pairing.pair.snapshot(self._now())["in_use"]["carrier"]
        return in_use == "path" or any(self._seen(kept).is_well for kept in self._kept.values())

    def _fail(self, *, denied: bool) -> None:
        assert self._keeping
        self._keeping.failed(denied=denied, now=self._now(), chance=random.SystemRandom().random())
