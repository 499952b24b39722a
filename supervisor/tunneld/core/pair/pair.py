"""One end of a pair: it carries one mosh session's datagrams over whatever lies between two machines.

Both ends of `tunneld mosh` hold a Pair, and a selector loop drives it. A Pair does no input or output and has no clock;
times are seconds on any steady clock. Streams (channels of SSH connections) and UDP paths carry the same single flow:
each datagram has one number and may travel more than once; the receiving end passes its first copy on, and drops
others.

    datagrams   `send` takes one from mosh's local socket; the event `Deliver` hands one to that socket
    streams     `attach`, `receive`, `outgoing`, `detach`; a ProtocolError from `receive` ends that stream, nothing else
    sockets     `open`, `arrive`, `packets`, `shut`: UDP sockets that reach other machines, by a name of the caller's
    addresses   `offer`: where we may be reached; `sees_peer`: where the peer may be; `use_stun_servers`: whom to ask;
                `moved`: the network changed
    time        `deadline` says when to call `tick`; call `outgoing` and `packets` after every other call
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, NamedTuple, Union

from tunneld.core.pair import packet, pair_snapshot, redundancy, stun
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.dispatch import DOUBTING_FLOW, Dispatch
from tunneld.core.pair.outbox import Outbox, OutgoingPacket
from tunneld.core.pair.packet import SECRET_SIZE as SECRET_SIZE
from tunneld.core.pair.packet import Seal
from tunneld.core.pair.paths import Paths
from tunneld.core.pair.rendezvous import Rendezvous
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.flow import MAX_DATAGRAM, SeenNumbers

PING_EVERY = 3.0
"""Seconds between two pings of a stream, which reveal a stream that died; mosh itself sends as often."""

DEFAULT_BUDGET = 64.0
"""kbit/s that copies may cost. A typist's datagrams, each sent four times, cost 20."""

BUSY = 4, 3.0
"""Somebody is typing when so many datagrams pass within so many seconds. mosh alone sends two in that time."""

MAX_HISTORY = 32
"""Changes of the choice that are remembered for people."""


class Deliver(NamedTuple):
    """Hand this datagram to mosh's local socket."""

    datagram: bytes


class StreamMessage(NamedTuple):
    """The peer sent a message on this stream that is not for the pair: SERVE, SERVING or REPORT."""

    stream: str
    kind: int
    body: dict[str, Any]


class Gather(NamedTuple):
    """Find out again where this machine may be reached, and call `offer`; `why` is for people."""

    why: str


Event = Union[Deliver, StreamMessage, Gather]


