"""The loop that drives a Pair: streams as file descriptors, mosh's local socket, UDP sockets toward other machines.

Both ends of `tunneld mosh` run it, the far one from its source text on whatever Python is there: a selector loop on the
standard library alone, as in ingress_agent.py. It prints nothing and decides nothing; whoever holds it says which
streams there are, is told what the peer says and which streams ended, and may watch file descriptors and the clock
through it.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.outbox import OutgoingPacket
from tunneld.core.pair.pair import Deliver, Event, Gather, Pair, StreamMessage
from tunneld.core.stream import frame
from tunneld.core.stream.flow import MAX_DATAGRAM
from tunneld.core.stream.frame import ProtocolError
from tunneld.shipped import own_addresses, start_mosh_server

LOOPBACK = start_mosh_server.LOOPBACK
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

MAX_PACKET = 2048
"""Bytes to read of one packet: more than any of ours, and than any that Ethernet carries whole."""

BATCH = 64
"""Datagrams read from one socket before the others have their turn."""

LOOK_EVERY = 1.0
"""Seconds between two looks at this machine's addresses, and at whether it slept: a call of the kernel each."""

ASLEEP = 2.0
"""Seconds that a machine must have slept to count: NATs and peers have noticed nothing before."""

LATE = 3.0
"""Seconds by which a look must be late to count as sleep that the system does not tell of: the process was stopped, or
a virtual machine paused. A busy machine is late as well, but not by that much."""

FULL = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS}
"""A socket that takes nothing now (ENOBUFS: macOS's word for it): the packet is lost, and nothing is wrong."""


class Stream:
    """A stream's two file descriptors, which may be one. `keeper`, a third, is closed with them."""

    def __init__(self, name: str, fds: tuple[int, int], keeper: int | None) -> None:
        self.name = name
        self.source, self.sink = fds
        self.keeper = keeper
        self.unwritten = b""
        self.is_waiting = False
        for fd in fds:
            os.set_blocking(fd, False)

    def close(self) -> None:
        for fd in {self.source, self.sink}:
            os.close(fd)
        if self.keeper is not None:
            os.close(self.keeper)


