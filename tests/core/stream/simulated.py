"""An ingress and an outlet in conversation over simulated streams, on a clock of their own."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.endpoint import DeliverOnFlow, Endpoint, EndpointEvent, FlowEnded, Ingress, Outlet

PORT = 60001
PORTS = range(60001, 60011)
START = 1000.0
MOSH = bytes(40)  # what a mosh-client could have sent


@dataclass
class Line:
    """One direction of one SSH connection: a byte stream with an endless buffer.

    `delay` is one way, in seconds; `rate` in bytes a second; a segment is lost with probability `loss` and is sent
    again, and everything behind it waits for that; nothing arrives during `stalls`, pairs of times.
    """

    delay: float = 0.05
    rate: float = 1e9
    loss: float = 0.0
    stalls: Iterable[tuple[float, float]] = ()
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    _free: float = 0.0
    _last: float = 0.0

    def arrival(self, size: int, now: float) -> float:
        """When `size` bytes that are written now arrive."""
        self._free = max(self._free, now) + size / self.rate
        arrival = self._free + self.delay
        retransmission = 3 * self.delay  # a round trip and a half: three duplicate acknowledgements, or a probe
        while self.chance.random() < self.loss:
            arrival += retransmission
            retransmission *= 2
        for begin, end in self.stalls:
            if begin <= arrival < end:
                arrival = end
        self._last = max(self._last, arrival)
        return self._last


@dataclass
class Conversation:
    """Both endpoints and the lines between them. What they deliver is in `out` (at the outlet) and `back`."""

    lines: dict[str, tuple[Line, Line]] = field(default_factory=lambda: {"control": (Line(), Line())})
    piece: int = 1 << 20  # bytes that one read gives at most
    ingress: Ingress = field(default_factory=Ingress)
    outlet: Outlet = field(default_factory=lambda: Outlet(PORTS))
    now: float = START
    out: list[tuple[float, int, bytes]] = field(default_factory=list)  # when, flow, datagram
    back: list[tuple[float, object, bytes]] = field(default_factory=list)  # when, peer, datagram
    ended: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._sides: dict[str, Endpoint] = {"ingress": self.ingress, "outlet": self.outlet}
        for name in self.lines:
            for side in self._sides.values():
                side.attach(StreamCarrier(name, self.now, dedicated=name != "control"))
        self._write()

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), act))

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, act = heapq.heappop(self._due)
            act()
            self._write()
        self.now = until

    def client_sends(self, datagram: bytes, peer: object = "client", port: int = PORT) -> None:
        self.happened(self.ingress.arrive(port, peer, datagram, self.now, source=peer))
        self._write()

    def server_sends(self, flow: int, datagram: bytes) -> None:
        found = self.outlet.flows.get(flow)
        if found:
            self.outlet.answer(found, datagram, self.now)
            self._write()

    def sides(self) -> Iterable[tuple[Endpoint, StreamCarrier]]:
        return [(side, carrier) for side in self._sides.values() for carrier in side.carriers.values()]

    def happened(self, events: list[EndpointEvent]) -> None:
        for event in events:
            if isinstance(event, FlowEnded):
                self.ended.append(event.flow.number)
            elif isinstance(event, DeliverOnFlow) and event.flow.peer is None:
                self.out.append((self.now, event.flow.number, event.datagram))
            elif isinstance(event, DeliverOnFlow):
                self.back.append((self.now, event.flow.peer, event.datagram))

    def _write(self) -> None:
        for name, lines in self.lines.items():
            for line, source, sink in zip(lines, ("ingress", "outlet"), ("outlet", "ingress"), strict=True):
                data = self._sides[source].outgoing(name, self.now)
                if data:
                    arrival = line.arrival(len(data), self.now)
                    self.at(arrival, partial(self._arrive, self._sides[sink], name, data))

    def _arrive(self, side: Endpoint, name: str, data: bytes) -> None:
        for at in range(0, len(data), self.piece):
            self.happened(side.receive(name, data[at : at + self.piece], self.now))


def numbered(count: int, size: int = 100) -> Iterable[bytes]:
    """Datagrams as a mosh-client sends them, each with its number in it."""
    return (number.to_bytes(8, "big").ljust(size, b".") for number in range(count))


def number_of(datagram: bytes) -> int:
    return int.from_bytes(datagram[:8], "big") & ~(1 << 63)


def freshness(sent: dict[int, float], arrived: list[tuple[float, int]]) -> list[float]:
    """For each datagram the seconds until it, or a newer one, was there; `sent` and `arrived` by number."""
    waiting = deque(sorted(sent))
    ages = []
    for when, number in sorted(arrived):
        while waiting and waiting[0] <= number:
            ages.append(when - sent[waiting.popleft()])
    return sorted(ages)


def percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def three(first: Line | None = None, second: Line | None = None) -> dict[str, tuple[Line, Line]]:
    """The usual streams; `first` and `second` are the dedicated ones' lines towards the ingress."""
    return {
        "control": (Line(), Line()),
        "stream-1": (Line(), first or Line()),
        "stream-2": (Line(), second or Line()),
    }


def slow(rate: float) -> dict[str, tuple[Line, Line]]:
    return {"control": (Line(rate=rate), Line(rate=rate))}


def met(lines: dict[str, tuple[Line, Line]] | None = None) -> tuple[Conversation, int]:
    """A conversation in which a client has spoken; its flow's number at the outlet."""
    talk = Conversation(lines or three())
    talk.passes(1)
    talk.client_sends(MOSH)
    talk.passes(1)
    return talk, talk.out[-1][1]


def ages(sent: dict[int, float], came: list[tuple[float, int]]) -> list[float]:
    return sorted(when - sent[number] for when, number in came)
