"""A simulation of many hosts and one relay, with a clock of its own: how the hosts come back after a fault.

The hosts wait and dial by the daemon's own rules and code: Liveness, Backoff, and Race. The sockets of Race meet a
model of a relay: the phases of a fault, sshd's `MaxStartups`, and processors that all logins share.

Tested in tests/bench/test_fleet.py.
"""

from __future__ import annotations

import asyncio
import heapq
import resource
import socket
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any, Final

from tests import leaping
from tunneld.core.happy_eyeballs import SocketAddress
from tunneld.core.supervise.backoff import Backoff, Limits
from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.liveness import Liveness
from tunneld.profile import Keepalive
from tunneld.ssh.connect.dial import CONNECT_TIMEOUT, LOGIN_TIMEOUT
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.connect.race import DirectTunnel, Race

# Seconds of one of the relay's processors for a login, and for the program that runs there beside each session: OpenSSH
# 9.2 with Ed25519 keys and without PAM, the mean of 40 on the machine in docs/measurements.md.
LOGIN: Final = 0.013
PROGRAM: Final = 0.022

# From accept to login: one for the greeting, two for the keys, one for the invitation, one for the signature.
ROUND_TRIPS: Final = 5
ROUND_TRIP: Final = (0.02, 0.12)  # seconds, different for each host
SYNS: Final = (0.0, 1.0, 3.0)  # seconds after connect() at which the kernel sends a SYN (tcp(7), tcp_syn_retries)
AGE: Final = 3600.0  # seconds that each session has stood before the fault

LIMITS: Final = Limits()
KEEPALIVE: Final = Keepalive()


class Phase(Enum):
    """What a packet to the relay meets there."""

    DARK = "nothing answers"
    CLOSED = "nothing listens"
    OPEN = "sshd listens"


@dataclass(frozen=True, slots=True)
class Fault:
    """Each of the `phases` begins so many seconds after the fault. The last phase does not end.

    `told`: the hosts learn at once that their sessions have ended; else the sessions fall silent. `stale`: the relay
    still holds the ports of the old sessions.
    """

    name: str
    title: str
    phases: tuple[tuple[float, Phase], ...]
    told: bool = False
    stale: bool = False

    @property
    def end(self) -> float:
        return self.phases[-1][0]

    def phase(self, now: float) -> Phase:
        return next(phase for begin, phase in reversed(self.phases) if begin <= now)


class Processors:
    """A relay's processors. A job runs on one of them at a time, and all jobs get the same share."""

    def __init__(self, cores: int, speed: float) -> None:
        """`speed` is that of one core, relative to the core on which LOGIN was measured."""
        self._cores = cores
        self._speed = speed
        self._given = 0.0  # seconds of work that a job would have had if it had been there from the beginning
        self._until = 0.0  # the time for which `_given` is true
        self._jobs: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    async def work(self, seconds: float) -> None:
        """Return when a job of so many seconds is done."""
        self._settle()
        done = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._jobs, (self._given + seconds, self._number, done))
        self._plan()
        await done

    @property
    def _share(self) -> float:
        return self._speed * min(1.0, self._cores / max(1, len(self._jobs)))

    def _settle(self) -> None:
        now = asyncio.get_running_loop().time()
        self._given += (now - self._until) * self._share
        self._until = now

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._jobs:
            wait = max(0.0, self._jobs[0][0] - self._given) / self._share
            self._timer = asyncio.get_running_loop().call_later(wait, self._finish)

    def _finish(self) -> None:
        self._settle()
        while self._jobs and self._jobs[0][0] <= self._given + 1e-9:
            done = heapq.heappop(self._jobs)[2]
            if not done.done():
                done.set_result(None)
        self._plan()


@dataclass(slots=True)
class Relay:
    """sshd with `MaxStartups 10:30:100`, its default. `came`, `refused` and `back` are seconds from the fault."""

    fault: Fault
    processors: Processors
    chance: Callable[[], float]
    entering: int = 0  # connections that have not logged in yet
    came: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)

    def lets_in(self, now: float) -> bool:
        """Whether a connection may log in (sshd_config(5), MaxStartups)."""
        self.came.append(now)
        over = (self.entering - 10) / (100 - 10)
        if over < 0 or self.chance() >= 0.3 + (1 - 0.3) * over:
            return True
        self.refused.append(now)
        return False

    async def log_in(self, round_trip: float) -> None:
        self.entering += 1
        try:
            await asyncio.sleep(ROUND_TRIPS * round_trip)
            await self.processors.work(LOGIN)
        finally:
            self.entering -= 1


