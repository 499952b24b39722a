"""The SSH connections of a running session: makes, watches and drops them as tunneld.mosh.pool_policy decides."""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tunneld.mosh import pool_policy
from tunneld.mosh.failed_start import SSH_FAILED, last_line
from tunneld.mosh.pool_policy import SHORTEST_DENIED, PooledStream, PoolPolicy
from tunneld.mosh.ssh_process import SshProcess
from tunneld.shipped.pack import NO_JOIN_SOCKET, OTHER_MACHINE
from tunneld.shipped.pair_loop import PairLoop

POOL_CHECK_EVERY = 0.5
"""Seconds between two checks of all streams."""

ANSWER_AFTER_CHANGE = 1.0
"""Seconds, and two round trips, for a stream to answer after the network changed: TCP seldom survives a new address."""

TERMINATE_GRACE = 3.0
"""Seconds for an ssh to end after SIGTERM."""

LOGIN_REFUSED = "Permission denied"
"""Words of every ssh that could not log in."""


class PooledSsh(NamedTuple):
    """An ssh in use, and when it was started."""

    ssh: SshProcess
    since: float


class EndingSsh(NamedTuple):
    """An ssh whose stream has ended at the time `since`; `failed`: the stream never worked."""

    ssh: SshProcess
    since: float
    failed: bool


class SshPool:
    """`dial` takes the name of a new stream, starts an ssh for it, and gives that ssh and the input of its program."""

    def __init__(
        self,
        loop: PairLoop,
        dial: Callable[[str], tuple[SshProcess, bytes]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._dial = dial
        self._now = now
        self._policy: PoolPolicy | None = None
        self._network_changed_at = -math.inf
        self._said = ""  # the last words of the last ssh that failed
        self._in_use: dict[str, PooledSsh] = {}
        self._greeted: set[str] = set()
        self._ending: list[EndingSsh] = []
        self._serial = 0
        self._found_no_agent = False

    def add(self, ssh: SshProcess, program: bytes) -> None:
        """Make a stream of an ssh that has just been started; `program` is the input of what ssh runs on DEST."""
        source, sink = ssh.ends()
        with contextlib.suppress(BrokenPipeError):  # ssh has ended already: reading tells
            os.write(sink, program)  # a pipe holds the whole program
        self._loop.add_stream(ssh.name, source, sink)
        self._in_use[ssh.name] = PooledSsh(ssh, self._now())

    def keep(self, since: float) -> None:
        """From the time `since` on, replace streams that end and make those that are missing."""
        self._policy = PoolPolicy(since)
        self._check()

    def network_changed(self) -> None:
        """The network is another one: every stream has to prove soon that it still works."""
        self._network_changed_at = self._now()
        if self._policy:
            self._policy.network_changed(self._network_changed_at)

    def status(self) -> dict[str, Any] | None:
        """How the attempts at another connection fare, for `--paths`; None unless the last one failed."""
        if not self._policy or not self._policy.failures:
            return None
        return {
            "failures": self._policy.failures,
            "next_in": round(self._policy.pause(self._now()), 1),
            "said": self._said,
        }

    def lost(self, name: str) -> None:
        """The stream of this name has ended by itself."""
        lost = self._in_use.pop(name, None)
        if lost is None:
            return
        self._ending.append(EndingSsh(lost.ssh, self._now(), failed=name not in self._greeted))
        if self._policy and name in self._greeted:
            self._policy.lost(lived=self._now() - lost.since, now=self._now())

    @property
    def is_homeless(self) -> bool:
        """Whether our agent on DEST has ended: an ssh found no socket of it there, and nothing else reaches it.

        Somebody may have removed the socket alone; then the streams and the path still work.
        """
        return self._found_no_agent and not self._reaches_dest()

    def close(self, patience: float) -> None:
        """End every ssh; for `patience` seconds they may end by themselves."""
        deadline = self._now() + patience
        for ssh in [*(each.ssh for each in self._in_use.values()), *(each.ssh for each in self._ending)]:
            ssh.end(max(0.0, deadline - self._now()))
            ssh.close()
        self._in_use.clear()
        self._ending.clear()

    def _check(self) -> None:
        self._loop.call_at(self._now() + POOL_CHECK_EVERY, self._check)
        self._reap()
        assert self._policy
        for name, each in self._in_use.items():
            each.ssh.drain()
            if name not in self._greeted and self._loop.pair.streams[name].greeted:
                self._greeted.add(name)
                self._policy.greeted()
        if any(each.failed for each in self._ending):
            return  # its exit status decides when the next attempt may be made
        if self._policy.pause(self._now()) > SHORTEST_DENIED and not self._reaches_dest():
            self._policy.stranded(self._now())
        decision = self._policy.decide(map(self._seen, self._in_use.values()), self._now())
        for name in decision.drops:
            self.drop(name)
        if decision.dials:
            self._serial += 1
            try:
                self.add(*self._dial(f"stream-{self._serial}"))
            except OSError:  # no process or no file descriptor is left here: there may be one later
                self._fail(denied=False)

    def _seen(self, pooled: PooledSsh) -> PooledStream:
        carrier = self._loop.pair.streams[pooled.ssh.name]
        now = self._now()
        overdue = carrier.waited(now) - 2 * (carrier.rtt or 0)
        if carrier.heard < self._network_changed_at:
            overdue += pool_policy.SUSPECTED - ANSWER_AFTER_CHANGE
        return PooledStream(pooled.ssh.name, carrier.greeted, overdue, now - pooled.since)

    def drop(self, name: str) -> None:
        """End the stream of this name, and its ssh."""
        self._loop.drop_stream(name)
        ssh = self._in_use.pop(name).ssh
        ssh.is_shown = False
        ssh.process.terminate()
        self._ending.append(EndingSsh(ssh, self._now(), failed=name not in self._greeted))

    def _reap(self) -> None:
        """See which of the ending ssh processes have ended, and how; kill those that take too long."""
        still_ending = []
        for each in self._ending:
            status = each.ssh.process.poll()
            if status is not None:
                self._judge(each.ssh, status, each.failed)
                continue
            still_ending.append(each)
            if self._now() > each.since + TERMINATE_GRACE:
                each.ssh.process.kill()
        self._ending = still_ending

    def _judge(self, ssh: SshProcess, status: int, failed: bool) -> None:
        ssh.drain()
        if failed and self._policy:
            # This name leads to another machine or agent: while ours is reached, asking again soon is of no use.
            leads_elsewhere = status in (NO_JOIN_SOCKET, OTHER_MACHINE) and self._reaches_dest()
            self._said = last_line(ssh.said) or f"ssh ended with status {status}"
            self._fail(denied=leads_elsewhere or (status == SSH_FAILED and LOGIN_REFUSED in ssh.said))
        self._found_no_agent = self._found_no_agent or status == NO_JOIN_SOCKET
        self._greeted.discard(ssh.name)
        ssh.close()

    def _reaches_dest(self) -> bool:
        """Whether a stream or a path leads to our agent on DEST."""
        in_use = self._loop.pair.snapshot(self._now())["in_use"]["carrier"]
        return in_use == "path" or any(self._seen(each).is_well for each in self._in_use.values())

    def _fail(self, *, denied: bool) -> None:
        assert self._policy
        self._policy.failed(denied=denied, now=self._now(), chance=random.SystemRandom().random())
