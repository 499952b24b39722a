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

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, NamedTuple, Union

from tunneld.core.pair import packet, pair_snapshot, redundancy, stun
from tunneld.core.pair.dispatch import DOUBT, Dispatch
from tunneld.core.pair.outbox import Outbox, OutgoingPacket
from tunneld.core.pair.packet import SECRET as SECRET
from tunneld.core.pair.packet import Seal
from tunneld.core.pair.path import Candidate, UdpAddress
from tunneld.core.pair.paths import Paths
from tunneld.core.pair.rendezvous import Rendezvous
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.flow import MAX_DATAGRAM, SeenNumbers

PING = 3.0
"""Seconds between two pings of a stream: mosh itself speaks as often, and a stream that died is noticed."""

DEFAULT_BUDGET = 64.0
"""kbit/s that copies may cost: four of everything that a typist causes are 20."""

BUSY = 4, 3.0
"""So many datagrams in so many seconds are somebody at work; mosh alone makes two."""

HISTORY = 32
"""Changes that are remembered for people."""


class Deliver(NamedTuple):
    """Hand this datagram to mosh's local socket."""

    datagram: bytes


class StreamMessage(NamedTuple):
    """The peer says something on this stream that the pair does not know (SERVE, SERVING, REPORT)."""

    stream: str
    kind: int
    body: dict[str, Any]


class Gather(NamedTuple):
    """Look anew where this machine may be reached, and call `offer`; `why` is for people."""

    why: str


Event = Union[Deliver, StreamMessage, Gather]


