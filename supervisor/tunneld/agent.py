"""The agent: the endpoint that a daemon starts on a relay over SSH, where nothing of ours is installed.

It runs from its source text (see tunneld.ssh.bootstrap) on Python 3.9 or newer with the standard library alone, holds
the ingress's UDP ports, and lives no longer than the SSH session that started it. A plain selector loop, not asyncio:
half the memory (docs/decisions/0002), and one of it runs on the relay for each tunnel.

Further streams come in through a Unix socket in a folder that only this user can enter: a process that another SSH
session started passes its standard input and output on as file descriptors.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from tunneld.core import frame
from tunneld.core.carrier import StreamCarrier
from tunneld.core.endpoint import Deliver, Happening, Ingress, Message
from tunneld.core.flow import MAX_DATAGRAM
from tunneld.core.frame import ProtocolError

CONTROL = "control"
"""The name of the first stream, whose end is the agent's."""

MAX_STREAMS = 6
"""Two dedicated ones, as many again that are being replaced, and the control stream."""

MAX_UNWRITTEN = 64 * 1024
"""Bytes that wait for a stream that does not take them, before its carrier is asked for no more."""

FOLDER = "tunneld-"
"""How the name of an agent's private folder begins; its process id and some chance follow."""

LONGEST_ROOT = 70
"""Bytes: a Unix socket's path holds 107, of which our own names take up to 32."""

BATCH = 64
"""Datagrams read from one socket before the others have their turn."""

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


class Agent:
    """One ingress, its sockets and its streams."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ingress = Ingress()
        self._selector = selectors.DefaultSelector()
        self._streams: dict[str, Stream] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._folder: str | None = None
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
            self._close_door()

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

    def _apply(self, events: list[Happening]) -> None:
        for event in events:
            if isinstance(event, Deliver):
                self._deliver(event)
            elif isinstance(event, Message) and event.kind == frame.SERVE:
                self._say(frame.SERVING, self._serve(event.body))

    def _serve(self, body: dict[str, Any]) -> dict[str, Any]:
        """Open the ingress: {"bind": address, "ports": [first, last], "silence": seconds}."""
        if self._folder:
            raise ProtocolError("SERVE came twice")
        try:
            bind, (first, last) = str(body["bind"]), map(int, body["ports"])
            self._silence = float(body["silence"])
        except (KeyError, TypeError, ValueError):
            raise ProtocolError("SERVE lacks bind, ports or silence") from None
        for port in range(first, last + 1):
            try:
                self._listen(bind, port)
            except OSError as error:
                return {"error": f"UDP port {port} on {bind}: {error.strerror or error}"}
        try:
            return {"join": self._open_door()}
        except OSError as error:
            return {"error": f"no Unix socket in {self._folder}: {error.strerror or error}"}

    def _listen(self, bind: str, port: int) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
        )[0]
        sock = socket.socket(family, kind, protocol)
        self._sockets[port] = sock
        sock.setblocking(False)
        sock.bind(address)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._arrive(sock, port))

    def _open_door(self) -> str:
        """The Unix socket through which further streams come, in a folder that only this user can enter."""
        root = os.environ.get("TMPDIR") or "/tmp"
        if len(root) > LONGEST_ROOT:
            root = "/tmp"
        _sweep(root)
        self._folder = f"{root}/{FOLDER}{os.getpid()}-{os.urandom(4).hex()}"
        os.mkdir(self._folder, 0o700)
        path = f"{self._folder}/join"
        door = socket.socket(socket.AF_UNIX)
        door.bind(path)
        door.listen(MAX_STREAMS)
        door.setblocking(False)
        self._selector.register(door, selectors.EVENT_READ, lambda _: self._admit(door))
        return path

    def _close_door(self) -> None:
        if self._folder:
            _remove(self._folder)

    def _admit(self, door: socket.socket) -> None:
        try:
            keeper, _ = door.accept()
        except OSError:
            return
        keeper.settimeout(1.0)  # our own one-liner is at the other end, and it has already spoken
        try:
            name, fds, _, _ = socket.recv_fds(keeper, 64, 2)
        except OSError:
            name, fds = b"", []
        if len(fds) == 2 and name.startswith(b"stream-") and len(self._streams) < MAX_STREAMS:
            self._attach(name.decode("ascii", "replace"), (fds[0], fds[1]), keeper)
            return
        for fd in fds:
            os.close(fd)
        keeper.close()

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

    def _deliver(self, event: Deliver) -> None:
        try:
            self._sockets[event.flow.port].sendto(event.datagram, event.flow.peer)
        except OSError:
            self._ingress.counts["datagrams_unsendable"] += 1

    # Words

    def _say(self, kind: int, body: dict[str, Any]) -> None:
        self._streams[CONTROL].carrier.say(frame.message(kind, body))

    def _report(self) -> None:
        now = self._now()
        if now < self._next_report or CONTROL not in self._streams:
            return
        self._next_report = now + REPORT_EVERY
        counters = self._ingress.counters()
        if counters != self._reported:
            self._reported = counters
            self._say(frame.REPORT, counters)


def _sweep(root: str) -> None:
    """Remove what agents left behind that were killed."""
    for name in os.listdir(root):
        pid = name[len(FOLDER) :].partition("-")[0]
        if not name.startswith(FOLDER) or not pid.isdigit():
            continue
        try:
            is_ours = os.lstat(f"{root}/{name}").st_uid == os.geteuid()
            os.kill(int(pid), 0)
        except ProcessLookupError:
            if is_ours:
                _remove(f"{root}/{name}")
        except (OSError, OverflowError):
            continue


def _remove(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(f"{folder}/join")
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _source(peer: tuple[Any, ...]) -> object:
    """What counts as one source: an IPv4 address, or the /64 that an IPv6 network hands to one home."""
    host: str = peer[0]
    if ":" not in host or host.startswith("::ffff:"):
        return host
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]


def main() -> None:
    """Serve on standard input and output; the last line on standard error says why it ended, if by a fault."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        Agent().run((os.dup(0), os.dup(1)))
    except ProtocolError as error:
        sys.exit(f"tunneld agent: {error}")
