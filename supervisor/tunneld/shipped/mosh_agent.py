"""The far agent: the end of a pair beside mosh-server, on a machine where nothing of ours is installed.

`tunneld mosh` starts it over SSH from its source text (see tunneld.shipped.pack), in two stages: the first is short
and starts mosh-server (tunneld.shipped.start_mosh_server); this is the second. It outlives the SSH session:
another one joins through its door, and UDP paths need none. It ends with mosh-server, or when the client says that it
has ended.

    SERVING  {"key": "4NeCCgvZFe2RnPgrcU1PQw", "pid": 4712, "family": 6, "ssh_connection": "203.0.113.9 50000 ..."}
             or {"error": "a sentence", "code": "no-mosh-server"}, from the first stage; then from the second
             {"door": "/tmp/tunneld-far-4711-9f86d0/join", "host": "pi"}, or {"door": null, "why": "..."}
    SERVE    from the client: {"leave": true}, or {"relay": [["192.0.2.1", 40111], ...]}: places where packets may meet
    REPORT   {"ssh_connection": "..."} on a stream that joined; {"ended": true} on all when mosh-server has ended
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from typing import Any

from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.pair import Pair
from tunneld.core.stream import frame
from tunneld.core.stream.frame import ProtocolError
from tunneld.shipped.end_with_us import guard
from tunneld.shipped.join_socket import JoinSocket
from tunneld.shipped.pair_loop import FAMILIES, LOOPBACK, PairLoop
from tunneld.shipped.start_mosh_server import GREETING, Running

FIRST = "first"
"""The name of the stream that started the agent."""

NAME = re.compile(rb"[a-z0-9-]{1,32}")

MAX_STREAMS = 6
"""Two, as many that replace them, and two that are dead without anybody's knowing yet."""

LOOK_EVERY = 1.0
"""Seconds between two looks at mosh-server and at the streams."""

STALE = 60.0
"""Seconds without an answer after which a stream is closed, if another one was heard meanwhile."""

LAST_WORDS = 2.0
"""Seconds for mosh-server's last datagrams to reach the client."""

GRACE = 1.0
"""Seconds for mosh-server to end by itself after its client did; then it is told to."""

STUBBORN = 15.0
"""Seconds until a mosh-server that was told to end is left alone: it says goodbye for ten."""

MAX_NAMED = 8
"""STUN servers, or addresses of a relay."""