class Pair:
    """One end. `secret` is the SECRET_SIZE bytes that both ends share; `is_client`: this is mosh-client's end.

    `budget` is what copies may cost in kbit/s; 0: no copies at all. `streams` are the carriers by name; the caller may
    `say` something on one, and look at `greeted`, `noise`, `heard`, `waited` and `is_choked`. `counts` says what was
    dropped, and why. `history` has the last changes, each with its time.

    Raises:
        ValueError: the secret has another size.
    """

    def __init__(self, secret: bytes, now: float, *, is_client: bool, budget: float = DEFAULT_BUDGET) -> None:
        self.streams: dict[str, StreamCarrier] = {}
        self.counts: Counter[str] = Counter()
        self.history: deque[tuple[float, str]] = deque(maxlen=MAX_HISTORY)
        self._seal = Seal(secret, self.counts, is_client=is_client)
        self._paths = Paths(self.counts, now)
        self._rendezvous = Rendezvous(secret, now)
        self._outbox = Outbox(self._seal, self._paths, redundancy.Budget(budget, now), self.counts)
        self._dispatch = Dispatch(self.streams, self._paths, self._outbox, self.counts, now, is_client=is_client)
        self._seen = SeenNumbers()
        self._now = now
        self._next_ping = now + PING_EVERY
        self._datagram_times: deque[float] = deque(maxlen=BUSY[0])
        self._must_offer = False

    # Datagrams

    def send(self, datagram: bytes, now: float) -> None:
        """mosh's local socket received `datagram`: bring it to the peer. One over MAX_DATAGRAM is dropped, counted."""
        if len(datagram) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return
        self.counts["datagrams_out"] += 1
        self._datagram_times.append(now)
        self._dispatch.send(datagram, now)

    # Streams

    def attach(self, name: str, now: float, *, dedicated: bool = True) -> StreamCarrier:
        """A stream to the peer begins; `dedicated`: its SSH connection carries no forwards.

        Returns:
            Its carrier, whose first bytes are waiting in `outgoing`.
        """
        carrier = self.streams[name] = StreamCarrier(name, now, dedicated=dedicated)
        self._say_offer(again=True)
        return carrier

    def detach(self, name: str) -> None:
        """The stream is gone. The pair lives on with other streams, with paths, or waiting for new ones."""
        carrier = self.streams.pop(name, None)
        if carrier:
            self.counts["datagrams_stale"] += carrier.dropped

    def receive(self, name: str, data: bytes, now: float) -> list[Event]:
        """Bytes came in on the stream `name`, which is attached.

        Raises:
            frame.ProtocolError: the peer broke the protocol; detach the stream.
        """
        events: list[Event] = []
        for received in self.streams[name].receive(data, now):
            if received.kind == frame.DATAGRAM:
                events += self._deliver(received.number, received.payload, now)
                if received.flow == DOUBTING_FLOW and self._paths.current and not self._dispatch.is_in_doubt(now):
                    self._paths.current.warn(now, by_peer=True)
            elif received.kind == frame.OFFER:
                self._take_offer(frame.body(received), now)
            elif received.kind in (frame.SERVE, frame.SERVING, frame.REPORT):
                events.append(StreamMessage(name, received.kind, frame.body(received)))
        return events

    def outgoing(self, name: str, now: float) -> bytes:
        """The bytes to write to a stream now; call it only when all earlier bytes are written."""
        return self.streams[name].outgoing(now)

    # UDP sockets

    def open(self, local: str, family: int, port: int, now: float) -> None:
        """Paths may use the UDP socket `local` of `family` (4 or 6), which is bound to `port`."""
        self._rendezvous.open(local, family, port, now)
        self._paths.open(local, family, now)
        self._say_offer()

    def shut(self, local: str, now: float) -> None:
        """The socket is gone, and the paths that used it."""
        self._rendezvous.shut(local)
        self._paths.shut(local)
        self._review(now)

    def arrive(self, local: str, remote: UdpAddress, data: bytes, now: float) -> list[Event]:
        """`data` came in on a UDP socket; anybody may have sent it. What is no good is dropped, counted."""
        if stun.is_stun(data):
            if not self._rendezvous.take_stun_answer(local, remote, data):
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
            return self._deliver(*read, now) if read else []
        if opened.kind == packet.ANSWER:
            answer = packet.read_answer(opened.body)
            if answer is None or not self._paths.take_answer(*answer, now):
                self.counts["packets_unasked"] += 1
            else:
                self._dispatch.answered(answer[0])
            return self._review(now)
        return []

    def ready(self) -> list[OutgoingPacket]:
        """The packets that wait to be sent, and nothing that is merely due: call it after `send` to lose no time.

        Each packet is given once, here or by `packets`.
        """
        return self._outbox.take()

    def packets(self, now: float) -> list[OutgoingPacket]:
        """What to send over UDP now. Drop a packet that its socket does not take at once."""
        self._dispatch.tick(now)
        for path in self._paths.to_probe(now, is_active=self._is_active(now)):
            self._outbox.probe(path, now)
        self._outbox.add([OutgoingPacket(*question) for question in self._rendezvous.take_questions(now)])
        return self._outbox.take()

    def unsendable(self, local: str, remote: UdpAddress, now: float) -> None:
        """The system refused to send there (no route, network down): doubt this path at once."""
        self.counts["packets_unsendable"] += 1
        path = self._paths.find(local, remote)
        if path and path.answered is not None:
            path.warn(now)
            self._review(now)

    # Addresses

    def offer(self, candidates: Iterable[Candidate], now: float) -> None:
        """Tell the peer where this machine may be reached; both ends try then. Call it again when that changes."""
        self._rendezvous.offer(candidates)
        self._say_offer(again=self._must_offer)
        self._must_offer = False

    def sees_peer(self, hosts: Iterable[str], now: float) -> None:
        """SSH shows these addresses for the peer: try them with the peer's own ports (most NATs keep the port)."""
        self._rendezvous.sees_peer(hosts)
        self._paths.offer(self._rendezvous.candidates(), now)

    def use_stun_servers(self, servers: Iterable[UdpAddress], now: float) -> None:
        """Ask these STUN servers, and offer the addresses that they see as well."""
        self._rendezvous.use_servers(servers, now)

    def moved(self, now: float) -> list[Event]:
        """The network changed, or this machine slept: nothing that was known about paths holds any more."""
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
        """Do what is due now: ping streams, judge paths, begin a round."""
        self._now = now
        if now >= self._next_ping:
            self._next_ping = now + PING_EVERY
            for stream in self.streams.values():
                stream.ping(now)
        events = self._review(now)
        if self._rendezvous.begin_due_round(now, has_direct=self._paths.has_direct(now)):
            self._paths.start(now)
            self._say_offer(again=True)
            events.append(Gather("time to try again"))
        return events

    # To look at

    def snapshot(self, now: float) -> dict[str, Any]:
        """What `tunneld mosh --paths` shows, ready for JSON; pair_snapshot.py says in which units."""
        current = self._paths.current
        return {
            "in_use": pair_snapshot.in_use(self._paths, self.streams.values(), now),
            "streams": [pair_snapshot.stream(stream, now) for stream in self.streams.values()],
            "paths": [pair_snapshot.path(path, self._paths.current, now) for path in self._paths],
            "redundancy": {
                "copies": self._outbox.copies(now),
                "budget_kbit": self._outbox.budget.limit,
                "room_kbit": round(self._outbox.headroom(current, now).size(now), 1) if current else None,
                "spent_kbit": round(self._outbox.budget.spent(now), 1),
            },
            "history": [{"ago": round(now - when, 1), "what": what} for when, what in self.history],
            "counts": dict(self.counts),
        }

    # Receiving

    def _deliver(self, number: int, datagram: bytes, now: float) -> list[Event]:
        if len(datagram) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return []
        if not self._seen.accepts(number):
            self.counts["datagrams_duplicate"] += 1
            return []
        self.counts["datagrams_in"] += 1
        self._datagram_times.append(now)
        return [Deliver(datagram)]

    def _is_active(self, now: float) -> bool:
        count, seconds = BUSY
        return len(self._datagram_times) == count and now - self._datagram_times[0] < seconds

    # Paths

    def _review(self, now: float) -> list[Event]:
        """Judge the paths and act on changes; when the last path is lost, begin a round to find another."""
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
        if self._rendezvous.take_offer(body, now):
            self._paths.offer(self._rendezvous.candidates(), now)
        else:
            self.counts["offers_ignored"] += 1

    def _say_offer(self, *, again: bool = False) -> None:
        """Tell the peer where we may be reached if that is new, or in any case so that the peer tries `again`."""
        offer = self._rendezvous.next_offer() if again else self._rendezvous.changed_offer()
        if offer:
            for stream in self.streams.values():
                stream.say(offer)