class Pair:
    """`is_client`: whether this is mosh-client's end; `budget` in kbit/s, 0 for no copies at all.

    `streams` are the carriers by name: to `say` something on one, and for `greeted`, `noise`, `heard`, `waited`,
    `is_choked`. `counts` says what was dropped and why.
    """

    def __init__(self, secret: bytes, now: float, *, is_client: bool, budget: float = DEFAULT_BUDGET) -> None:
        self.streams: dict[str, StreamCarrier] = {}
        self.counts: Counter[str] = Counter()
        self.history: deque[tuple[float, str]] = deque(maxlen=HISTORY)
        self._seal = Seal(secret, self.counts, is_client=is_client)
        self._paths = Paths(self.counts, now)
        self._rendezvous = Rendezvous(secret, now)
        self._outbox = Outbox(self._seal, self._paths, redundancy.Budget(budget, now), self.counts)
        self._dispatch = Dispatch(self.streams, self._paths, self._outbox, self.counts, now, is_client=is_client)
        self._seen = SeenNumbers()
        self._now = now
        self._next_ping = now + PING
        self._crossed: deque[float] = deque(maxlen=BUSY[0])
        self._must_offer = False

    # Datagrams

    def send(self, datagram: bytes, now: float) -> None:
        """mosh's local socket received `datagram`: bring it to the peer."""
        if len(datagram) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return
        self.counts["datagrams_out"] += 1
        self._crossed.append(now)
        self._dispatch.send(datagram, now)

    # Streams

    def attach(self, name: str, now: float, *, dedicated: bool = True) -> StreamCarrier:
        """A stream to the peer begins. Its carrier's first bytes are waiting in `outgoing`."""
        carrier = self.streams[name] = StreamCarrier(name, now, dedicated=dedicated)
        self._say_offer(again=True)
        return carrier

    def detach(self, name: str) -> None:
        """The stream is gone. The pair lives on, with the others, with paths, or waiting for what comes."""
        carrier = self.streams.pop(name, None)
        if carrier:
            self.counts["datagrams_stale"] += carrier.dropped

    def receive(self, name: str, data: bytes, now: float) -> list[Event]:
        """Bytes came in on a stream.

        Raises:
            frame.ProtocolError: the peer broke the protocol; detach the stream.
        """
        events: list[Event] = []
        for received in self.streams[name].receive(data, now):
            if received.kind == frame.DATAGRAM:
                events += self._pass_on(received.number, received.payload, now)
                if received.flow == DOUBT and self._paths.current and not self._dispatch.is_in_doubt(now):
                    self._paths.current.warn(now, by_peer=True)
            elif received.kind == frame.OFFER:
                self._take_offer(frame.body(received), now)
            elif received.kind in (frame.SERVE, frame.SERVING, frame.REPORT):
                events.append(StreamMessage(name, received.kind, frame.body(received)))
        return events

    def outgoing(self, name: str, now: float) -> bytes:
        """The bytes to write to a stream now; ask only when all earlier ones are written."""
        return self.streams[name].outgoing(now)

    # UDP sockets

    def open(self, local: str, family: int, port: int, now: float) -> None:
        """A UDP socket of `family` (4 or 6), bound to `port`, is there: paths may use it."""
        self._rendezvous.open(local, family, port, now)
        self._paths.open(local, family, now)
        self._say_offer()

    def shut(self, local: str, now: float) -> None:
        """The socket is gone, and the paths that used it."""
        self._rendezvous.shut(local)
        self._paths.shut(local)
        self._review(now)

    def arrive(self, local: str, remote: UdpAddress, data: bytes, now: float) -> list[Event]:
        """Something came in on a UDP socket; anybody may have sent it."""
        if stun.is_stun(data):
            if not self._rendezvous.answered(local, remote, data):
                self.counts["packets_unasked"] += 1
            self._say_offer()
            return []
        opened = self._seal.open(data)
        if opened is None:
            return []
        is_question = opened.kind in (packet.PROBE, packet.ASKING)
        path = self._paths.heard(local, remote, now, asks=is_question)
        if is_question and path:
            self._outbox.answer(path, opened.number)
        if opened.kind in (packet.DATAGRAM, packet.ASKING):
            read = packet.read_datagram(opened.body)
            return self._pass_on(*read, now) if read else []
        if opened.kind == packet.ANSWER:
            answer = packet.read_answer(opened.body)
            if answer is None or not self._paths.take_answer(*answer, now):
                self.counts["packets_unasked"] += 1
            else:
                self._dispatch.answered(answer[0])
            return self._review(now)
        return []

    def ready(self) -> list[OutgoingPacket]:
        """What `send` has just made for UDP, for whoever is in a hurry; `packets` gives it as well."""
        return self._outbox.take()

    def packets(self, now: float) -> list[OutgoingPacket]:
        """What to send over UDP now. A packet that a socket does not take at once is dropped."""
        self._dispatch.tick(now)
        for path in self._paths.to_probe(now, is_active=self._is_active(now)):
            self._outbox.probe(path, now)
        self._outbox.add([OutgoingPacket(*question) for question in self._rendezvous.questions(now)])
        return self._outbox.take()

    def unsendable(self, local: str, remote: UdpAddress, now: float) -> None:
        """The system refused to send there (no route, network down): this path is in doubt at once."""
        self.counts["packets_unsendable"] += 1
        path = self._paths.find(local, remote)
        if path and path.answered is not None:
            path.warn(now)
            self._review(now)

    # Addresses

    def offer(self, candidates: Iterable[Candidate], now: float) -> None:
        """Where this machine may be reached: the peer is told, and both ends try. Call it again when that changes."""
        self._rendezvous.offer(candidates)
        self._say_offer(again=self._must_offer)
        self._must_offer = False

    def sees_peer(self, hosts: Iterable[str], now: float) -> None:
        """Addresses that SSH shows for the peer: tried with the peer's own ports (most NATs keep the port)."""
        self._rendezvous.sees_peer(hosts)
        self._paths.offer(self._rendezvous.candidates(), now)

    def asks(self, servers: Iterable[UdpAddress], now: float) -> None:
        """STUN servers: what they see is offered as well."""
        self._rendezvous.asks(servers, now)

    def moved(self, now: float) -> list[Event]:
        """The network changed, or this machine slept: nothing that was known about paths holds."""
        self.history.append((now, "the network changed"))
        self._paths.moved(now)
        self._rendezvous.hurry(now)
        self._must_offer = True
        for stream in self.streams.values():
            stream.ping(now)
        return [Gather("the network changed"), *self._review(now)]

    # Time

    def deadline(self) -> float:
        """When to call `tick`."""
        moments = [
            self._next_ping,
            self._dispatch.due(),
            self._paths.due(self._now, is_active=self._is_active(self._now)),
            self._rendezvous.due(has_direct=self._paths.has_direct(self._now)),
        ]
        return min(moments)

    def tick(self, now: float) -> list[Event]:
        """Do what is due."""
        self._now = now
        if now >= self._next_ping:
            self._next_ping = now + PING
            for stream in self.streams.values():
                stream.ping(now)
        events = self._review(now)
        if self._rendezvous.is_time(now, has_direct=self._paths.has_direct(now)):
            self._paths.start(now)
            self._say_offer(again=True)
            events.append(Gather("time to try again"))
        return events

    # To look at

    def snapshot(self, now: float) -> dict[str, Any]:
        """What `--paths` shows, ready for JSON."""
        current = self._paths.current
        return {
            "in_use": pair_snapshot.in_use(self._paths, self.streams.values(), now),
            "streams": [pair_snapshot.stream(stream, now) for stream in self.streams.values()],
            "paths": [pair_snapshot.path(path, self._paths.current, now) for path in self._paths],
            "redundancy": {
                "copies": self._outbox.copies(now),
                "budget_kbit": self._outbox.budget.limit,
                "room_kbit": round(self._outbox.room(current, now).size(now), 1) if current else None,
                "spent_kbit": round(self._outbox.budget.spent(now), 1),
            },
            "history": [{"ago": round(now - when, 1), "what": what} for when, what in self.history],
            "counts": dict(self.counts),
        }

    # Receiving

    def _pass_on(self, number: int, datagram: bytes, now: float) -> list[Event]:
        if len(datagram) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return []
        if not self._seen.accepts(number):
            self.counts["datagrams_duplicate"] += 1
            return []
        self.counts["datagrams_in"] += 1
        self._crossed.append(now)
        return [Deliver(datagram)]

    def _is_active(self, now: float) -> bool:
        count, seconds = BUSY
        return len(self._crossed) == count and now - self._crossed[0] < seconds

    # Paths

    def _review(self, now: float) -> list[Event]:
        """Judge the paths, and act on what changed."""
        reason = self._paths.review(now)
        current = self._paths.current
        is_sure = current is not None and not current.is_doubtful(now)
        if reason is not None:
            self.history.append((now, f"{pair_snapshot.name(current)}: {reason}"))
        if reason is not None or not is_sure:
            self._dispatch.rescue(now)
        if reason is None or current:
            return []
        self._rendezvous.hurry(now)
        self._paths.start(now)
        self._say_offer(again=True)
        return [Gather(reason)]

    def _take_offer(self, body: dict[str, Any], now: float) -> None:
        if self._rendezvous.take(body, now):
            self._paths.offer(self._rendezvous.candidates(), now)
        else:
            self.counts["offers_ignored"] += 1

    def _say_offer(self, *, again: bool = False) -> None:
        """Tell the peer where we may be reached, if it does not know, or so that it tries `again`."""
        offer = self._rendezvous.again() if again else self._rendezvous.news()
        if offer:
            for stream in self.streams.values():
                stream.say(offer)
