"""Watches where a relay's name leads, and notices when it has left the address that a session is connected to.

A session never asks for the name again. So a relay that moved (a dynamic address at home, a new machine) would be
noticed only when its old address stops answering, if ever.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from ipaddress import ip_address
from typing import Final

from structlog.typing import FilteringBoundLogger

# Seconds between two questions for the name; most dynamic names may be cached for 60 s.
ASK_EVERY: Final = 30.0

# When our address is missing from an answer, the name is asked for again so many times, so many seconds apart: one
# name server of several may be behind the others.
CONFIRMATIONS: Final = 3
CONFIRM_EVERY: Final = 1.0

# Seconds. A name server that is silent for longer is down. The thread that asks it ends later, by the resolver's own
# limit.
RESOLVER_TIMEOUT: Final = 10.0

# Addresses taken from one answer.
ADDRESSES_PER_ANSWER: Final = 64

# So many of the addresses that the name has left are remembered. A round robin comes back to one of them within a few
# moves; a home's dynamic address comes back after years.
MOST_LEFT: Final = 8


async def resolve(host: str) -> frozenset[str]:
    """The addresses, IPv4 and IPv6, that a name leads to; empty where no server answers, or none knows the name."""
    try:
        async with asyncio.timeout(RESOLVER_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # TimeoutError is an OSError; a label too long for IDNA raises UnicodeError
        return frozenset()
    return frozenset(comparable(str(address[0])) for *_, address in found[:ADDRESSES_PER_ANSWER])


def comparable(address: str) -> str:
    """An address in the one form in which two can be compared: without a zone, and IPv4 not inside IPv6.

    Raises:
        ValueError: the text is no address.
    """
    found = ip_address(address.partition("%")[0])
    return str((found.version == 6 and found.ipv4_mapped) or found)


class NameVerdict(Enum):
    """What an answer means for the address that a session is connected to."""

    STAYS = "stays"
    ASK_AGAIN = "ask again"  # our address is missing; one such answer proves nothing
    MOVED = "moved"
    ROTATES = "rotates"  # a round robin: its answers never say anything about our address


class Whereabouts:
    """What the answers for one name mean, learnt over the daemon's life."""

    def __init__(self) -> None:
        self._left: deque[str] = deque(maxlen=MOST_LEFT)
        self._missing = 0  # answers in a row without our address
        self.rotates = False

    def heard(self, connected: str, answers: frozenset[str]) -> NameVerdict:
        """Judge the addresses of an answer. `connected` is the session's; it gets the verdict MOVED only once."""
        if self.rotates or answers.intersection(self._left):
            self.rotates = True
            return NameVerdict.ROTATES
        # An empty answer proves nothing, nor does an answer without our family: name servers fail for one at a time.
        family = {address for address in answers if (":" in address) == (":" in connected)}
        if connected in answers or connected in self._left or not family:
            self._missing = 0
            return NameVerdict.STAYS
        self._missing += 1
        if self._missing <= CONFIRMATIONS:
            return NameVerdict.ASK_AGAIN
        self._missing = 0
        self._left.append(connected)
        return NameVerdict.MOVED


class NameWatch:
    """Watches one relay's name. It outlives the sessions, so that it learns only once that a name rotates."""

    def __init__(
        self,
        host: str,
        *,
        log: FilteringBoundLogger,
        ask: Callable[[str], Awaitable[frozenset[str]]] = resolve,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._host = host
        self._log = log
        self._ask = ask
        self._sleep = sleep
        self._whereabouts = Whereabouts()

    async def moved(self, connected: str) -> frozenset[str]:
        """Wait until the name has left the address that a session is connected to; return where the name leads now.

        It returns this only once for each address. The answer is empty where it can never be known: the name rotates or
        is an address itself, or the session goes through a program (`connected` is empty then). Cancel it with the
        session.
        """
        watched = _is_address(connected) and not _is_address(self._host)
        while watched and not self._whereabouts.rotates:
            await self._sleep(ASK_EVERY)
            verdict, answers = await self._verdict(comparable(connected))
            if verdict is NameVerdict.MOVED:
                now = ", ".join(sorted(answers))
                self._log.info("relay_moved", name=self._host, left=comparable(connected), now=now)
                return answers
            if verdict is NameVerdict.ROTATES:
                self._log.info("relay_name_rotates", name=self._host)
        return frozenset()

    async def _verdict(self, connected: str) -> tuple[NameVerdict, frozenset[str]]:
        """Ask for the name, and again until the answers prove something."""
        answers = await self._ask(self._host)
        while (verdict := self._whereabouts.heard(connected, answers)) is NameVerdict.ASK_AGAIN:
            await self._sleep(CONFIRM_EVERY)
            answers = await self._ask(self._host)
        return verdict, answers


def _is_address(text: str) -> bool:
    try:
        comparable(text)
    except ValueError:
        return False
    return True