class Loop(leaping.Leaping):
    """Connects the sockets of Race to the model. An address has one part: the seconds that a packet takes one way."""

    fault: Fault

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        (way,) = address
        began = self.time()
        for sent in SYNS:
            await asyncio.sleep(began + sent + way - self.time())
            phase = self.fault.phase(self.time())
            if phase is not Phase.DARK:
                break
        else:
            await self.create_future()  # until Race gives the socket up
        if phase is Phase.CLOSED:
            await asyncio.sleep(way)
            raise ConnectionRefusedError


class Host:
    """One host, from the fault until its tunnel is up again."""

    def __init__(self, relay: Relay, programs: asyncio.TaskGroup, random: Random) -> None:
        self._relay = relay
        self._programs = programs
        self._chance = random.random
        self._clock = asyncio.get_running_loop().time
        self._round_trip = random.uniform(*ROUND_TRIP)
        self._heard = -random.uniform(0, KEEPALIVE.interval)  # when the relay last answered

    async def run(self) -> None:
        if self._relay.fault.told:
            self._heard = self._clock()
            await asyncio.sleep(self._round_trip / 2)
            await self._redial()
        else:
            await self._doubt()
            try:
                async with asyncio.timeout_at(self._heard + KEEPALIVE.interval * (KEEPALIVE.count + 1)):
                    await self._dial_until_in(Backoff(LIMITS))  # beside the session that may be dead
            except TimeoutError:
                await self._redial()
        self._relay.back.append(self._clock())

    async def _doubt(self) -> None:
        liveness = Liveness(KEEPALIVE.interval, self._heard)
        while (due := liveness.deadline()) is not None:
            await asyncio.sleep(due - self._clock())
            liveness.tick(self._clock(), None)

    async def _redial(self) -> None:
        backoff = Backoff(LIMITS)
        await asyncio.sleep(self._wait(backoff, Failure.NETWORK, lived=AGE, spent=AGE))
        await self._dial_until_in(backoff)

    async def _dial_until_in(self, backoff: Backoff) -> None:
        while True:
            began = self._clock()
            try:
                return await self._dial()
            except SessionError as error:
                await asyncio.sleep(self._wait(backoff, error.failure, lived=None, spent=self._clock() - began))

    def _wait(self, backoff: Backoff, failure: Failure, *, lived: float | None, spent: float) -> float:
        now = self._clock()
        return backoff.wait(failure, lived=lived, spent=spent, outage=now - self._heard, now=now, chance=self._chance())

    async def _dial(self) -> None:
        await self._connect()
        if not self._relay.lets_in(self._clock()):
            await asyncio.sleep(self._round_trip)
            raise SessionError(Failure.REFUSED, "")
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT):
                await self._relay.log_in(self._round_trip)
        except TimeoutError:
            raise SessionError(Failure.REFUSED, "") from None
        program = self._programs.create_task(self._relay.processors.work(PROGRAM))
        if self._relay.fault.stale:
            await program  # it takes the ports over
        await asyncio.sleep(self._round_trip)  # for the listeners

    async def _connect(self) -> None:
        way = SocketAddress(socket.AF_INET, (self._round_trip / 2,))
        interval = DirectTunnel(outage=self._clock() - self._heard).interval
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                (await Race([way], interval=interval, chance=self._chance).won()).close()
        except TimeoutError:
            raise SessionError(Failure.NETWORK, "") from None
        except ConnectionRefusedError:
            raise SessionError(Failure.CLOSED, "") from None


def simulate(fault: Fault, *, hosts: int, cores: int, speed: float = 1.0, seed: int = 1) -> Relay:
    """Simulate a fault, and return what the relay has seen when every host is back. The same `seed` gives the same."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # Race has up to eight sockets for each host
    random = Random(f"{fault.name} {seed}")
    loop = Loop()
    loop.fault = fault
    relay = Relay(fault, Processors(cores, speed), random.random)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(hosts):
                group.create_task(Host(relay, group, random).run())

    leaping.run(all_of_them(), loop)
    return relay


@dataclass(frozen=True, slots=True)
class RelaySize:
    """A relay's processors. `speed` is that of one core, relative to the core on which LOGIN was measured."""

    title: str
    cores: int
    speed: float


@dataclass(frozen=True, slots=True)
class Return:
    """Seconds from the moment at which sshd listens and can be reached: for all hosts together, in ascending order."""

    fault: Fault
    size: RelaySize
    came: Sequence[float]  # connections that reached sshd
    refused: Sequence[float]  # those connections that sshd turned away
    back: Sequence[float]  # tunnels that were up again

    @classmethod
    def seen_by(cls, relay: Relay, size: RelaySize) -> Return:
        came, refused, back = (
            sorted(at - relay.fault.end for at in seen) for seen in (relay.came, relay.refused, relay.back)
        )
        return cls(relay.fault, size, came, refused, back)


def busiest_second(times: Sequence[float]) -> int:
    """The largest number of `times` within any one second. They are in ascending order."""
    return max(bisect_left(times, first + 1) - place for place, first in enumerate(times))
