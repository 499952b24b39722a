"""The agent: the endpoint that a daemon starts on a relay over SSH, where nothing of ours is installed.

It runs from its source text (see tunneld.shipped.pack) on Python 3.9 or newer with the standard library alone, holds
the ingress's UDP ports, and lives no longer than the SSH session that started it. A plain selector loop, not asyncio:
half the memory (docs/decisions/0002), and one of it runs on the relay for each tunnel.

Further streams come in through a door (tunneld.shipped.join_socket).
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.endpoint import DeliverOnFlow, EndpointEvent, Ingress, Message
from tunneld.core.stream.flow import MAX_DATAGRAM
from tunneld.core.stream.frame import ProtocolError
from tunneld.shipped.join_socket import JoinSocket, root

CONTROL = "control"
"""The name of the first stream, whose end is the agent's."""

MAX_STREAMS = 6
"""Two dedicated ones, as many again that are being replaced, and the control stream."""

LONGEST_NAME = 64
"""Bytes of a stream's name that count."""

MAX_UNWRITTEN = 64 * 1024
"""Bytes that wait for a stream that does not take them, before its carrier is asked for no more."""

ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

BATCH = 64
"""Datagrams read from one socket before the others have their turn."""

LONGEST_SILENCE = 86400.0
"""Seconds: a daemon that asks for more has made a mistake."""

REPORT_EVERY = 5.0
"""Seconds between two reports of counters that changed."""


class Stream:
    """A carrier's two file descriptors. `keeper` is the connection whose end tells the far process to leave."""

    def __init__(self, carrier: StreamCarrier, fds: tuple[int, int], keeper: socket.socket | None = None) -> None:
        self.carrier = carrier
        self.source, self.sink = fds
        self.keeper = keeper
        self.unwritten = b""
        self.is_waiting = False
        for fd in fds:
            os.set_blocking(fd, False)

    def close(self) -> None:
        os.close(self.source)
        os.close(self.sink)
        if self.keeper:
            self.keeper.close()