class MoshAgent:
    """One mosh-server, one pair, any number of SSH sessions one after the other."""

    def __init__(self, secret: bytes, running: Running) -> None:
        self.pairing = PairLoop(
            Pair(secret, time.monotonic(), is_client=False), message=self._hear, stream_lost=lambda name, why: None
        )
        self._running = running
        self._server: int | None = None  # a pidfd, where there are any
        self._has_ended = False
        self._end: float | None = None
        self._door: JoinSocket | None = None
        self._servers: list[UdpAddress] = []
        self._relay: list[UdpAddress] = []

    def run(self, fds: tuple[int, int]) -> None:
        """Serve from the first stream on, until there is nothing more to do."""
        self.pairing.open_local(self._running.family, self._running.port)
        self.pairing.add_stream(FIRST, *fds, keeper=self._running.keeper, said=len(GREETING))
        self._open_door()
        self._watch_server()
        self._look()
        if self._running.wanted.udp:
            self.pairing.call_at(time.monotonic(), self._open_udp)  # after the first words have been written
        try:
            self.pairing.run(lambda: self._end is not None and time.monotonic() >= self._end)
        finally:
            self._terminate()  # nobody could reach it any more
            if self._door:
                self._door.close()
            self.pairing.close()

    def _hear(self, stream: str, kind: int, body: dict[str, Any]) -> None:
        relay, servers = body.get("relay"), body.get("stun")
        if kind == frame.SERVE and isinstance(relay, list):
            self._meet(_addresses(relay))
        elif kind == frame.SERVE and isinstance(servers, list):
            self._servers = _addresses(servers)
            self._ask()
        elif kind == frame.SERVE and body.get("leave") is True:
            self._leave()
        else:
            raise ProtocolError("a client asks to meet, to ask or to leave, and for nothing else")

    # UDP

    def _open_udp(self) -> None:
        self._ask()
        self._seen_from(os.environ.get("SSH_CONNECTION", ""))
        self.pairing.open_udp()

    def _meet(self, relay: list[UdpAddress]) -> None:
        """A jump host's agent passes packets on, and says where it sees us."""
        self._relay = relay
        self._ask()
        self.pairing.offer_also(Candidate("relay", address) for address in relay)

    def _ask(self) -> None:
        """STUN servers that the client names, and a jump host's agent: where do you see us?"""
        self.pairing.pair.use_stun_servers([*self._servers, *self._relay], time.monotonic())

    def _seen_from(self, ssh_connection: str) -> None:
        """SSH_CONNECTION: the client's address and port, and ours, as sshd sees them."""
        words = ssh_connection.split()
        if len(words) == 4:
            self.pairing.pair.sees_peer([words[0].partition("%")[0]], time.monotonic())

    # Streams

    def _open_door(self) -> None:
        try:
            self._door = JoinSocket("far")
        except OSError as error:  # the session goes on, as long as this stream or a path does
            self.pairing.say(FIRST, frame.SERVING, {"door": None, "why": error.strerror or str(error)})
            return
        self.pairing.say(FIRST, frame.SERVING, {"door": self._door.path, "host": os.uname().nodename})
        self._watch_door()

    def _watch_door(self) -> None:
        if self._door:
            self.pairing.watch(self._door.socket.fileno(), self._admit)

    def _admit(self) -> None:
        assert self._door
        try:
            visitor = self._door.admit()
        except OSError:
            self.pairing.unwatch(self._door.socket.fileno())  # no file descriptor is left: look away for a while
            self.pairing.call_at(time.monotonic() + LOOK_EVERY, self._watch_door)
            return
        if visitor is None:
            return
        words, _, ssh_connection = visitor.words.partition(b"\0")
        if not NAME.fullmatch(words):
            visitor.turn_away()
            return
        name, known = words.decode(), ssh_connection.decode("ascii", "replace")
        self._make_room(name)
        self.pairing.add_stream(name, *visitor.fds, keeper=visitor.keeper.detach())
        self.pairing.say(name, frame.REPORT, {"ssh_connection": known})
        self._seen_from(known)

    def _make_room(self, name: str) -> None:
        """The stream that has waited longest for an answer gives way."""
        streams = self.pairing.pair.streams
        if name not in streams and len(streams) >= MAX_STREAMS:
            now = time.monotonic()
            self.pairing.drop_stream(max(streams, key=lambda name: streams[name].waited(now)))

    # Time

    def _look(self) -> None:
        now = time.monotonic()
        self.pairing.call_at(now + LOOK_EVERY, self._look)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # what stood before mosh-server
        if not _lives(self._running):
            self._server_ended()
        streams = self.pairing.pair.streams
        heard = max((stream.heard for stream in streams.values()), default=now)
        for name in [name for name, stream in streams.items() if stream.waited(now) > STALE and stream.heard < heard]:
            self.pairing.drop_stream(name)

    def _watch_server(self) -> None:
        """Hear of its end at once where the system can tell; `_look` notices it anyway."""
        if self._running.pid and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._server = os.pidfd_open(self._running.pid)
                self.pairing.watch(self._server, self._server_ended)

    def _server_ended(self) -> None:
        if self._server is not None:
            self.pairing.unwatch(self._server)
            os.close(self._server)
            self._server = None
        if self._has_ended:
            return
        self._has_ended = True
        for name in list(self.pairing.pair.streams):
            self.pairing.say(name, frame.REPORT, {"ended": True})
        self._leave_at(LAST_WORDS if self._end is None else 0.0)

    def _leave(self) -> None:
        """The client has ended: so does mosh-server, in a moment."""
        if self._has_ended:
            self._leave_at(0.0)
        elif self._end is None:
            self._leave_at(STUBBORN)
            self.pairing.call_at(time.monotonic() + GRACE, self._terminate)

    def _terminate(self) -> None:
        if self._running.pid and not self._has_ended:
            with contextlib.suppress(OSError):
                os.kill(self._running.pid, signal.SIGTERM)

    def _leave_at(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._end = end if self._end is None else min(self._end, end)
        self.pairing.call_at(end, lambda: None)


def _addresses(named: list[Any]) -> list[UdpAddress]:
    """The addresses that a client names; what is none is left out."""
    found = []
    for each in named[:MAX_NAMED]:
        with contextlib.suppress(TypeError, ValueError, OSError):
            host, port = each
            socket.inet_pton(FAMILIES[6 if ":" in host else 4], host)
            if type(port) is int and 0 < port < 65536:
                found.append(UdpAddress(host, port))
    return found


def _lives(running: Running) -> bool:
    """Its process does; where that is not known: its port cannot be had."""
    if running.pid is None:
        with socket.socket(FAMILIES[running.family], socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((LOOPBACK[running.family], running.port))
            except OSError:
                return True
            return False
    try:
        os.kill(running.pid, 0)
    except OSError:
        return False
    return True


def main(secret: bytes, running: Running) -> None:
    """Serve on standard input and output. The SSH session is one stream among others from now
    on: it may end, and what it gave us is let go."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    fds = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    os.chdir("/")
    with guard(running.pid) if running.pid else contextlib.nullcontext():
        far = MoshAgent(secret, running)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        far.run(fds)
