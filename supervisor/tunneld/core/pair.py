"""One end of a pair: one mosh session's datagrams over whatever lies between two machines.

Both ends of `tunneld mosh` hold a Pair, and a selector loop drives it. It does no input or output and has no clock;
times are seconds on any steady clock. Streams (channels of SSH connections) and UDP paths carry the same one flow:
each datagram has one number, may travel more than once, and is passed on once, when its first copy comes.

    datagrams   `send` takes one from mosh's local socket; `Deliver` hands one to it
    streams     `attach`, `receive`, `outgoing`, `detach`; a ProtocolError from `receive` ends that stream, nothing else
    sockets     `open`, `arrive`, `packets`, `shut`: UDP sockets that reach other machines, by a name of the caller's
    addresses   `offer`, `sees_peer`, `asks`: where we may be reached, where the peer may be; `moved`: all has changed
    time        `deadline` says when to call `tick`; call `outgoing` and `packets` after every other call
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple, Union

from tunneld.core import frame
from tunneld.core.carrier import StreamCarrier
from tunneld.core.choice import choose
from tunneld.core.flow import MAX_DATAGRAM, Seen
from tunneld.core.frame import Frame
from tunneld.core.path import Address, Candidate
from tunneld.core.queue import Waiting

SECRET = 32
"""Bytes of the secret that both ends share; it travels over SSH alone."""

PING = 3.0
"""Seconds between two pings of a stream: mosh itself speaks as often, and a stream that died is noticed."""

DEFAULT_BUDGET = 64.0
"""kbit/s that copies may cost: four of everything that a typist causes are 20."""


class Deliver(NamedTuple):
    """Hand this datagram to mosh's local socket."""

    datagram: bytes


class Message(NamedTuple):
    """The peer says something on this stream that the pair does not know (SERVE, SERVING, REPORT)."""

    stream: str
    kind: int
    body: dict[str, Any]


class Gather(NamedTuple):
    """Look anew where this machine may be reached, and call `offer`; `why` is for people."""

    why: str


class Packet(NamedTuple):
    """Send `data` from the socket `local` to `remote`."""

    local: str
    remote: Address
    data: bytes


Event = Union[Deliver, Message, Gather]


class Pair:
    """`is_client`: whether this is mosh-client's end; `budget` in kbit/s, 0 for no copies at all.

    `streams` are the carriers by name: to `say` something on one, and for `greeted`, `noise`, `heard`, `waited`,
    `is_choked`. `counts` says what was dropped and why.
    """

    def __init__(self, secret: bytes, now: float, *, is_client: bool, budget: float = DEFAULT_BUDGET) -> None:
        self.streams: dict[str, StreamCarrier] = {}
        self.counts: Counter[str] = Counter()
        self._seen = Seen()
        self._number = 0
        self._next_ping = now + PING
        self._began = now

    # Datagrams

    def send(self, datagram: bytes, now: float) -> None:
        """mosh's local socket received `datagram`: bring it to the peer."""
        if len(datagram) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return
        self.counts["datagrams_out"] += 1
        waiting = Waiting(0, self._number, datagram, now)
        self._number = (self._number + 1) & 0xFFFFFFFF
        carriers = choose(self.streams.values(), len(datagram), now)
        if not carriers:
            self.counts["datagrams_without_carrier"] += 1
        for carrier in carriers:
            carrier.offer(waiting)

    # Streams

    def attach(self, name: str, now: float, *, dedicated: bool = True) -> StreamCarrier:
        """A stream to the peer begins. Its carrier's first bytes are waiting in `outgoing`."""
        carrier = self.streams[name] = StreamCarrier(name, now, dedicated=dedicated)
        return carrier

    def detach(self, name: str) -> None:
        """The stream is gone. The pair lives on, with the others, with paths, or waiting for what comes."""
        self.streams.pop(name, None)

    def receive(self, name: str, data: bytes, now: float) -> list[Event]:
        """Bytes came in on a stream.

        Raises:
            frame.ProtocolError: the peer broke the protocol; detach the stream.
        """
        events: list[Event] = []
        for received in self.streams[name].receive(data, now):
            if received.kind == frame.DATAGRAM:
                events += self._pass_on(received)
            elif received.kind in (frame.SERVE, frame.SERVING, frame.REPORT):
                events.append(Message(name, received.kind, frame.body(received)))
        return events

    def outgoing(self, name: str, now: float) -> bytes:
        """The bytes to write to a stream now; ask only when all earlier ones are written."""
        return self.streams[name].outgoing(now)

    # UDP sockets

    def open(self, local: str, family: int, port: int, now: float) -> None:
        """A UDP socket of `family` (4 or 6), bound to `port`, is there: paths may use it."""

    def shut(self, local: str, now: float) -> None:
        """The socket is gone, and the paths that used it."""

    def arrive(self, local: str, remote: Address, packet: bytes, now: float) -> list[Event]:
        """Something came in on a UDP socket; anybody may have sent it."""
        return []

    def packets(self, now: float) -> list[Packet]:
        """What to send over UDP now. A packet that a socket does not take at once is dropped."""
        return []

    def unsendable(self, local: str, remote: Address, now: float) -> None:
        """The system refused to send there (no route, network down): this path is in doubt at once."""

    # Addresses

    def offer(self, candidates: Iterable[Candidate], now: float) -> None:
        """Where this machine may be reached: the peer is told, and both ends try. Call it again when that changes."""

    def sees_peer(self, hosts: Iterable[str], now: float) -> None:
        """Addresses that SSH shows for the peer: tried with the peer's own ports (most NATs keep the port)."""

    def asks(self, servers: Iterable[Address], now: float) -> None:
        """STUN servers: what they see is offered as well."""

    def moved(self, now: float) -> list[Event]:
        """The network changed, or this machine slept: nothing that was known about paths holds."""
        return []

    # Time

    def deadline(self) -> float:
        """When to call `tick`."""
        return self._next_ping

    def tick(self, now: float) -> list[Event]:
        """Do what is due."""
        if now >= self._next_ping:
            self._next_ping = now + PING
            for carrier in self.streams.values():
                carrier.ping(now)
        return []

    # To look at

    def snapshot(self, now: float) -> dict[str, Any]:
        """What `--paths` shows, ready for JSON."""
        return {
            "streams": [
                {"name": carrier.name, "greeted": carrier.greeted, "rtt": carrier.rtt, "waited": carrier.waited(now)}
                for carrier in self.streams.values()
            ],
            "paths": [],
            "counts": dict(self.counts),
        }

    def _pass_on(self, received: Frame) -> list[Event]:
        if not self._seen.accepts(received.number):
            self.counts["datagrams_duplicate"] += 1
            return []
        if len(received.payload) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return []
        self.counts["datagrams_in"] += 1
        return [Deliver(received.payload)]
