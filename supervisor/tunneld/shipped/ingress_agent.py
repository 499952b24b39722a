"""The relay's agent: the endpoint that a daemon starts there over SSH, where nothing of ours is installed.

It runs from its source text (see tunneld.shipped.pack) on Python 3.9 or newer with the standard library alone, holds
the ingress's UDP ports, and lives no longer than the SSH session that started it. It is a plain selector loop and not
asyncio, which would double its memory (docs/decisions/0002): one agent runs on the relay for each tunnel.

Further streams join through a Unix socket (tunneld.shipped.join_socket).
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
from tunneld.core.stream.names import CONTROL_STREAM
from tunneld.shipped.byte_stream import ByteStream
from tunneld.shipped.join_socket import JoinSocket, root
from tunneld.shipped.udp_sockets import batch

MAX_AGENT_STREAMS = 6
"""Two dedicated ones, twice as many while they are being replaced, and the control stream."""

LONGEST_STREAM_NAME = 64
"""Bytes: a longer name of a stream is cut."""

ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

SILENCE_AT_FIRST = 60.0
"""Seconds without a byte from the daemon after which the agent ends. This holds until SERVE gives the limit."""

LONGEST_SILENCE = 86400.0
"""Seconds. A daemon that asks for more has made a mistake."""

REPORT_EVERY = 5.0
"""Seconds between two reports of counters that have changed."""


class IngressAgent:
    """One ingress with its sockets and streams. `now` gives seconds of a steady clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ingress = Ingress()
        self._selector = selectors.DefaultSelector()
        self._streams: dict[str, ByteStream] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._join_socket: JoinSocket | None = None
        self._silence = SILENCE_AT_FIRST
        self._reported: dict[str, int] = {}
        self._next_report = 0.0

    def run(self, fds: tuple[int, int]) -> None:
        """Serve until the control stream ends, whose file descriptors are `fds`.

        Raises:
            ProtocolError: the daemon broke the protocol on the control stream, or has been silent for too long.
        """
        self._attach(CONTROL_STREAM, fds, None)
        try:
            while True:
                self._report()
                for stream in list(self._streams.values()):
                    self._write(stream)
                if CONTROL_STREAM not in self._streams:
                    return
                now = self._now()
                silent_too_long = max(carrier.heard for carrier in self._ingress.carriers.values()) + self._silence
                if now >= silent_too_long:
                    raise ProtocolError(f"the daemon has been silent for {self._silence:g} s")
                wake = min(filter(None, (self._ingress.deadline(), silent_too_long, now + REPORT_EVERY)))
                for key, mask in self._selector.select(max(0.0, wake - now)):
                    key.data(mask)
                self._apply(self._ingress.tick(self._now()))
        finally:
            if self._join_socket:
                self._join_socket.close()

    # Streams

    def _attach(self, name: str, fds: tuple[int, int], keeper: int | None) -> None:
        self._detach(name)
        self._ingress.attach(StreamCarrier(name, self._now(), dedicated=name != CONTROL_STREAM))
        stream = self._streams[name] = ByteStream(name, fds, keeper)
        stream.watch(self._selector, lambda: self._read(stream))

    def _detach(self, name: str) -> None:
        if name in self._streams:
            self._ingress.detach(name)
            self._streams.pop(name).close()

    def _read(self, stream: ByteStream) -> None:
        if self._streams.get(stream.name) is not stream:
            return  # an earlier event of the same round has ended it
        try:
            if data := stream.read():
                self._apply(self._ingress.receive(stream.name, data, self._now()))
            elif data is not None:
                self._detach(stream.name)
        except OSError:
            self._detach(stream.name)
        except ProtocolError:
            if stream.name == CONTROL_STREAM:
                raise
            self._detach(stream.name)
            self._ingress.counts["streams_malformed"] += 1

    def _write(self, stream: ByteStream) -> None:
        carrier = self._ingress.carriers[stream.name]
        try:
            stream.write(lambda: carrier.outgoing(self._now()))
            if not carrier.is_choked:
                return
        except OSError:
            pass
        self._detach(stream.name)

    # What the daemon asks for

    def _apply(self, events: list[EndpointEvent]) -> None:
        for event in events:
            if isinstance(event, DeliverOnFlow):
                self._deliver(event)
            elif isinstance(event, Message) and event.kind == frame.SERVE:
                self._say(frame.SERVING, self._serve(event.body))

    def _serve(self, body: dict[str, Any]) -> dict[str, Any]:
        """Open the ingress as the daemon asks: {"bind": address, "ports": [first, last], "silence": seconds}.

        Returns:
            The body of SERVING: where to join, or an error.

        Raises:
            ProtocolError: the daemon has asked before, or not as it should.
        """
        if self._sockets:
            raise ProtocolError("SERVE came twice")
        bind, ports, self._silence = _read_serve(body)
        for port in ports:
            try:
                self._listen(bind, port)
            except (OSError, ValueError) as error:  # ValueError: it is no address, but holds a zero byte, say
                return {"error": f"UDP port {port} on {bind}: {getattr(error, 'strerror', None) or error}"}
        try:
            self._join_socket = JoinSocket("agent")
        except OSError as error:
            return {"error": f"no Unix socket in {root()}: {error.strerror or error}"}
        self._watch_join_socket()
        return {"join": self._join_socket.path}

    def _listen(self, bind: str, port: int) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
        )[0]
        sock = socket.socket(family, kind, protocol)
        self._sockets[port] = sock
        sock.setblocking(False)
        sock.bind(address)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._arrive(sock, port))

    def _watch_join_socket(self) -> None:
        if self._join_socket and self._join_socket.socket not in self._selector.get_map():
            self._selector.register(self._join_socket.socket, selectors.EVENT_READ, lambda _: self._admit())

    def _admit(self) -> None:
        assert self._join_socket
        try:
            joiner = self._join_socket.admit()
        except OSError:
            # No file descriptor is left for a process that waits to join: look away until the next report.
            self._selector.unregister(self._join_socket.socket)
            return
        if joiner is None:
            return
        if joiner.words.startswith(b"stream-") and len(self._streams) < MAX_AGENT_STREAMS:
            self._attach(joiner.words[:LONGEST_STREAM_NAME].decode("ascii", "replace"), joiner.fds, joiner.keeper)
        else:
            joiner.turn_away()

    # Datagrams

    def _arrive(self, sock: socket.socket, port: int) -> None:
        for datagram, peer in batch(lambda: sock.recvfrom(MAX_DATAGRAM + 1)):
            self._apply(self._ingress.arrive(port, peer, datagram, self._now(), source=_source(peer)))

    def _deliver(self, event: DeliverOnFlow) -> None:
        try:
            self._sockets[event.flow.port].sendto(event.datagram, event.flow.peer)
        except OSError:
            self._ingress.counts["datagrams_unsendable"] += 1

    # Words

    def _say(self, kind: int, body: dict[str, Any]) -> None:
        if CONTROL_STREAM in self._streams:  # it may have ended earlier in the same round
            self._ingress.carriers[CONTROL_STREAM].say(frame.message(kind, body))

    def _report(self) -> None:
        now = self._now()
        if now < self._next_report:
            return
        self._next_report = now + REPORT_EVERY
        self._watch_join_socket()
        counters = self._ingress.counters()
        if counters != self._reported:
            self._reported = counters
            self._say(frame.REPORT, counters)


def _read_serve(body: dict[str, Any]) -> tuple[str, range, float]:
    """The address to bind to, the ports and the seconds of silence in the body of a SERVE.

    Raises:
        ProtocolError: one of them is missing or out of bounds.
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
    """What counts as one source of datagrams: an IPv4 address, or an IPv6 network of 64 bits, such as a home has."""
    host: str = peer[0]
    if ":" not in host or host.startswith("::ffff:"):
        return host
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]


def _leave(*_: object) -> None:
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleaning up
    sys.exit(0)


def main() -> None:
    """Serve on standard input and output. If the agent ends by a fault, the last line on standard error tells it."""
    for number in ENDINGS:
        signal.signal(number, _leave)
    try:
        IngressAgent().run((os.dup(0), os.dup(1)))
    except ProtocolError as error:
        sys.exit(f"tunneld agent: {error}")
