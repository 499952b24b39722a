"""The TCP connection under an SSH connection: every address of a name gets its turn, and silence is never waited out.

The first attempts follow core/happy_eyeballs.py: the families take turns, a quarter of a second apart. While no address
answers, we try each again and again. The kernel repeats a lost SYN only after 1, 3, 7 and 15 s, so a single attempt
would sleep through the return of a link for seconds; and a NAT or a firewall that still remembers the old flow may drop
every repetition of the same SYN.

The first attempt that connects wins, and we close the others at once. A socket that is closed before it is connected
leaves no trace in sshd, whose PerSourcePenalties count every connection that does not log in.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from tunneld.core.happy_eyeballs import ATTEMPT_DELAY, AttemptSchedule, SocketAddress
from tunneld.ssh.connect.quickack import QuickAck
from tunneld.ssh.connect.resolver import NameCache, Question, is_no_answer

ATTEMPT_TIMEOUT = 4.0  # seconds that an attempt may take: the kernel has sent its SYN three times by then
MOST_ATTEMPTS = 8  # attempts under way at the same time

# Seconds until the same address is tried again. An outage that has lasted minutes may last minutes more: a SYN each
# second would be rude then, and nobody minds when the return is noticed a 60th of the outage later.
SHORTEST_RETRY, LONGEST_RETRY = 1.0, 15.0
RETRY_PER_OUTAGE = 1 / 60

# Seconds to wait for a name server when an earlier answer is known. A near name server takes a tenth of that.
NAME_SERVER_TIMEOUT = 0.3

# Errors with which this machine ends an attempt before it asks the address anything: the words of any other address
# say more.
LOCAL_ERRORS = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

NAMES = NameCache()
"""What this process knows of names: shared, since every dial of a tunnel begins anew."""


class DirectTunnel:
    """Connects without a jump host, in the shape in which asyncssh takes a `tunnel`. Its caller bounds the time."""

    def __init__(
        self,
        *,
        family: int = 0,
        local: tuple[str, int] | None = None,
        outage: float = 0.0,
        chance: Callable[[], float] | None = None,
    ) -> None:
        """
        Args:
            family: AddressFamily of ssh_config; 0 for any.
            local: BindAddress of ssh_config and the port to connect from, 0 for any; None for any address.
            outage: seconds for which the relay has been out of reach. The longer, the slower it is asked.
            chance: random numbers from 0 to 1.
        """
        self._family = family
        self._local = local
        self._chance = chance or Random().random
        self.interval = min(max(outage * RETRY_PER_OUTAGE, SHORTEST_RETRY), LONGEST_RETRY)
        """Seconds until the same address is tried again."""

    async def create_connection(
        self, session_factory: Callable[[], Any], remote_host: str, remote_port: int
    ) -> tuple[asyncio.Transport, Any]:
        """Connect to the first address of the host that answers.

        Raises:
            OSError: the plainest of the addresses' errors, or the resolver's.
        """
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
        return Race(addresses, local=local, interval=self.interval, chance=self._chance)


class Race:
    """Attempts at the addresses of one name, until one of them connects. Runs once."""

    def __init__(
        self,
        addresses: Iterable[SocketAddress],
        *,
        local: Iterable[SocketAddress] = (),
        interval: float,
        chance: Callable[[], float],
    ) -> None:
        """
        Args:
            addresses: where the name leads, in the resolver's order.
            local: the address to connect from, at most one of each family; empty for any.
            interval: seconds until the same address is tried again.
            chance: random numbers from 0 to 1.
        """
        self._schedule = AttemptSchedule(addresses, retry_delay=self._retry_delay)
        self._local: dict[int, Any] = {address.family: address.where for address in reversed(tuple(local))}
        self._interval = interval
        self._chance = chance
        self._failures: dict[SocketAddress, OSError] = {}  # each address's last error; TimeoutError for silence
        self._attempts: set[asyncio.Task[None]] = set()
        self._winner: socket.socket | None = None
        self._news = asyncio.Event()

    async def won(self) -> socket.socket:
        """The connected socket.

        Raises:
            OSError: no address will connect; this is the plainest of their errors.
        """
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

    def learn(self, answer: asyncio.Future[tuple[SocketAddress, ...]]) -> None:
        """Try what else the name means too: the callback of a lookup that ends while the race runs."""
        if answer.cancelled() or answer.exception() is not None:
            return
        self._schedule.add(answer.result())
        self._news.set()

    async def _take_turns(self, group: asyncio.TaskGroup) -> None:
        now = asyncio.get_running_loop().time
        while self._schedule.addresses and not self._is_over():
            has_room = len(self._attempts) < MOST_ATTEMPTS
            address = self._schedule.start(now()) if has_room else None
            if address is None:
                await self._next_news(self._schedule.deadline() if has_room else None)
                continue
            attempt = group.create_task(self._attempt(address))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._ended)

    async def _attempt(self, address: SocketAddress) -> None:
        with contextlib.ExitStack() as closing:
            try:
                plain = closing.enter_context(socket.socket(address.family, socket.SOCK_STREAM))
                plain.setblocking(False)
                if self._local:
                    plain.bind(self._own(address.family))
                async with asyncio.timeout(ATTEMPT_TIMEOUT):
                    await asyncio.get_running_loop().sock_connect(plain, address.where)
            except OSError as error:  # TimeoutError is one
                self._failures[address] = error
                self._schedule.failed(address)
                return
            if self._winner is None:
                closing.pop_all()
                self._winner = plain

    def _own(self, family: int) -> Any:
        if family not in self._local:
            raise OSError(errno.EADDRNOTAVAIL, "the address to come from is of another family")
        return self._local[family]

    def _retry_delay(self, addresses: int) -> float:
        """Each address's share of the interval, somewhat shortened, so that a fleet does not keep step."""
        return max(ATTEMPT_DELAY, self._interval / addresses) * (0.75 + 0.25 * self._chance())

    def _is_over(self) -> bool:
        return self._winner is not None or self._verdict() is not None

    def _verdict(self) -> OSError | None:
        return verdict([self._failures.get(address) for address in self._schedule.addresses])

    def _ended(self, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._news.set()

    async def _next_news(self, deadline: float | None) -> None:
        """Until an attempt has ended or an address has come to light, or until the deadline."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._news.wait()


def verdict(errors: Sequence[OSError | None]) -> OSError | None:
    """Why to stop trying: the plainest of the errors. None: go on.

    A refusal is plainest. Silence is next, and no reason to stop, since it may pass. An error of this machine (no
    route, no permission) counts where there is nothing else.

    Args:
        errors: each address's last error, TimeoutError for silence; None while an address has not failed yet.
    """
    known = [error for error in errors if error is not None]
    if len(known) < len(errors) or not known:
        return None
    plainest = min(known, key=_plainness)
    return None if isinstance(plainest, TimeoutError) else plainest


def _plainness(error: OSError) -> int:
    """A rank; the lowest is plainest."""
    if isinstance(error, ConnectionRefusedError):
        return 0
    if isinstance(error, TimeoutError):
        return 1
    return 3 if error.errno in LOCAL_ERRORS else 2


async def _answer(
    asking: asyncio.Future[tuple[SocketAddress, ...]], known: tuple[SocketAddress, ...]
) -> tuple[SocketAddress, ...]:
    """The answer to a lookup, or `known` when the lookup takes long or fails for want of a name server.

    Raises:
        OSError: there is no such name, or nothing is known of it.
    """
    try:
        async with asyncio.timeout(NAME_SERVER_TIMEOUT if known else None):
            return await asyncio.shield(asking)
    except TimeoutError:
        return known
    except OSError as error:
        if known and is_no_answer(error):
            return known
        raise
