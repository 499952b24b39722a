"""The TCP connection under an SSH connection: every address of a name gets its turn, and silence is never waited out.

At first as RFC 8305 (Happy Eyeballs) has it: the families take turns, a quarter of a second apart. While nothing
answers, fresh attempts follow: the kernel repeats a lost SYN after 1, 3, 7 and 15 s, so one attempt alone would sleep
through the return of a link for seconds, and a NAT's or firewall's stale idea of a flow would never be shaken off.

The first attempt to connect wins, and the others are closed at once. A socket closed before it is connected leaves no
trace in sshd, whose PerSourcePenalties count every connection that does not log in.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from tunneld.ssh.connect.quickack import QuickAck
from tunneld.ssh.connect.resolver import NameCache, Question, SocketAddress, is_no_answer

STAGGER = 0.25  # seconds between the first attempts at several addresses (RFC 8305, section 8)
LIFE = 4.0  # seconds that an attempt may take: the kernel has sent its SYN three times by then
MOST = 8  # attempts under way at once

# Seconds until the same address is tried afresh. An outage that has lasted minutes may last minutes more: one SYN per
# second would be rude, and nobody minds that a recovery is noticed a 60th of the outage later.
SHORTEST, LONGEST = 1.0, 15.0
OUTAGES_PART = 1 / 60

# Seconds to wait for a name server where an earlier answer is known; one that is near takes a tenth of it.
PATIENCE = 0.3

# What an address tells that this machine cannot even ask: any other address's words say more.
NO_WAY = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


NAMES = NameCache()


class DirectTunnel:
    """Connects without a jump host, in the shape in which asyncssh takes a `tunnel`.

    `outage`: seconds for which the relay has been out of reach; `interval`: those between attempts, which follow from
    it. The caller bounds the time of it all.
    """

    def __init__(
        self,
        *,
        family: int = 0,
        local: tuple[str, int] | None = None,
        outage: float = 0.0,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self._family = family
        self._local = local
        self.interval = min(max(outage * OUTAGES_PART, SHORTEST), LONGEST)
        self._chance = chance or Random().random

    async def create_connection(
        self, session_factory: Callable[[], Any], remote_host: str, remote_port: int
    ) -> tuple[asyncio.Transport, Any]:
        """Through the first address that answers. Raises OSError: the plainest word of those that do not."""
        plain = await self._connected(Question(remote_host, remote_port, self._family))
        try:
            protocol = session_factory()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: QuickAck(protocol, plain), sock=plain)
            return transport, protocol
        except BaseException:
            plain.close()
            raise

    async def _connected(self, question: Question) -> socket.socket:
        loop = asyncio.get_running_loop()
        known = NAMES.last(question)
        if known and NAMES.is_being_asked(question):
            return await (await self._race(known)).won()
        asking = loop.run_in_executor(None, NAMES.ask, question)
        try:
            race = await self._race(await _answer(asking, known))
            asking.add_done_callback(race.learn)
            return await race.won()
        finally:
            asking.cancel()

    async def _race(self, addresses: Iterable[SocketAddress]) -> Race:
        local: tuple[SocketAddress, ...] = ()
        if self._local:
            local = await asyncio.to_thread(NAMES.ask, Question(*self._local, self._family))
        return Race(interleaved(addresses), local=local, interval=self.interval, chance=self._chance)


class Race:
    """Attempts at the addresses in turn, until one of them connects. Runs once."""

    def __init__(
        self,
        addresses: Sequence[SocketAddress],
        *,
        local: Iterable[SocketAddress] = (),
        interval: float,
        chance: Callable[[], float],
    ) -> None:
        self._addresses = list(addresses)
        self._untried = deque(addresses)
        self._local: dict[int, Any] = {address.family: address.where for address in reversed(tuple(local))}
        self._interval = interval
        self._chance = chance
        self._heard: dict[SocketAddress, OSError] = {}  # the last word of each address, TimeoutError for silence
        self._attempts: set[asyncio.Task[None]] = set()
        self._winner: socket.socket | None = None
        self._news = asyncio.Event()

    async def won(self) -> socket.socket:
        """The connected socket. Raises OSError: none will connect."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._take_turns(group)
                for attempt in self._attempts:
                    attempt.cancel()
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        if self._winner is None:
            raise self._verdict() or OSError("no address")
        return self._winner

    def learn(self, found: asyncio.Future[tuple[SocketAddress, ...]]) -> None:
        """Try what else the name means too, when that comes to light."""
        if found.cancelled() or found.exception() is not None:
            return
        new = [address for address in interleaved(found.result()) if address not in self._addresses]
        self._addresses += new
        self._untried += new
        self._news.set()

    async def _take_turns(self, group: asyncio.TaskGroup) -> None:
        turns = itertools.count()
        while self._addresses and not self._is_over():
            address = self._untried.popleft() if self._untried else self._addresses[next(turns) % len(self._addresses)]
            attempt = group.create_task(self._attempt(address))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._ended)
            await self._rest(address)

    async def _rest(self, address: SocketAddress) -> None:
        """Until the next attempt may start: a refusal brings an untried address forward, as does a new one."""
        waiting = len(self._untried)

        def is_over() -> bool:
            return self._is_over() or len(self._untried) > waiting or (waiting > 0 and address in self._heard)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STAGGER if waiting else self._pause()):
                while not is_over():
                    await self._next_news()
        while len(self._attempts) >= MOST and not self._is_over():
            await self._next_news()

    async def _attempt(self, address: SocketAddress) -> None:
        with contextlib.ExitStack() as closing:
            try:
                plain = closing.enter_context(socket.socket(address.family, socket.SOCK_STREAM))
                plain.setblocking(False)
                if self._local:
                    plain.bind(self._own(address.family))
                async with asyncio.timeout(LIFE):
                    await asyncio.get_running_loop().sock_connect(plain, address.where)
            except OSError as error:  # TimeoutError is one
                self._heard[address] = error
                return
            if self._winner is None:
                closing.pop_all()
                self._winner = plain

    def _own(self, family: int) -> Any:
        if family not in self._local:
            raise OSError(errno.EADDRNOTAVAIL, "the address to come from is of another family")
        return self._local[family]

    def _pause(self) -> float:
        """Until the next turn: somewhat less than its share of the interval, so that a fleet does not keep step."""
        return max(STAGGER, self._interval / len(self._addresses)) * (0.75 + 0.25 * self._chance())

    def _is_over(self) -> bool:
        return self._winner is not None or self._verdict() is not None

    def _verdict(self) -> OSError | None:
        return verdict([self._heard.get(address) for address in self._addresses])

    def _ended(self, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._news.set()

    async def _next_news(self) -> None:
        self._news.clear()
        await self._news.wait()


def interleaved(addresses: Iterable[SocketAddress]) -> list[SocketAddress]:
    """Each address once, the families in turn, each in the order in which the system prefers them."""
    families: dict[int, list[SocketAddress]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address.family, []).append(address)
    rows = itertools.zip_longest(*families.values())
    return [address for row in rows for address in row if address is not None]


def verdict(heard: Sequence[OSError | None]) -> OSError | None:
    """Why to stop trying, given each address's last word: the plainest. None while one was not heard of yet.

    A refusal is plainest. Silence is next, and no reason to stop: it may pass. An error of this machine (no route, no
    permission) counts where there is nothing else.
    """
    words = [word for word in heard if word is not None]
    if len(words) < len(heard) or not words:
        return None
    plainest = min(words, key=_plainness)
    return None if isinstance(plainest, TimeoutError) else plainest


def _plainness(word: OSError) -> int:
    if isinstance(word, ConnectionRefusedError):
        return 0
    if isinstance(word, TimeoutError):
        return 1
    return 3 if word.errno in NO_WAY else 2


async def _answer(
    asking: asyncio.Future[tuple[SocketAddress, ...]], known: tuple[SocketAddress, ...]
) -> tuple[SocketAddress, ...]:
    """What is found out, or what is known when that takes long. Raises OSError: there is no such name."""
    try:
        async with asyncio.timeout(PATIENCE if known else None):
            return await asyncio.shield(asking)
    except TimeoutError:
        return known
    except OSError as error:
        if known and is_no_answer(error):
            return known
        raise
