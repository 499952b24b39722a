"""Where a relay's name leads, and that it leads elsewhere by now.

A connection that is up never asks for the name again, so a relay that moved (a dynamic address at home, a new machine)
would be noticed only when the old address stops answering, if ever.
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

# Seconds between two questions; most dynamic names live for 60 s.
POLL: Final = 30.0

# An answer without our address is asked for again so often, so many seconds apart: a name server of several may be
# behind the others.
CONFIRMATIONS: Final = 3
AGAIN: Final = 1.0

# Seconds. A name server that is silent for longer is down; its thread ends later, by the resolver's own limit.
PATIENCE: Final = 10.0

# Addresses taken from one answer.
MOST: Final = 64

# Addresses that were left, and remembered. A round robin comes back to one of them within a few moves; a home's dynamic
# address comes back after years.
MOST_LEFT: Final = 8


async def addresses(host: str) -> frozenset[str]:
    """Where a name leads, IPv4 and IPv6; empty where nobody answers, or nobody knows it."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # TimeoutError is an OSError; a label too long for IDNA is the other
        return frozenset()
    return frozenset(plain(str(address[0])) for *_, address in found[:MOST])


def plain(address: str) -> str:
    """An address in the one form in which it can be compared: no zone, no IPv4 inside IPv6. Raises ValueError."""
    found = ip_address(address.partition("%")[0])
    return str((found.version == 6 and found.ipv4_mapped) or found)


class NameVerdict(Enum):
    STAYS = "stays"
    ASK_AGAIN = "ask again"  # our address is missing; once is no proof
    MOVED = "moved"
    ROTATES = "rotates"  # a round robin: its answers say nothing about ours, and never will


class Whereabouts:
    """What the answers for one name mean for a connection, over the daemon's life."""

    def __init__(self) -> None:
        self._left: deque[str] = deque(maxlen=MOST_LEFT)
        self._missing = 0
        self.rotates = False

    def heard(self, connected: str, answers: frozenset[str]) -> NameVerdict:
        """`connected` is the address that our connection leads to. MOVED is said once for each."""
        if self.rotates or answers.intersection(self._left):
            self.rotates = True
            return NameVerdict.ROTATES
        # No answer is no news, nor is one without our family: name servers fail for one of them at a time.
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
    """Watches one relay's name. It outlives the sessions: whether a name rotates is learnt but once."""

    def __init__(
        self,
        host: str,
        *,
        log: FilteringBoundLogger,
        ask: Callable[[str], Awaitable[frozenset[str]]] = addresses,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._host = host
        self._log = log
        self._ask = ask
        self._sleep = sleep
        self._known = Whereabouts()

    async def moved(self, connected: str) -> frozenset[str]:
        """Wait until the name has left the address that a connection leads to, and return where the name leads now.

        For one address it says so once. The answer is empty where this can never be known: for a name that rotates or
        is an address itself, and for a connection through a program, which leads to no address. Cancel it with the
        session.
        """
        watched = _is_address(connected) and not _is_address(self._host)
        while watched and not self._known.rotates:
            await self._sleep(POLL)
            verdict, answers = await self._verdict(plain(connected))
            if verdict is NameVerdict.MOVED:
                self._log.info("relay_moved", name=self._host, left=plain(connected), now=", ".join(sorted(answers)))
                return answers
            if verdict is NameVerdict.ROTATES:
                self._log.info("relay_name_rotates", name=self._host)
        return frozenset()

    async def _verdict(self, connected: str) -> tuple[NameVerdict, frozenset[str]]:
        """Ask, and again where one answer is no proof."""
        answers = await self._ask(self._host)
        while (verdict := self._known.heard(connected, answers)) is NameVerdict.ASK_AGAIN:
            await self._sleep(AGAIN)
            answers = await self._ask(self._host)
        return verdict, answers


def _is_address(text: str) -> bool:
    try:
        plain(text)
    except ValueError:
        return False
    return True