class IngressAgent:
    """One ingress, its sockets and its streams."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ingress = Ingress()
        self._selector = selectors.DefaultSelector()
        self._streams: dict[str, Stream] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._door: JoinSocket | None = None
        self._silence = 60.0
        self._reported: dict[str, int] = {}
        self._next_report = 0.0

    def run(self, fds: tuple[int, int]) -> None:
        """Serve until the control stream ends or the daemon has been silent for too long.

        Raises:
            ProtocolError: the daemon broke the protocol on the control stream.
        """
        self._attach(CONTROL, fds, None)
        try:
            while True:
                self._report()
                for stream in list(self._streams.values()):
                    self._flush(stream)
                if CONTROL not in self._streams:
                    return
                now = self._now()
                last_word = max(stream.carrier.heard for stream in self._streams.values()) + self._silence
                if now >= last_word:
                    raise ProtocolError(f"the daemon has been silent for {self._silence:g} s")
                wake = min(filter(None, (self._ingress.deadline(), last_word, now + REPORT_EVERY)))
                for key, mask in self._selector.select(max(0.0, wake - now)):
                    key.data(mask)
                self._apply(self._ingress.tick(self._now()))
        finally:
            if self._door:
                self._door.close()

    # Streams

    def _attach(self, name: str, fds: tuple[int, int], keeper: socket.socket | None) -> None:
        self._detach(name)
        stream = Stream(StreamCarrier(name, self._now(), dedicated=name != CONTROL), fds, keeper)
        self._streams[name] = stream
        self._ingress.attach(stream.carrier)
        self._selector.register(stream.source, selectors.EVENT_READ, lambda _: self._read(stream))

    def _detach(self, name: str) -> None:
        stream = self._streams.pop(name, None)
        if stream is None:
            return
        self._ingress.detach(name)
        self._selector.unregister(stream.source)
        if stream.is_waiting:
            self._selector.unregister(stream.sink)
        stream.close()

    def _read(self, stream: Stream) -> None:
        if self._streams.get(stream.carrier.name) is not stream:
            return  # detached by an earlier event of the same round
        try:
            data = os.read(stream.source, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._detach(stream.carrier.name)
            return
        try:
            self._apply(self._ingress.receive(stream.carrier.name, data, self._now()))
        except ProtocolError:
            if stream.carrier.name == CONTROL:
                raise
            self._detach(stream.carrier.name)
            self._ingress.counts["streams_malformed"] += 1

    def _flush(self, stream: Stream) -> None:
        try:
            if len(stream.unwritten) < MAX_UNWRITTEN:
                stream.unwritten += stream.carrier.outgoing(self._now())
            while stream.unwritten:
                stream.unwritten = stream.unwritten[os.write(stream.sink, stream.unwritten) :]
        except BlockingIOError:
            pass
        except OSError:
            self._detach(stream.carrier.name)
            return
        if stream.carrier.is_choked:
            self._detach(stream.carrier.name)
            return
        if bool(stream.unwritten) != stream.is_waiting:
            stream.is_waiting = not stream.is_waiting
            if stream.is_waiting:
                self._selector.register(stream.sink, selectors.EVENT_WRITE, lambda _: None)
            else:
                self._selector.unregister(stream.sink)

    # What the daemon asks for

    def _apply(self, events: list[EndpointEvent]) -> None:
        for event in events:
            if isinstance(event, DeliverOnFlow):
                self._deliver(event)
            elif isinstance(event, Message) and event.kind == frame.SERVE:
                self._say(frame.SERVING, self._serve(event.body))

    def _serve(self, body: dict[str, Any]) -> dict[str, Any]:
        """Open the ingress: {"bind": address, "ports": [first, last], "silence": seconds}."""
        if self._sockets:
            raise ProtocolError("SERVE came twice")
        bind, ports, self._silence = _read_serve(body)
        for port in ports:
            try:
                self._listen(bind, port)
            except (OSError, ValueError) as error:  # ValueError: no address at all, such as one with a zero byte in it
                return {"error": f"UDP port {port} on {bind}: {getattr(error, 'strerror', None) or error}"}
        try:
            self._door = JoinSocket("agent")
        except OSError as error:
            return {"error": f"no Unix socket in {root()}: {error.strerror or error}"}
        self._watch_door()
        return {"join": self._door.path}

    def _listen(self, bind: str, port: int) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
        )[0]
        sock = socket.socket(family, kind, protocol)
        self._sockets[port] = sock
        sock.setblocking(False)
        sock.bind(address)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._arrive(sock, port))

    def _watch_door(self) -> None:
        if self._door and self._door.socket not in self._selector.get_map():
            self._selector.register(self._door.socket, selectors.EVENT_READ, lambda _: self._admit())

    def _admit(self) -> None:
        assert self._door
        try:
            visitor = self._door.admit()
        except OSError:
            # No file descriptor is left, and whoever knocks goes on knocking: look away until the next report.
            self._selector.unregister(self._door.socket)
            return
        if visitor is None:
            return
        if visitor.words.startswith(b"stream-") and len(self._streams) < MAX_STREAMS:
            self._attach(visitor.words[:LONGEST_NAME].decode("ascii", "replace"), visitor.fds, visitor.keeper)
        else:
            visitor.turn_away()

    # Datagrams

    def _arrive(self, sock: socket.socket, port: int) -> None:
        for _ in range(BATCH):
            try:
                datagram, peer = sock.recvfrom(MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP answer to something that we sent
            self._apply(self._ingress.arrive(port, peer, datagram, self._now(), source=_source(peer)))

    def _deliver(self, event: DeliverOnFlow) -> None:
        try:
            self._sockets[event.flow.port].sendto(event.datagram, event.flow.peer)
        except OSError:
            self._ingress.counts["datagrams_unsendable"] += 1

    # Words

    def _say(self, kind: int, body: dict[str, Any]) -> None:
        if CONTROL in self._streams:  # not so when it ended earlier in the same round
            self._streams[CONTROL].carrier.say(frame.message(kind, body))

    def _report(self) -> None:
        now = self._now()
        if now < self._next_report:
            return
        self._next_report = now + REPORT_EVERY
        self._watch_door()
        counters = self._ingress.counters()
        if counters != self._reported:
            self._reported = counters
            self._say(frame.REPORT, counters)


def _read_serve(body: dict[str, Any]) -> tuple[str, range, float]:
    """The address, the ports and the seconds in a SERVE.

    Raises:
        ProtocolError: something is missing or not what it should be.
    """
    bind, ports, silence = body.get("bind"), body.get("ports"), body.get("silence")
    if not isinstance(bind, str) or not isinstance(ports, list) or not isinstance(silence, (int, float)):
        raise ProtocolError("SERVE lacks bind, ports or silence")
    if [type(port) for port in ports] != [int, int] or not 0 < ports[0] <= ports[1] < 65536:
        raise ProtocolError("SERVE's ports are not a first and a last one")
    if not 0 < silence <= LONGEST_SILENCE:
        raise ProtocolError("SERVE's silence is out of bounds")
    return bind, range(ports[0], ports[1] + 1), silence


def _source(peer: tuple[Any, ...]) -> object:
    """What counts as one source: an IPv4 address, or the /64 that an IPv6 network hands to one home."""
    host: str = peer[0]
    if ":" not in host or host.startswith("::ffff:"):
        return host
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]


def _leave(*_: object) -> None:
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
    sys.exit(0)


def main() -> None:
    """Serve on standard input and output; the last line on standard error says why it ended, if by a fault."""
    for number in ENDINGS:
        signal.signal(number, _leave)
    try:
        IngressAgent().run((os.dup(0), os.dup(1)))
    except ProtocolError as error:
        sys.exit(f"tunneld agent: {error}")
