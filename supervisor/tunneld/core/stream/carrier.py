"""A stream carrier: frames, a send window and a queue over one byte stream, as a state machine without input or output.

The first frame in each direction is HELLO. After that, DATAGRAM frames go out as far as the send window allows, and all
other frames at once. The owner hands the bytes that it read to `receive`, and writes the bytes that `outgoing` returns.
"""

from __future__ import annotations

from tunneld.core.stream import frame
from tunneld.core.stream.frame import Frame, FrameDecoder, ProtocolError
from tunneld.core.stream.queue import DatagramQueue, Waiting
from tunneld.core.stream.window import SendWindow

RETRANSMISSION_MARGIN = 0.1
"""Seconds above the usual round trip after which an answer is late: a TCP retransmission has begun."""

UNKNOWN_RTT = 1.0
"""Seconds that a round trip is assumed to take before the first one was measured."""

MAX_CONTROL = 64 * 1024
"""Bytes of frames other than DATAGRAM that may wait for a peer that does not read; more ends the carrier."""


class StreamCarrier:
    """One stream to the other endpoint.

    `dedicated`: the stream has an SSH connection of its own, which carries no forwards. `sent` and `received` count
    datagrams, `heard` is when the last bytes came in, and `greeted` is true once the peer's HELLO came. Times are
    seconds on any steady clock.
    """

    def __init__(self, name: str, now: float, *, dedicated: bool) -> None:
        self.name = name
        self.dedicated = dedicated
        self.sent = 0
        self.received = 0
        self.heard = now
        self.greeted = False
        self._window = SendWindow()
        self._queue = DatagramQueue()
        self._decoder = FrameDecoder()
        self._control = bytearray(frame.PREAMBLE)
        self._pinged: float | None = None
        self._ping_rtt: float | None = None
        self.say(frame.message(frame.HELLO, {"versions": [frame.PROTOCOL_VERSION]}))

    def receive(self, data: bytes, now: float) -> list[Frame]:
        """Take bytes from the stream; return the frames that concern the endpoint.

        Raises:
            ProtocolError: the peer broke the protocol; the owner must drop the carrier.
        """
        self.heard = now
        for_endpoint = []
        before = self.received
        for received in self._decoder.feed(data):
            if not self.greeted:
                self._greet(received)
            elif received.kind == frame.ACK:
                if not self._window.acknowledge(received.number, now):
                    raise ProtocolError("the peer acknowledges datagrams that were never sent")
            elif received.kind == frame.PING:
                self.say(Frame(frame.PONG, number=received.number))
            elif received.kind == frame.PONG:
                self._pong(now)
            else:
                self.received += received.kind == frame.DATAGRAM
                for_endpoint.append(received)
        if self.received != before:
            self.say(Frame(frame.ACK, number=self.received))
        return for_endpoint

    def say(self, control: Frame) -> None:
        """Send a frame that is not a DATAGRAM; it goes out ahead of all datagrams."""
        self._control += control.encode()

    def ping(self, now: float) -> None:
        """Measure the round trip, and let the peer hear from us. Does nothing while the last PING is unanswered."""
        if self._pinged is None:
            self._pinged = now
            self.say(Frame(frame.PING))

    def offer(self, waiting: Waiting) -> None:
        """Queue a datagram; it may be dropped when it gets old or too many wait."""
        self._queue.push(waiting)

    def outgoing(self, now: float) -> bytes:
        """Take the bytes that are to be written to the stream now; empty when there are none."""
        data, self._control = self._control, bytearray()
        while self.greeted and self._window.room and (waiting := self._queue.pop(now)):
            data += Frame(frame.DATAGRAM, waiting.flow, waiting.number, waiting.datagram).encode()
            self._window.sent(now)
            self.sent += 1
        return bytes(data)

    @property
    def is_choked(self) -> bool:
        """Whether the peer asks for more than it reads; the owner must then drop the carrier."""
        return len(self._control) > MAX_CONTROL

    def forget(self, flow: int) -> None:
        """Drop the datagrams that wait for this flow, uncounted: it has ended."""
        self._queue.forget(flow)

    @property
    def rtt(self) -> float | None:
        """The round trip in seconds, smoothed over datagrams, else the last PING's; None before any measurement."""
        return self._window.smoothed_rtt if self._window.smoothed_rtt is not None else self._ping_rtt

    @property
    def noise(self) -> bytes:
        """What the far side printed before it spoke the protocol, for error texts."""
        return self._decoder.noise if self.greeted else self._decoder.pending

    @property
    def queued(self) -> int:
        """How many datagrams wait for the send window."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """How many datagrams were dropped because they got old or too many waited."""
        return self._queue.dropped

    def waited(self, now: float) -> float:
        """Seconds since the oldest unanswered datagram or PING was sent; 0 when everything is answered."""
        since = [when for when in (self._window.oldest, self._pinged) if when is not None]
        return now - min(since) if since else 0.0

    def is_late(self, now: float) -> bool:
        """Whether an answer is overdue; a datagram that is sent now may wait behind a retransmission."""
        rtt = self.rtt if self.rtt is not None else UNKNOWN_RTT
        return self.waited(now) > max(2 * rtt, rtt + RETRANSMISSION_MARGIN)

    def _greet(self, hello: Frame) -> None:
        if hello.kind != frame.HELLO:
            raise ProtocolError(f"the first frame is of kind {hello.kind}, not a hello")
        versions = frame.body(hello).get("versions")
        if not isinstance(versions, list) or frame.PROTOCOL_VERSION not in versions:
            theirs = [version for version in versions if isinstance(version, int)] if isinstance(versions, list) else []
            raise ProtocolError(f"the peer speaks versions {theirs[:8]}, this side {frame.PROTOCOL_VERSION}")
        self.greeted = True

    def _pong(self, now: float) -> None:
        if self._pinged is None:
            raise ProtocolError("the peer answers a ping that was never sent")
        self._ping_rtt, self._pinged = now - self._pinged, None
