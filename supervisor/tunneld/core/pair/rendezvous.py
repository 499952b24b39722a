"""Where two ends may meet: what we offer, what the peer offers, what STUN servers see, and when to try again."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2s
from math import inf
from typing import Any, NamedTuple

from tunneld.core.pair import offer, stun
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.offer import Offer
from tunneld.core.stream.flow import Rate
from tunneld.core.stream.frame import Frame

ROUND_PAUSES = (5.0, 10.0, 15.0, 30.0)
"""Seconds from one round to the next while no direct path answers; the last pause repeats. In a round both ends try
within a one-way delay of each other: a NAT that forgot everything opens again, and UDP that comes back is found."""

CALM_ROUND_PAUSE = 300.0
"""Seconds between two rounds while a direct path may be used: a shorter one may have appeared."""

QUESTION_TIMES = (0.0, 0.2, 0.6, 1.4, 3.0)
"""Seconds from the start of a round at which a silent STUN server is asked: the doubling pauses of RFC 8489, section
6.2.1, but shorter and fewer."""

MAX_SERVERS = 4
"""STUN servers that are asked; more are ignored."""

MAX_HOSTS = 8
"""Addresses that SSH shows for the peer."""


class _StunQuestion(NamedTuple):
    """A question to a STUN server, repeated with the same transaction until the server answers."""

    local: str
    server: UdpAddress
    transaction: bytes
    began: float


class Rendezvous:
    """`key`: at most 32 secret bytes. STUN transactions are made of them, so that nobody can guess one."""

    def __init__(self, key: bytes, now: float) -> None:
        self._key = key
        self._sockets: dict[str, tuple[int, int]] = {}  # family, port
        self._mine: tuple[Candidate, ...] = ()
        self._seen_by_servers: dict[tuple[str, UdpAddress], UdpAddress] = {}  # by our socket and the server
        self._last_content: tuple[tuple[Candidate, ...], dict[int, int]] | None = None
        self._round = 0
        self._theirs = Offer(0, {}, ())
        self._hosts: tuple[str, ...] = ()
        self._servers: tuple[UdpAddress, ...] = ()
        self._asking: dict[tuple[str, UdpAddress], tuple[_StunQuestion, int]] = {}  # with how often it was sent
        self._asked = 0
        self._takes = Rate(1, 8)
        self._rounds_without = 0
        self._last_round = now

    # Ours

    def open(self, local: str, family: int, port: int, now: float) -> None:
        """A UDP socket of `family` (4 or 6) is bound to `port`: ask the STUN servers from it, too."""
        self._sockets[local] = family, port
        self._ask(now)

    def shut(self, local: str) -> None:
        """The socket is gone, and what STUN servers saw of it."""
        self._sockets.pop(local, None)
        self._seen_by_servers = {key: seen for key, seen in self._seen_by_servers.items() if key[0] != local}
        self._asking = {key: asking for key, asking in self._asking.items() if key[0] != local}

    def offer(self, candidates: Iterable[Candidate]) -> None:
        """Replace this machine's own candidates."""
        self._mine = offer.distinct(candidates)

    def changed_offer(self) -> Frame | None:
        """The offer to send if it says something that the peer does not know yet; None otherwise."""
        return self.next_offer() if self._content() != self._last_content else None

    def next_offer(self) -> Frame | None:
        """The offer to send so that the peer begins a round now; None before there is a socket."""
        if not self._sockets:
            return None
        self._round += 1
        self._last_content = candidates, ports = self._content()
        return Offer(self._round, ports, candidates).encode()

    def _content(self) -> tuple[tuple[Candidate, ...], dict[int, int]]:
        reflexive = [Candidate("reflexive", seen) for seen in self._seen_by_servers.values()]
        known = {candidate.address for candidate in self._mine}
        fresh = [candidate for candidate in reflexive if candidate.address not in known]
        ports = dict(reversed(self._sockets.values()))  # of two sockets of a family the first counts
        return offer.distinct([*fresh, *self._mine]), ports

    # The peer's

    def sees_peer(self, hosts: Iterable[str]) -> None:
        """SSH shows these addresses for the peer. Loopback is left out: a session through a tunnel shows it."""
        self._hosts = tuple(dict.fromkeys(filter(None, map(offer.reachable, hosts))))[:MAX_HOSTS]

    def take_offer(self, body: dict[str, Any], now: float) -> bool:
        """An offer of the peer's came; False: it makes no sense, says nothing new, or offers come too fast."""
        theirs = offer.read(body)
        if theirs is None or theirs.round <= self._theirs.round or not self._takes.allows(now):
            return False
        self._theirs = theirs
        self._last_round = now
        return True

    def candidates(self) -> tuple[Candidate, ...]:
        """Where the peer may be: what it offered, and its ports at the addresses that SSH shows."""
        visible = [UdpAddress(host, self._theirs.ports.get(UdpAddress(host, 0).family, 0)) for host in self._hosts]
        return (*self._theirs.candidates, *(Candidate("visible", address) for address in visible if address.port))

    # STUN

    def use_servers(self, servers: Iterable[UdpAddress], now: float) -> None:
        """Ask these STUN servers from now on; what others saw is forgotten."""
        self._servers = tuple(dict.fromkeys(servers))[:MAX_SERVERS]
        self._seen_by_servers = {key: seen for key, seen in self._seen_by_servers.items() if key[1] in self._servers}
        self._ask(now)

    def _ask(self, now: float) -> None:
        """Begin to ask all servers anew, from each socket of their family."""
        self._asking = {}
        for server in self._servers:
            for local, (family, _) in self._sockets.items():
                if family == server.family:
                    self._asked += 1
                    chance = blake2s(self._asked.to_bytes(8, "big"), key=self._key, digest_size=stun.TRANSACTION_SIZE)
                    self._asking[local, server] = _StunQuestion(local, server, chance.digest(), now), 0

    def take_questions(self, now: float) -> list[tuple[str, UdpAddress, bytes]]:
        """What to send to STUN servers now: from which socket, to which server, which bytes. Each is given once."""
        due = [(key, asking, step) for key, (asking, step) in self._asking.items() if _when(asking, step) <= now]
        for key, asking, step in due:
            self._asking[key] = asking, step + 1
        return [(asking.local, asking.server, stun.request(asking.transaction)) for _, asking, _ in due]

    def take_stun_answer(self, local: str, remote: UdpAddress, data: bytes) -> bool:
        """A STUN message came in; False when it answers no question of ours."""
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
        """When a question to a STUN server, or the next round, is due. `has_direct`: a direct path may be used."""
        questions = (_when(asking, step) for asking, step in self._asking.values())
        return min([self._next_round(has_direct), *questions])

    def begin_due_round(self, now: float, *, has_direct: bool) -> bool:
        """Begin the next round if it is due; True: it begins, so offer again and try everything again."""
        self._rounds_without = 0 if has_direct else self._rounds_without
        if now < self._next_round(has_direct):
            return False
        self.begin_round(now)
        self._rounds_without += 1
        return True

    def begin_round(self, now: float) -> None:
        """A round begins, for whatever reason."""
        self._last_round = now
        self._ask(now)

    def hurry(self, now: float) -> None:
        """The network changed, or the path died: begin a round, and the next ones after short pauses again."""
        self._rounds_without = 0
        self.begin_round(now)

    def _next_round(self, has_direct: bool) -> float:
        if has_direct:
            return self._last_round + CALM_ROUND_PAUSE
        return self._last_round + ROUND_PAUSES[min(self._rounds_without, len(ROUND_PAUSES) - 1)]


def _when(asking: _StunQuestion, step: int) -> float:
    return asking.began + QUESTION_TIMES[step] if step < len(QUESTION_TIMES) else inf
