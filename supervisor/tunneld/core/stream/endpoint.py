"""One end of the shim: flows on one side, carriers on the other, and each datagram passed on once.

Two kinds share the carriers' half: an `Ingress` takes datagrams from clients and makes flows of them; an `Outlet`
stands before mosh-server and follows the flows that its peer made. Neither does input or output: datagrams and bytes go
in with the time, events come out, and `outgoing` says what to write.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple, Union

from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.choice import choose
from tunneld.core.stream.flow import LONG_IDLE, MAX_DATAGRAM, MIN_MOSH, Bounds, Flow, FlowTable
from tunneld.core.stream.frame import Frame
from tunneld.core.stream.queue import Waiting

SWEEP = 5.0
"""Seconds between two looks for idle flows."""


class DeliverOnFlow(NamedTuple):
    """Hand this datagram to the flow's UDP side."""

    flow: Flow
    datagram: bytes


class FlowEnded(NamedTuple):
    """The flow is gone; free what belongs to it."""

    flow: Flow


class Message(NamedTuple):
    """The peer says something that is not about a flow (SERVE, SERVING, REPORT)."""

    kind: int
    body: dict[str, Any]


Happening = Union[DeliverOnFlow, FlowEnded, Message]


class Endpoint:
    """What both kinds share. Times are seconds on any steady clock."""

    def __init__(self, bounds: Bounds) -> None:
        self.flows = FlowTable(bounds)
        self.carriers: dict[str, StreamCarrier] = {}
        self.counts: Counter[str] = self.flows.counts
        self._sweep = 0.0

    def attach(self, carrier: StreamCarrier) -> None:
        self.carriers[carrier.name] = carrier

    def detach(self, name: str) -> None:
        """The carrier is gone; what waited on it is lost, as datagrams may be."""
        carrier = self.carriers.pop(name, None)
        if carrier:
            self.counts["datagrams_stale"] += carrier.dropped

    def receive(self, name: str, data: bytes, now: float) -> list[Happening]:
        """Bytes came in on a carrier.

        Raises:
            frame.ProtocolError: the carrier's peer broke the protocol; detach it.
        """
        events: list[Happening] = []
        for received in self.carriers[name].receive(data, now):
            if received.kind == frame.DATAGRAM:
                events += self._datagram(received, now)
            elif received.kind == frame.CLOSE:
                flow = self.flows.get(received.flow)
                if flow:
                    events.append(self._end(flow))
            elif received.kind in (frame.SERVE, frame.SERVING, frame.REPORT):
                events.append(Message(received.kind, frame.body(received)))
        return events

    def send(self, flow: Flow, datagram: bytes, now: float) -> None:
        """Queue a datagram on the carriers that suit it."""
        carriers = choose(self.carriers.values(), len(datagram), now)
        if not carriers:
            self.counts["datagrams_without_carrier"] += 1
        waiting = Waiting(flow.number, flow.sent, datagram, now, stranger=not flow.answered)
        flow.sent = (flow.sent + 1) & 0xFFFFFFFF
        for carrier in carriers:
            carrier.offer(waiting)

    def close(self, flow: Flow, now: float) -> FlowEnded:
        """End a flow and tell the peer."""
        for carrier in choose(self.carriers.values(), 0, now)[:1]:
            carrier.say(Frame(frame.CLOSE, flow.number))
        return self._end(flow)

    def deadline(self) -> float | None:
        """When to call `tick`; None: not at all."""
        return self._sweep if len(self.flows) else None

    def tick(self, now: float) -> list[Happening]:
        if now < self._sweep:
            return []
        self._sweep = now + SWEEP
        return [self.close(flow, now) for flow in self.flows.expired(now)]

    def outgoing(self, name: str, now: float) -> bytes:
        return self.carriers[name].outgoing(now)

    def counters(self) -> dict[str, int]:
        """What was refused, dropped and passed on so far, by name."""
        counts = dict(self.counts)
        stale = sum(carrier.dropped for carrier in self.carriers.values())
        counts["datagrams_stale"] = counts.get("datagrams_stale", 0) + stale
        return counts

    def _datagram(self, received: Frame, now: float) -> list[Happening]:
        raise NotImplementedError

    def _pass_on(self, flow: Flow, received: Frame) -> list[Happening]:
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
    """Where clients' datagrams come in."""

    def __init__(self) -> None:
        super().__init__(Bounds())

    def arrive(self, port: int, peer: Any, datagram: bytes, now: float, *, source: object) -> list[Happening]:
        """A datagram came to an ingress port from `peer`, a socket address; flows are bounded for each `source`."""
        if len(datagram) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return []
        if len(datagram) < MIN_MOSH or datagram[0] & 0x80:
            # mosh-clients set the top bit to 0 (the direction) and never send less.
            self.counts["datagrams_not_mosh"] += 1
            return []
        events: list[Happening] = []
        flow = self.flows.find((port, peer))
        if flow is None:
            number = self.flows.fresh_number(port)
            flow, evicted = self.flows.admit(number, now, key=(port, peer), group=source)
            events += [self.close(other, now) for other in evicted]
            if flow is None:
                return events
            flow.peer = peer
        if not flow.answered and not flow.unanswered.allows(now):
            self.counts["datagrams_refused_rate"] += 1
            return events
        flow.heard = now
        self.counts["datagrams_out"] += 1
        self.send(flow, datagram, now)
        return events

    def _datagram(self, received: Frame, now: float) -> list[Happening]:
        flow = self.flows.get(received.flow)
        if flow is None:
            self.counts["datagrams_without_flow"] += 1
            return []
        flow.answered = True
        return self._pass_on(flow, received)


class Outlet(Endpoint):
    """Where datagrams come out before mosh-server. Only `ports` are ever reached, whatever the peer asks for."""

    def __init__(self, ports: range) -> None:
        super().__init__(Bounds(idle=LONG_IDLE))
        self._ports = ports

    def answer(self, flow: Flow, datagram: bytes, now: float) -> None:
        """mosh-server sent a datagram on this flow's socket."""
        if len(datagram) > MAX_DATAGRAM:
            self.counts["datagrams_oversize"] += 1
            return
        flow.answered = True
        self.counts["datagrams_out"] += 1
        self.send(flow, datagram, now)

    def _datagram(self, received: Frame, now: float) -> list[Happening]:
        events: list[Happening] = []
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
