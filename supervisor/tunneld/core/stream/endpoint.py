"""One end of the shim: flows on one side, stream carriers on the other, and each datagram passed on once.

There are two kinds of endpoints. An `Ingress` takes datagrams from clients and makes flows of them. An `Outlet` stands
before mosh-server and follows the flows that the ingress made. Neither does input or output: the owner hands in
datagrams and bytes with the time, carries out the events that it gets back, and writes what `outgoing` returns.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple, Union

from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.choice import choose
from tunneld.core.stream.flow import MAX_DATAGRAM, MIN_MOSH, OUTLET_IDLE, Bounds, Flow, FlowTable
from tunneld.core.stream.frame import Frame
from tunneld.core.stream.queue import Waiting

SWEEP_INTERVAL = 5.0
"""Seconds between two searches for idle flows."""


class DeliverOnFlow(NamedTuple):
    """Hand this datagram to the flow's UDP side."""

    flow: Flow
    datagram: bytes


class FlowEnded(NamedTuple):
    """The flow has ended; free what belongs to it."""

    flow: Flow


class Message(NamedTuple):
    """The peer has sent a message that is not about a flow: `kind` is SERVE, SERVING or REPORT."""

    kind: int
    body: dict[str, Any]


EndpointEvent = Union[DeliverOnFlow, FlowEnded, Message]


class Endpoint:
    """What both kinds of endpoints share.

    `carriers` are those that are attached, by name. Times are seconds on any steady clock.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.flows = FlowTable(bounds)
        self.carriers: dict[str, StreamCarrier] = {}
        self.counts: Counter[str] = self.flows.counts
        self._next_sweep = 0.0

    def attach(self, carrier: StreamCarrier) -> None:
        """Use this carrier from now on, in the place of another one of its name."""
        self.carriers[carrier.name] = carrier

    def detach(self, name: str) -> None:
        """The carrier is gone; the datagrams that waited on it are lost, as datagrams may be."""
        carrier = self.carriers.pop(name, None)
        if carrier:
            self.counts["datagrams_stale"] += carrier.dropped

    def receive(self, name: str, data: bytes, now: float) -> list[EndpointEvent]:
        """Take bytes that came in on a carrier; return what the owner has to do.

        Raises:
            frame.ProtocolError: the peer broke the protocol; the owner must detach the carrier.
        """
        events: list[EndpointEvent] = []
        for received in self.carriers[name].receive(data, now):
            if received.kind == frame.DATAGRAM:
                events += self._take_datagram(received, now)
            elif received.kind == frame.CLOSE:
                flow = self.flows.get(received.flow)
                if flow:
                    events.append(self._end(flow))
            elif received.kind in (frame.SERVE, frame.SERVING, frame.REPORT):
                events.append(Message(received.kind, frame.body(received)))
        return events

    def send(self, flow: Flow, datagram: bytes, now: float) -> None:
        """Queue a datagram for the peer on the carriers that suit it; without any it is lost, and counted."""
        carriers = choose(self.carriers.values(), len(datagram), now)
        if not carriers:
            self.counts["datagrams_without_carrier"] += 1
        waiting = Waiting(flow.number, flow.next_number, datagram, now, from_stranger=not flow.answered)
        flow.next_number = (flow.next_number + 1) & 0xFFFFFFFF
        for carrier in carriers:
            carrier.offer(waiting)

    def close(self, flow: Flow, now: float) -> FlowEnded:
        """End a flow and tell the peer."""
        for carrier in choose(self.carriers.values(), 0, now)[:1]:
            carrier.say(Frame(frame.CLOSE, flow.number))
        return self._end(flow)

    def deadline(self) -> float | None:
        """When to call `tick`; None while there are no flows."""
        return self._next_sweep if len(self.flows) else None

    def tick(self, now: float) -> list[EndpointEvent]:
        """End the flows that have been idle for too long, if a sweep is due."""
        if now < self._next_sweep:
            return []
        self._next_sweep = now + SWEEP_INTERVAL
        return [self.close(flow, now) for flow in self.flows.expired(now)]

    def outgoing(self, name: str, now: float) -> bytes:
        """Take the bytes that are to be written to this carrier's stream now."""
        return self.carriers[name].outgoing(now)

    def counters(self) -> dict[str, int]:
        """How many datagrams and flows were refused, dropped and passed on so far, by name."""
        counts = dict(self.counts)
        stale = sum(carrier.dropped for carrier in self.carriers.values())
        counts["datagrams_stale"] = counts.get("datagrams_stale", 0) + stale
        return counts

    def _take_datagram(self, received: Frame, now: float) -> list[EndpointEvent]:
        raise NotImplementedError

    def _pass_on(self, flow: Flow, received: Frame) -> list[EndpointEvent]:
        if len(received.payload) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return []
        if not flow.seen.accepts(received.number):
            self.counts["datagrams_duplicate"] += 1
            return []
        self.counts["datagrams_in"] += 1
        return [DeliverOnFlow(flow, received.payload)]

    def _end(self, flow: Flow) -> FlowEnded:
        self.flows.remove(flow)
        for carrier in self.carriers.values():
            carrier.forget(flow.number)
        return FlowEnded(flow)


