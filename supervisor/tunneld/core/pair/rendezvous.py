"""Where two ends may meet: what we offer, what the peer offers, what STUN servers see, and when to try again."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s
from math import inf
from typing import Any, NamedTuple

from tunneld.core.pair import offer, stun
from tunneld.core.pair.offer import Offer
from tunneld.core.pair.path import Candidate, UdpAddress
from tunneld.core.stream.flow import Rate
from tunneld.core.stream.frame import Frame

ROUNDS = (5.0, 10.0, 15.0, 30.0)
"""Seconds from one round of tries to the next while no direct path answers; the last one is repeated. Both ends try
within a one-way delay of each other then: a NAT that forgot everything opens, and UDP that comes back is found."""

CALM_ROUND = 300.0
"""Seconds between two rounds while a direct path is in use: a shorter one may have appeared."""

ASKED_AT = (0.0, 0.2, 0.6, 1.4, 3.0)
"""Seconds from the start of a round at which a silent STUN server is asked (as RFC 8489, 6.2.1, but shorter)."""

MAX_SERVERS = 4
MAX_HOSTS = 8
"""STUN servers, and addresses that SSH shows for the peer."""


class _Asking(NamedTuple):
    """A question to a STUN server, repeated with the same transaction until it answers."""

    local: str
    server: UdpAddress
    transaction: bytes
    began: float


class Rendezvous:
    """`key` makes the transactions of STUN unguessable."""

    def __init__(self, key: bytes, now: float) -> None:
        self._key = key
        self._sockets: dict[str, tuple[int, int]] = {}  # family, port
        self._mine: tuple[Candidate, ...] = ()
        self._seen_by_servers: dict[tuple[str, UdpAddress], UdpAddress] = {}
        self._said: tuple[tuple[Candidate, ...], dict[int, int]] | None = None
        self._round = 0
        self._theirs = Offer(0, {}, ())
        self._hosts: tuple[str, ...] = ()
        self._servers: tuple[UdpAddress, ...] = ()
        self._asking: dict[tuple[str, UdpAddress], tuple[_Asking, int]] = {}
        self._asked = 0
        self._takes = Rate(1, 8)
        self._rounds_without = 0
        self._last_round = now

    # Ours

    def open(self, local: str, family: int, port: int, now: float) -> None:
        self._sockets[local] = family, port
        self._ask(now)

    def shut(self, local: str) -> None:
        self._sockets.pop(local, None)
        self._seen_by_servers = {key: seen for key, seen in self._seen_by_servers.items() if key[0] != local}
        self._asking = {key: asking for key, asking in self._asking.items() if key[0] != local}

    def offer(self, candidates: Iterable[Candidate]) -> None:
        self._mine = offer.sensible(candidates)

    def news(self) -> Frame | None:
        """An offer to send, if there is anything that the peer does not know."""
        return self.again() if self._what() != self._said else None

    def again(self) -> Frame | None:
        """The offer to send so that the peer tries now; None before there is anything to offer."""
        if not self._sockets:
            return None
        self._round += 1
        self._said = candidates, ports = self._what()
        return Offer(self._round, ports, candidates).encode()

    def _what(self) -> tuple[tuple[Candidate, ...], dict[int, int]]:
        reflexive = [Candidate("reflexive", seen) for seen in self._seen_by_servers.values()]
        known = {candidate.address for candidate in self._mine}
        fresh = [candidate for candidate in reflexive if candidate.address not in known]
        ports = dict(reversed(self._sockets.values()))
        return offer.sensible([*fresh, *self._mine]), ports

    # The peer's

    def sees_peer(self, hosts: Iterable[str]) -> None:
        """What is no address of another machine is left out: through a tunnel, SSH shows loopback."""
        self._hosts = tuple(dict.fromkeys(filter(None, map(offer.reachable, hosts))))[:MAX_HOSTS]

    def take(self, body: dict[str, Any], now: float) -> bool:
        """An offer of the peer's came; False: it makes no sense, says nothing new, or they come too fast."""
        theirs = offer.read(body)
        if theirs is None or theirs.round <= self._theirs.round or not self._takes.allows(now):
            return False
        self._theirs = theirs
        self._last_round = now
        return True

    def candidates(self) -> tuple[Candidate, ...]:
        """Where the peer may be."""
        visible = [UdpAddress(host, self._theirs.ports.get(UdpAddress(host, 0).family, 0)) for host in self._hosts]
        return (*self._theirs.candidates, *(Candidate("visible", address) for address in visible if address.port))

    # STUN

    def asks(self, servers: Iterable[UdpAddress], now: float) -> None:
        self._servers = tuple(dict.fromkeys(servers))[:MAX_SERVERS]
        self._seen_by_servers = {key: seen for key, seen in self._seen_by_servers.items() if key[1] in self._servers}
        self._ask(now)

    def _ask(self, now: float) -> None:
        self._asking = {}
        for server in self._servers:
            for local, (family, _) in self._sockets.items():
                if family == server.family:
                    self._asked += 1
                    chance = blake2s(self._asked.to_bytes(8, "big"), key=self._key, digest_size=stun.TRANSACTION)
                    self._asking[local, server] = _Asking(local, server, chance.digest(), now), 0

    def questions(self, now: float) -> list[tuple[str, UdpAddress, bytes]]:
        """What to send to STUN servers now: from which socket, where, what."""
        due = [(key, asking, step) for key, (asking, step) in self._asking.items() if _when(asking, step) <= now]
        for key, asking, step in due:
            self._asking[key] = asking, step + 1
        return [(asking.local, asking.server, stun.request(asking.transaction)) for _, asking, _ in due]

    def answered(self, local: str, remote: UdpAddress, data: bytes) -> bool:
        """Something like STUN came; False when nobody asked for it."""
        asking = self._asking.get((local, remote))
        response = stun.read_response(data)
        if asking is None or response is None or response[0] != asking[0].transaction:
            return False
        del self._asking[local, remote]
        if offer.reachable(response[1].host) and response[1].port:
            self._seen_by_servers[local, remote] = response[1]
        return True

    # Time

    def due(self, *, has_direct: bool) -> float:
        """When a question, or the next round, is due."""
        questions = (_when(asking, step) for asking, step in self._asking.values())
        return min([self._next_round(has_direct), *questions])

    def is_time(self, now: float, *, has_direct: bool) -> bool:
        """A new round begins now: offer again, try everything again."""
        self._rounds_without = 0 if has_direct else self._rounds_without
        if now < self._next_round(has_direct):
            return False
        self.begin(now)
        self._rounds_without += 1
        return True

    def begin(self, now: float) -> None:
        """A round begins, for whatever reason."""
        self._last_round = now
        self._ask(now)

    def hurry(self, now: float) -> None:
        """The network changed: rounds follow each other quickly again."""
        self._rounds_without = 0
        self.begin(now)

    def _next_round(self, has_direct: bool) -> float:
        return self._last_round + (CALM_ROUND if has_direct else ROUNDS[min(self._rounds_without, len(ROUNDS) - 1)])


def _when(asking: _Asking, step: int) -> float:
    return asking.began + ASKED_AT[step] if step < len(ASKED_AT) else inf