class PairLoop:
    """One end of a pair and everything that it reads and writes.

    `message(stream, kind, body)` is called with what the peer says that is not the pair's own (it may raise a
    ProtocolError, which ends the stream); `stream_lost(name, why)` when a stream has ended that was not dropped.
    """

    def __init__(
        self,
        pair: Pair,
        *,
        message: Callable[[str, int, dict[str, Any]], None],
        stream_lost: Callable[[str, str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pair = pair
        self._message = message
        self._stream_lost = stream_lost
        self._now = now
        self._selector = selectors.DefaultSelector()
        self._streams: dict[str, Stream] = {}
        self._local: socket.socket | None = None
        self._mosh: Any = None
        self._sockets: dict[str, socket.socket] = {}
        self._mapped: list[Candidate] = []
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self.moved: Callable[[], None] = lambda: None  # called when the network is another one, or the machine slept
        self._looked: float | None = None
        self._slept = 0.0
        self._signature: object = None

    # Streams

    def add_stream(self, name: str, read_fd: int, write_fd: int, *, keeper: int | None = None, said: int = 0) -> None:
        """A stream to the peer, whose file descriptors are ours from now on; a living one of this name is dropped.

        `said`: so many of its first bytes have been written by somebody else.
        """
        self.drop_stream(name)
        stream = self._streams[name] = Stream(name, (read_fd, write_fd), keeper)
        self.pair.attach(name, self._now())
        stream.unwritten = self.pair.outgoing(name, self._now())[said:]
        self._selector.register(read_fd, selectors.EVENT_READ, lambda _: self._read(stream))

    def drop_stream(self, name: str) -> None:
        """Close a stream, if there is one; `stream_lost` is not called."""
        stream = self._streams.pop(name, None)
        if stream is None:
            return
        self.pair.detach(name)
        self._selector.unregister(stream.source)
        if stream.is_waiting and stream.sink != stream.source:
            self._selector.unregister(stream.sink)
        stream.close()

    def say(self, name: str, kind: int, body: dict[str, Any]) -> None:
        """Send a message on a stream, if it still is there."""
        if name in self._streams:
            self.pair.streams[name].say(frame.message(kind, body))

    # Sockets

    def open_local(self, family: int, server: int | None = None) -> int:
        """Open mosh's local socket on the loopback of this family; its port.

        `server` is mosh-server's port, the only one that is then listened to. Without it, the process of this user that
        spoke last is answered: a mosh-client changes its port now and then.

        Raises:
            OSError: there is no such loopback.
        """
        sock = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
        try:
            sock.bind((LOOPBACK[family], 0))
            if server is not None:
                sock.connect((LOOPBACK[family], server))
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self._local = sock
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._hear_mosh(sock, server is None))
        port: int = sock.getsockname()[1]
        return port

    def open_udp(self) -> None:
        """Open a socket for paths in each family that this machine has, and offer its addresses."""
        for family in FAMILIES:
            with contextlib.suppress(OSError):
                self._open_udp(str(family), family)
        self.watch_network()
        self._gather()

    def close_udp(self) -> None:
        """Close them, and give up the paths that used them."""
        for local, sock in self._sockets.items():
            self._selector.unregister(sock)
            sock.close()
            self.pair.shut(local, self._now())
        self._sockets.clear()

    def offer_also(self, candidates: Iterable[Candidate]) -> None:
        """Addresses that this machine does not have by itself, instead of former ones: a router's mapping, a relay."""
        self._mapped = list(candidates)
        self._gather()

    def watch_network(self) -> None:
        """Notice from now on when this machine's addresses or routes are others, or when it slept."""
        if self._looked is None:
            self._note(self._now())

    # What else there is to wait for

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call this whenever there is something to read."""
        self._selector.register(fd, selectors.EVENT_READ, lambda _: callback())

    def unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call this once, then."""
        self._serial += 1
        heapq.heappush(self._alarms, (when, self._serial, callback))

    # The loop

    def run(self, until: Callable[[], bool]) -> None:
        """Drive the pair until this is true; it is asked after each thing that happens."""
        while not until():
            self._flush()
            wake = min([self.pair.deadline(), *[when for when, _, _ in self._alarms[:1]]])
            for key, mask in self._selector.select(max(0.0, wake - self._now())):
                now_there = self._selector.get_map().get(key.fd)
                if now_there and now_there.data is key.data:  # not so when an earlier one of this round ended it
                    key.data(mask)
            self._apply(self.pair.tick(self._now()))
            while self._alarms and self._alarms[0][0] <= self._now():
                heapq.heappop(self._alarms)[2]()
        self._flush()

    def close(self) -> None:
        """Close everything that was opened here or handed over."""
        for name in list(self._streams):
            self.drop_stream(name)
        self.close_udp()
        if self._local:
            self._local.close()
        self._selector.close()

    def _apply(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Deliver):
                self._deliver(event.datagram)
            elif isinstance(event, StreamMessage):
                self._message(*event)
            elif isinstance(event, Gather):
                self._gather()

    def _flush(self) -> None:
        self._depart(self.pair.packets(self._now()))
        for stream in list(self._streams.values()):
            if self._streams.get(stream.name) is stream:  # an earlier one's last words may have dropped it
                self._write(stream)

    def _depart(self, packets: list[OutgoingPacket]) -> None:
        for packet in packets:
            if packet.local not in self._sockets:
                continue
            try:
                self._sockets[packet.local].sendto(packet.data, tuple(packet.remote))
            except OSError as error:
                if error.errno not in FULL:
                    self.pair.unsendable(packet.local, packet.remote, self._now())

    # Streams

    def _lose(self, stream: Stream, why: str) -> None:
        if self._streams.get(stream.name) is stream:
            self.drop_stream(stream.name)
            self._stream_lost(stream.name, why)

    def _read(self, stream: Stream) -> None:
        try:
            data = os.read(stream.source, 65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(stream, os.strerror(error.errno or 0))
            return
        if not data:
            self._lose(stream, "it ended")
            return
        try:
            self._apply(self.pair.receive(stream.name, data, self._now()))
        except ProtocolError as error:
            self._lose(stream, str(error))

    def _write(self, stream: Stream) -> None:
        try:
            if not stream.unwritten:
                stream.unwritten = self.pair.outgoing(stream.name, self._now())
            while stream.unwritten:
                stream.unwritten = stream.unwritten[os.write(stream.sink, stream.unwritten) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._read(stream)  # its last words say more than that it is gone
            self._lose(stream, os.strerror(error.errno or 0))
            return
        if self.pair.streams[stream.name].is_choked:
            self._lose(stream, "it does not read what it asks for")
        elif bool(stream.unwritten) != stream.is_waiting:
            stream.is_waiting = not stream.is_waiting
            self._await_writing(stream)

    def _await_writing(self, stream: Stream) -> None:
        if stream.sink == stream.source:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if stream.is_waiting else 0)
            self._selector.modify(stream.source, events, lambda mask: self._ready(stream, mask))
        elif stream.is_waiting:
            self._selector.register(stream.sink, selectors.EVENT_WRITE, lambda _: None)
        else:
            self._selector.unregister(stream.sink)

    def _ready(self, stream: Stream, mask: int) -> None:
        if mask & selectors.EVENT_READ:
            self._read(stream)

    # Datagrams

    def _hear_mosh(self, sock: socket.socket, follows: bool) -> None:
        for _ in range(BATCH):
            try:
                datagram, source = sock.recvfrom(MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # mosh-server is not there any more; whoever started it knows
            if follows and source != self._mosh:
                if not own_addresses.is_own_port(sock.family, source[1]):
                    continue
                self._mosh = source
            self.pair.send(datagram, self._now())
            self._depart(self.pair.ready())  # a person waits for it: neither for the next datagram, nor for a stream

    def _deliver(self, datagram: bytes) -> None:
        if self._local is None:
            return
        try:
            if self._mosh is None:
                self._local.send(datagram)
            else:
                self._local.sendto(datagram, self._mosh)
        except OSError:
            return  # mosh is not there yet, or no more: it would be lost as well

    def _open_udp(self, local: str, family: int) -> None:
        sock = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
        try:
            if family == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::" if family == 6 else "0.0.0.0", 0))
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self._sockets[local] = sock
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._arrive(local, sock))
        self.pair.open(local, family, sock.getsockname()[1], self._now())

    def _arrive(self, local: str, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                packet, source = sock.recvfrom(MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP answer to something that we sent
            remote = UdpAddress(source[0].partition("%")[0], source[1])
            self._apply(self.pair.arrive(local, remote, packet, self._now()))

    # Addresses

    def _gather(self) -> None:
        if not self._sockets:
            return
        ports = {int(local): sock.getsockname()[1] for local, sock in self._sockets.items()}
        mine = [(host, ports.get(6 if ":" in host else 4)) for host in own_addresses.own()]
        lan = [Candidate("lan", UdpAddress(host, port)) for host, port in mine if port]
        self.pair.offer([*self._mapped, *lan], self._now())

    def _look(self) -> None:
        """See whether this machine's addresses or routes are others now, or whether it slept."""
        now, looked, slept, signature = self._now(), self._looked, self._slept, self._signature
        self._note(now)
        assert looked is not None
        if self._signature != signature or self._slept - slept > ASLEEP or now - looked - LOOK_EVERY > LATE:
            self._apply(self.pair.moved(now))
            self.moved()

    def _note(self, now: float) -> None:
        self._looked, self._slept, self._signature = now, own_addresses.slept(), own_addresses.signature()
        self.call_at(now + LOOK_EVERY, self._look)