class Ingress(Endpoint):
    """The endpoint on the relay, where clients' datagrams come in."""

    def __init__(self) -> None:
        super().__init__(Bounds())

    def arrive(self, port: int, peer: Any, datagram: bytes, now: float, *, source: object) -> list[EndpointEvent]:
        """A datagram came to an ingress port from `peer`, a socket address.

        `source` is whom the flow counts for: the flows of one source are bounded.
        """
        if len(datagram) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return []
        if len(datagram) < MIN_MOSH or datagram[0] & 0x80:
            # A mosh-client sets the top bit, the direction, to 0, and never sends a shorter datagram.
            self.counts["datagrams_not_mosh"] += 1
            return []
        events: list[EndpointEvent] = []
        flow = self.flows.find((port, peer))
        if flow is None:
            number = self.flows.fresh_number(port)
            flow, evicted = self.flows.admit(number, now, key=(port, peer), group=source)
            events += [self.close(other, now) for other in evicted]
            if flow is None:
                return events
            flow.peer = peer
        if not flow.answered and not flow.rate.allows(now):
            self.counts["datagrams_refused_rate"] += 1
            return events
        flow.heard = now
        self.counts["datagrams_out"] += 1
        self.send(flow, datagram, now)
        return events

    def _take_datagram(self, received: Frame, now: float) -> list[EndpointEvent]:
        flow = self.flows.get(received.flow)
        if flow is None:
            self.counts["datagrams_without_flow"] += 1
            return []
        flow.answered = True
        return self._pass_on(flow, received)


class Outlet(Endpoint):
    """The endpoint before mosh-server. Datagrams reach only `ports`, whatever the peer asks for."""

    def __init__(self, ports: range) -> None:
        super().__init__(Bounds(idle=OUTLET_IDLE))
        self._ports = ports

    def answer(self, flow: Flow, datagram: bytes, now: float) -> None:
        """mosh-server sent a datagram to this flow's socket: pass it to the peer."""
        if len(datagram) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return
        flow.answered = True
        self.counts["datagrams_out"] += 1
        self.send(flow, datagram, now)

    def _take_datagram(self, received: Frame, now: float) -> list[EndpointEvent]:
        events: list[EndpointEvent] = []
        flow = self.flows.get(received.flow)
        if flow is None:
            if received.flow >> 16 not in self._ports:
                self.counts["datagrams_wrong_port"] += 1
                return []
            flow, evicted = self.flows.admit(received.flow, now, key=received.flow)
            events += [self.close(other, now) for other in evicted]
            if flow is None:
                return events
        flow.heard = now
        return [*events, *self._pass_on(flow, received)]
