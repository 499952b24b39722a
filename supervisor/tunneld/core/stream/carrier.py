"""A stream carrier: frames, credit and a queue over one byte stream, as a machine that does no input or output.

The first frame each way is HELLO; then DATAGRAM frames go out as far as the peer's acknowledgements allow, everything
else at once. Give it bytes with `receive`, take bytes with `outgoing`.
"""

from __future__ import annotations

from tunneld.core.stream import frame
from tunneld.core.stream.frame import Frame, FrameDecoder, ProtocolError
from tunneld.core.stream.queue import DatagramQueue, Waiting
from tunneld.core.stream.window import SendWindow

PATIENCE = 0.1
"""Seconds beyond the usual round trip after which an answer is late: a TCP retransmission has begun."""

UNKNOWN_RTT = 1.0
"""Seconds that a round trip is taken for before the first was measured."""

MAX_CONTROL = 64 * 1024
"""Bytes of frames that may wait for a peer that does not read; more ends the carrier."""


class StreamCarrier:
    """One way to the other endpoint. `dedicated`: on an SSH connection that carries no forwards.

    `sent` and `received` count datagrams; times are seconds on any steady clock.
    """

    def __init__(self, name: str, now: float, *, dedicated: bool) -> None:
        self.name = name
        self.dedicated = dedicated
        self.sent = 0
        self.received = 0
        self.heard = now
        self.greeted = False
        self._credit = SendWindow()
        self._queue = DatagramQueue()
        self._decoder = FrameDecoder()
        self._control = bytearray(frame.PREAMBLE)
        self._pinged: float | None = None
        self._rtt: float | None = None
        self.say(frame.message(frame.HELLO, {"versions": [frame.VERSION]}))

    def receive(self, data: bytes, now: float) -> list[Frame]:
        """Take bytes from the stream; give the frames that concern the endpoint.

        Raises:
            ProtocolError: the peer broke the protocol; the carrier is of no more use.
        """
        self.heard = now
        mine = []
        before = self.received
        for received in self._decoder.feed(data):
            if not self.greeted:
                self._greet(received)
            elif received.kind == frame.ACK:
                if not self._credit.acknowledge(received.number, now):
                    raise ProtocolError("the peer acknowledges datagrams that were never sent")
            elif received.kind == frame.PING:
                self.say(Frame(frame.PONG, number=received.number))
            elif received.kind == frame.PONG:
                self._pong(now)
            else:
                self.received += received.kind == frame.DATAGRAM
                mine.append(received)
        if self.received != before:
            self.say(Frame(frame.ACK, number=self.received))
        return mine

    def say(self, control: Frame) -> None:
        """Send a frame that is not a datagram, ahead of all datagrams."""
        self._control += control.encode()

    def ping(self, now: float) -> None:
        """Measure the round trip, and let the peer hear that we live; nothing while the last ping has no answer."""
        if self._pinged is None:
            self._pinged = now
            self.say(Frame(frame.PING))

    def offer(self, waiting: Waiting) -> None:
        """Queue a datagram."""
        self._queue.push(waiting)

    def outgoing(self, now: float) -> bytes:
        """The bytes to write to the stream now."""
        data, self._control = self._control, bytearray()
        while self.greeted and self._credit.room and (waiting := self._queue.pop(now)):
            data += Frame(frame.DATAGRAM, waiting.flow, waiting.number, waiting.datagram).encode()
            self._credit.sent(now)
            self.sent += 1
        return bytes(data)

    @property
    def is_choked(self) -> bool:
        """The peer asks for more than it reads; the carrier is of no more use."""
        return len(self._control) > MAX_CONTROL

    def forget(self, flow: int) -> None:
        self._queue.forget(flow)

    @property
    def rtt(self) -> float | None:
        """Seconds, smoothed; None before anything was measured."""
        return self._credit.smoothed if self._credit.smoothed is not None else self._rtt

    @property
    def noise(self) -> bytes:
        """What the far side printed before it spoke the protocol, for error texts."""
        return self._decoder.noise if self.greeted else self._decoder.pending

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """Datagrams that were given up because they grew old or too many."""
        return self._queue.dropped

    def waited(self, now: float) -> float:
        """Seconds that the oldest unacknowledged datagram or ping has waited; 0 when none does."""
        since = [when for when in (self._credit.oldest, self._pinged) if when is not None]
        return now - min(since) if since else 0.0

    def is_late(self, now: float) -> bool:
        """An answer is overdue: what is sent now may wait behind a retransmission."""
        rtt = self.rtt if self.rtt is not None else UNKNOWN_RTT
        return self.waited(now) > max(2 * rtt, rtt + PATIENCE)

    def _greet(self, hello: Frame) -> None:
        if hello.kind != frame.HELLO:
            raise ProtocolError(f"the first frame is of kind {hello.kind}, not a hello")
        versions = frame.body(hello).get("versions")
        if not isinstance(versions, list) or frame.VERSION not in versions:
            theirs = [version for version in versions if isinstance(version, int)] if isinstance(versions, list) else []
            raise ProtocolError(f"the peer speaks versions {theirs[:8]}, this side {frame.VERSION}")
        self.greeted = True

    def _pong(self, now: float) -> None:
        if self._pinged is None:
            raise ProtocolError("the peer answers a ping that was never sent")
        self._rtt, self._pinged = now - self._pinged, None
