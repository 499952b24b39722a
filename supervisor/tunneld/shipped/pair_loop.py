"""The loop that drives a Pair: its streams, mosh's local socket, and UDP sockets toward other machines.

Both ends of `tunneld mosh` run it, the far one from its source text on whatever Python is there: a selector loop on the
standard library alone, as in ingress_agent.py. It prints nothing and decides nothing. Its owner says which streams
there are, hears what the peer says and which streams have ended, and may have the loop wait for other things as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.outbox import OutgoingPacket
from tunneld.core.pair.pair import Deliver, Event, Gather, Pair, StreamMessage
from tunneld.core.sleep_watch import SleepWatch
from tunneld.core.stream import frame
from tunneld.core.stream.flow import MAX_DATAGRAM
from tunneld.core.stream.frame import ProtocolError
from tunneld.shipped import own_addresses
from tunneld.shipped.byte_stream import ByteStream
from tunneld.shipped.selector_loop import SelectorLoop
from tunneld.shipped.start_mosh_server import LOOPBACK_HOSTS
from tunneld.shipped.udp_sockets import ADDRESS_FAMILIES, LONGEST_PACKET, batch, bound_everywhere

NETWORK_LOOK_EVERY = 1.0
"""Seconds between two looks at this machine's addresses and at whether it slept, each of which takes a few system
calls."""

FULL = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS}
"""Errors of a socket that takes nothing now (macOS says ENOBUFS): the packet is lost, and nothing is wrong."""


class PairLoop(SelectorLoop):
    """One end of a pair, and everything that it reads and writes.

    `message(stream, kind, body)` is called with what the peer says that is not the pair's own. It may raise a
    ProtocolError, which ends the stream. `stream_lost(name, why)` is called when a stream has ended that its owner did
    not drop; `moved`, which the owner may set, when the network has changed or the machine has slept. `now` gives
    seconds of a steady clock.
    """

    def __init__(
        self,
        pair: Pair,
        *,
        message: Callable[[str, int, dict[str, Any]], None],
        stream_lost: Callable[[str, str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(now)
        self.pair = pair
        self.moved: Callable[[], None] = lambda: None
        self._message = message
        self._stream_lost = stream_lost
        self._streams: dict[str, ByteStream] = {}
        self._local: socket.socket | None = None
        self._mosh: Any = None  # the address that mosh-client spoke from last
        self._sockets: dict[str, socket.socket] = {}
        self._also_offered: list[Candidate] = []
        self._sleep_watch: SleepWatch | None = None
        self._signature: object = None

    # Streams

    def add_stream(self, name: str, read_fd: int, write_fd: int, *, keeper: int | None = None, said: int = 0) -> None:
        """Take a stream to the peer; a living stream of this name is dropped.

        The file descriptors are ours from now on; `keeper` is as of ByteStream. `said` is the number of bytes that
        somebody else has already written at the beginning of what this end says.
        """
        self.drop_stream(name)
        stream = self._streams[name] = ByteStream(name, (read_fd, write_fd), keeper)
        self.pair.attach(name, self._now())
        stream.unwritten = self.pair.outgoing(name, self._now())[said:]
        stream.watch(self._selector, lambda: self._read(stream))

    def drop_stream(self, name: str) -> None:
        """Close a stream, if there is one of this name; `stream_lost` is not called."""
        if stream := self._streams.pop(name, None):
            self.pair.detach(name)
            stream.close()

    def say(self, name: str, kind: int, body: dict[str, Any]) -> None:
        """Send a message on a stream, if there still is one of this name."""
        if name in self._streams:
            self.pair.streams[name].say(frame.message(kind, body))

    # Sockets

    def open_local(self, family: int, server: int | None = None) -> int:
        """Open mosh's local socket on the loopback of this family, 4 or 6.

        `server` is mosh-server's port, the only one that is then listened to. Without it there is a mosh-client, which
        changes its port now and then: the port from which a process of this user spoke last is answered.

        Returns:
            The socket's own port.

        Raises:
            OSError: this machine has no such loopback.
        """
        sock = socket.socket(ADDRESS_FAMILIES[family], socket.SOCK_DGRAM)
        try:
            sock.bind((LOOPBACK_HOSTS[family], 0))
            if server is not None:
                sock.connect((LOOPBACK_HOSTS[family], server))
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self._local = sock
        self.watch(sock, lambda: self._read_mosh(sock, server is None))
        port: int = sock.getsockname()[1]
        return port

    def open_udp(self) -> None:
        """Open a socket for paths in each family that this machine has, and offer the machine's addresses."""
        for family in ADDRESS_FAMILIES:
            with contextlib.suppress(OSError):
                self._open_udp(str(family), family)
        self.watch_network()
        self._gather()

    def close_udp(self) -> None:
        """Close the sockets for paths, and give up the paths that used them."""
        for local, sock in self._sockets.items():
            self.unwatch(sock)
            sock.close()
            self.pair.shut(local, self._now())
        self._sockets.clear()

    def offer_also(self, candidates: Iterable[Candidate]) -> None:
        """Offer addresses beside the machine's own (a router's mapping, a relay), in the place of former ones."""
        self._also_offered = list(candidates)
        self._gather()

    def watch_network(self) -> None:
        """Notice from now on when this machine's addresses or routes change, and when it has slept."""
        if self._sleep_watch is None:
            self._sleep_watch = SleepWatch(NETWORK_LOOK_EVERY, self._now(), own_addresses.slept())
            self._signature = own_addresses.signature()
            self.call_at(self._now() + NETWORK_LOOK_EVERY, self._look)

    # The loop

    def run(self, until: Callable[[], bool]) -> None:
        """Drive the pair until `until` gives true; it is asked each time that something has happened."""
        while not until():
            self._flush()
            self.wait(self.pair.deadline())
            self._apply(self.pair.tick(self._now()))
        self._flush()

    def close(self) -> None:
        """Close everything that was opened here or handed over."""
        for name in list(self._streams):
            self.drop_stream(name)
        self.close_udp()
        if self._local:
            self._local.close()
        super().close()

    def _apply(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Deliver):
                self._deliver(event.datagram)
            elif isinstance(event, StreamMessage):
                self._message(*event)
            elif isinstance(event, Gather):
                self._gather()

    def _flush(self) -> None:
        self._send_packets(self.pair.packets(self._now()))
        for stream in list(self._streams.values()):
            if self._streams.get(stream.name) is stream:  # the last words of an earlier stream may have ended it
                self._write(stream)

    def _send_packets(self, packets: list[OutgoingPacket]) -> None:
        for packet in packets:
            if packet.local not in self._sockets:
                continue
            try:
                self._sockets[packet.local].sendto(packet.data, tuple(packet.remote))
            except OSError as error:
                if error.errno not in FULL:
                    self.pair.unsendable(packet.local, packet.remote, self._now())

    # What comes and goes on streams

    def _lose(self, stream: ByteStream, why: str) -> None:
        if self._streams.get(stream.name) is stream:
            self.drop_stream(stream.name)
            self._stream_lost(stream.name, why)

    def _read(self, stream: ByteStream) -> None:
        try:
            data = stream.read()
        except OSError as error:
            self._lose(stream, os.strerror(error.errno or 0))
            return
        try:
            if data:
                self._apply(self.pair.receive(stream.name, data, self._now()))
            elif data is not None:
                self._lose(stream, "it ended")
        except ProtocolError as error:
            self._lose(stream, str(error))

    def _write(self, stream: ByteStream) -> None:
        try:
            stream.write(lambda: self.pair.outgoing(stream.name, self._now()))
        except OSError as error:
            self._read(stream)  # its last words say more than the error does
            self._lose(stream, os.strerror(error.errno or 0))
            return
        if self.pair.streams[stream.name].is_choked:
            self._lose(stream, "it does not read what it asks for")

    # Datagrams

    def _read_mosh(self, sock: socket.socket, is_client: bool) -> None:
        for datagram, source in batch(lambda: sock.recvfrom(MAX_DATAGRAM + 1)):
            if is_client and source != self._mosh:
                if not own_addresses.is_own_port(sock.family, source[1]):
                    continue
                self._mosh = source
            self.pair.send(datagram, self._now())
            self._send_packets(self.pair.ready())  # a person waits: do not read on or write streams first

    def _deliver(self, datagram: bytes) -> None:
        if self._local is None:
            return
        with contextlib.suppress(OSError):  # mosh does not listen yet, or no more
            if self._mosh is None:
                self._local.send(datagram)
            else:
                self._local.sendto(datagram, self._mosh)

    def _open_udp(self, local: str, family: int) -> None:
        sock = self._sockets[local] = bound_everywhere(family)
        self.watch(sock, lambda: self._read_packets(local, sock))
        self.pair.open(local, family, sock.getsockname()[1], self._now())

    def _read_packets(self, local: str, sock: socket.socket) -> None:
        for packet, source in batch(lambda: sock.recvfrom(LONGEST_PACKET)):
            remote = UdpAddress(source[0].partition("%")[0], source[1])
            self._apply(self.pair.arrive(local, remote, packet, self._now()))

    # Addresses

    def _gather(self) -> None:
        """Offer all addresses at which the peer may try to reach the sockets for paths."""
        if not self._sockets:
            return
        ports = {int(local): sock.getsockname()[1] for local, sock in self._sockets.items()}
        mine = [(host, ports.get(6 if ":" in host else 4)) for host in own_addresses.own()]
        lan = [Candidate("lan", UdpAddress(host, port)) for host, port in mine if port]
        self.pair.offer([*self._also_offered, *lan], self._now())

    def _look(self) -> None:
        """See whether this machine's addresses or routes have changed, or whether it slept."""
        assert self._sleep_watch
        now, before, self._signature = self._now(), self._signature, own_addresses.signature()
        self.call_at(now + NETWORK_LOOK_EVERY, self._look)
        if self._sleep_watch.missed_time(now, own_addresses.slept()) or self._signature != before:
            self._apply(self.pair.moved(now))
            self.moved()
