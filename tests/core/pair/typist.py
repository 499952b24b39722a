"""A person who types at the client while the far side echoes, over a simulated Internet."""

from __future__ import annotations

import random
from functools import partial

from tests.core.pair.internet import Internet, Nat, home, office
from tests.core.stream.simulated import Line
from tunneld.core.pair.pair import Deliver, Event

EVERY = 0.13  # seconds between two keys
ROUND_TRIP = 0.085  # seconds, with what the far side takes


class Typist:
    """Types at the client from now on. mosh would send again what got lost.

    The far side echoes each key; with two `echoes` again, as mosh-server does to say which keys the echo is about.
    """

    def __init__(self, net: Internet, seconds: float, *, echoes: int = 1) -> None:
        self.net = net
        self.echoes = echoes
        self.typed: dict[int, float] = {}
        self._happens = net.far.happens
        net.far.happens = self._echoes  # type: ignore[method-assign]
        for number in range(int(seconds / EVERY)):
            net.after(number * EVERY, partial(self._types, number))

    def _types(self, number: int) -> None:
        self.typed[number] = self.net.now
        self.net.sends(self.net.client, number.to_bytes(4, "big") + bytes(60))

    def _echoes(self, events: list[Event]) -> None:
        self._happens(events)
        for event in events:
            if isinstance(event, Deliver):
                for nth in range(self.echoes):
                    echo = event.datagram + bytes(20 + nth)
                    self.net.after(0.005 + 0.05 * nth, partial(self.net.sends, self.net.far, echo))

    @property
    def ages(self) -> list[float]:
        """Seconds from each key to the first of its echoes that came; keys without an echo are missing."""
        came: dict[int, float] = {}
        for when, datagram in self.net.client.got:
            came.setdefault(int.from_bytes(datagram[:4], "big"), when)
        return sorted(when - self.typed[number] for number, when in came.items())

    @property
    def lost(self) -> int:
        return len(self.typed) - len(self.ages)


def between(client: Nat | None, far: Nat | None, *, loss: float = 0.0, has_relay: bool = False) -> Internet:
    """An SSH connection and UDP, both with a round trip of 80 ms."""
    net = Internet(home(client), office(far), has_relay=has_relay)
    for weather in net.weather.values():
        weather.loss = loss
    chance = random.Random(5)
    net.connects(up=Line(delay=0.04, loss=loss, chance=chance), down=Line(delay=0.04, loss=loss, chance=chance))
    return net
