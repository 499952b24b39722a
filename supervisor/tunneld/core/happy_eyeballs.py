"""Happy Eyeballs (RFC 8305): which of a name's addresses to try, and when.

A name often has IPv6 and IPv4 addresses, and one of the families may lead nowhere from where we are. So the families
take turns (section 4), and the next attempt starts 250 ms after the one before it, which goes on meanwhile (section 5).
The first attempt that connects wins.

This module holds the rule alone: it neither connects nor waits, and time is an argument. Its caller does so:

    while no attempt has connected:
        if (address := schedule.start(now)) is not None:
            begin to connect to it
        else:
            wait until schedule.deadline(), or until an attempt ends; report an attempt that failed to schedule.failed()
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any, NamedTuple

ATTEMPT_DELAY = 0.25
"""Seconds between the starts of two attempts: what RFC 8305, section 8, recommends as Connection Attempt Delay."""


class SocketAddress(NamedTuple):
    """Where to connect to, as a resolver answers."""

    family: int  # socket.AF_INET or socket.AF_INET6
    where: tuple[Any, ...]  # as socket.connect takes it


def interleaved(addresses: Iterable[SocketAddress]) -> list[SocketAddress]:
    """Each address once, the families in turn, beginning with the family of the first address.

    The order within a family stays: it is the resolver's preference (RFC 6724). This is what RFC 8305, section 4,
    describes with a First Address Family Count of 1.
    """
    families: dict[int, list[SocketAddress]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address.family, []).append(address)
    return [address for row in zip_longest(*families.values()) for address in row if address is not None]


class AttemptSchedule:
    """The attempts at one name's addresses. All times are seconds of one clock that never goes back."""

    def __init__(
        self, addresses: Iterable[SocketAddress], *, retry_delay: Callable[[int], float] | None = None
    ) -> None:
        """
        Args:
            addresses: in the resolver's order.
            retry_delay: takes the number of addresses, and gives the seconds from each attempt to the next once every
                address has been tried. RFC 8305 knows no second attempt; without `retry_delay` there is none.
        """
        self.addresses: list[SocketAddress] = []
        self._untried: deque[SocketAddress] = deque()
        self._retry_delay = retry_delay
        self._retries = 0
        self._latest: SocketAddress | None = None
        self._due = math.inf
        self.add(addresses)

    def add(self, addresses: Iterable[SocketAddress]) -> None:
        """Take in what else the name means (section 3: answers may arrive late); the first new address is due at once.

        Addresses that are known already change nothing.
        """
        new = [address for address in interleaved(addresses) if address not in self.addresses]
        self.addresses += new
        self._untried += new
        if new:
            self._due = -math.inf

    def deadline(self) -> float:
        """When the next attempt is due; minus infinity for at once, infinity for never."""
        return self._due

    def start(self, now: float) -> SocketAddress | None:
        """The address to try now, which counts as tried from here on; None while no attempt is due."""
        if now < self._due:
            return None
        if self._untried:
            self._latest = self._untried.popleft()
        else:
            self._latest = self.addresses[self._retries % len(self.addresses)]
            self._retries += 1
        self._due = now + self._delay()
        return self._latest

    def failed(self, address: SocketAddress) -> None:
        """An attempt at `address` has failed. After the latest attempt an untried address need not wait any longer."""
        if self._untried and address == self._latest:
            self._due = -math.inf

    def _delay(self) -> float:
        if self._untried:
            return ATTEMPT_DELAY
        return math.inf if self._retry_delay is None else self._retry_delay(len(self.addresses))
