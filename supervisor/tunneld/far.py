"""The far agent: the end of a pair beside mosh-server, on a machine where nothing of ours is installed.

`tunneld mosh` starts it over SSH from its source text (see tunneld.ssh.bootstrap). It starts mosh-server on the
loopback and outlives the SSH session: another one joins through its door, and UDP paths need none. It ends with
mosh-server, when the client says that it has ended, or when nobody has asked for anything.

    SERVE    from the client: {"version": 1, "family": 6, "command": null, "locale": {"LANG": "de_DE.UTF-8"}, ...}
             or {"leave": true}
    SERVING  the answer: {"key": "4NeCCgvZFe2RnPgrcU1PQw", "door": "/tmp/tunneld-far-4711-9f86d081/join", ...}
             or {"error": "a sentence", "code": "no-mosh-server"}
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

from tunneld import mosh_server
from tunneld.core import frame
from tunneld.core.frame import ProtocolError
from tunneld.core.pair import Pair
from tunneld.core.path import Address
from tunneld.door import Door
from tunneld.mosh_server import Refused, Running
from tunneld.pairing import LOOPBACK, Pairing

VERSION = 1

FIRST = "first"
"""The name of the stream that started the agent."""

NAME = re.compile(rb"[a-z0-9-]{1,32}")

MAX_STREAMS = 6
"""Two, as many that replace them, and two that are dead without anybody's knowing yet."""

LOOK_EVERY = 1.0
"""Seconds between two looks at mosh-server and at the streams."""

UNASKED = 60.0
"""Seconds until an agent that was asked for nothing leaves, like a mosh-server to which nobody comes."""

STALE = 60.0
"""Seconds without an answer after which a stream is closed, if another one was heard meanwhile."""

LAST_WORDS = 2.0
"""Seconds for mosh-server's last datagrams to reach the client."""

GRACE = 1.0
"""Seconds for mosh-server to end by itself after its client did; then it is told to."""

STUBBORN = 15.0
"""Seconds until a mosh-server that was told to end is left alone: it says goodbye for ten."""

MAX_STUN = 8


class Far:
    """One mosh-server, one pair, any number of SSH sessions one after the other."""

    def __init__(self, secret: bytes, environment: dict[str, str]) -> None:
        self._environment = environment
        self.pairing = Pairing(
            Pair(secret, time.monotonic(), is_client=False), message=self._hear, stream_lost=self._lost
        )
        self._door: Door | None = None
        self._running: Running | None = None
        self._server: int | None = None  # a pidfd, where there are any
        self._end: float | None = None

    def run(self, fds: tuple[int, int], keeper: socket.socket | None) -> None:
        """Serve from the first stream on, until there is nothing more to do."""
        self.pairing.add_stream(FIRST, *fds, keeper=keeper)
        self._leave_at(UNASKED)
        self._look()
        try:
            self.pairing.run(lambda: self._end is not None and time.monotonic() >= self._end)
        finally:
            self._terminate()  # nobody could reach it any more
            if self._door:
                self._door.close()
            self.pairing.close()

    # What the client wants

    def _hear(self, stream: str, kind: int, body: dict[str, Any]) -> None:
        if kind != frame.SERVE:
            raise ProtocolError(f"a client does not send frames of kind {kind}")
        if body.get("leave"):
            self._leave()
        elif self._running:
            raise ProtocolError("SERVE came twice")
        else:
            self.pairing.say(stream, frame.SERVING, self._serve(body))

    def _serve(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            if body.get("version") != VERSION:
                raise Refused("version", f"the far agent speaks version {VERSION} alone")
            request = mosh_server.read(body)
            family = _family(request.family)
            self._door = self._door or _door()
            running = mosh_server.start(request, LOOPBACK[family])
        except Refused as refused:
            return {"error": str(refused), "code": refused.code}
        self._running, self._end = running, None
        self.pairing.open_local(family, running.port)
        self.pairing.watch(self._door.socket.fileno(), self._admit)
        self._watch_server(running.pid)
        self._detach(body)
        return {
            "key": running.key,
            "pid": running.pid,
            "family": family,
            "door": self._door.path,
            "ssh_connection": self._environment.get("SSH_CONNECTION", ""),
        }

    def _detach(self, body: dict[str, Any]) -> None:
        """From now on the SSH session is one stream among others: it may end, and what it gave us is let go."""
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        os.chdir("/")
        if body.get("udp", True) is True:
            stun = body.get("stun")
            self.pairing.pair.asks(_servers(stun if isinstance(stun, list) else []), time.monotonic())
            self._seen_from(self._environment.get("SSH_CONNECTION", ""))
            self.pairing.call_at(time.monotonic(), self.pairing.open_udp)  # after the answer has been written

    def _seen_from(self, ssh_connection: str) -> None:
        """SSH_CONNECTION: the client's address and port, and ours, as sshd sees them."""
        words = ssh_connection.split()
        if len(words) == 4:
            self.pairing.pair.sees_peer([words[0].partition("%")[0]], time.monotonic())

    # Streams

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
        name, _, ssh_connection = visitor.words.partition(b"\0")
        if not NAME.fullmatch(name):
            visitor.turn_away()
            return
        self._make_room(name.decode())
        self.pairing.add_stream(name.decode(), *visitor.fds, keeper=visitor.keeper)
        known = ssh_connection.decode("ascii", "replace")
        self._seen_from(known)
        self.pairing.say(name.decode(), frame.REPORT, {"ssh_connection": known})

    def _watch_door(self) -> None:
        if self._door:
            self.pairing.watch(self._door.socket.fileno(), self._admit)

    def _make_room(self, name: str) -> None:
        """The stream that has waited longest for an answer gives way."""
        streams = self.pairing.pair.streams
        if name not in streams and len(streams) >= MAX_STREAMS:
            now = time.monotonic()
            self.pairing.drop_stream(max(streams, key=lambda name: streams[name].waited(now)))

    def _lost(self, name: str, why: str) -> None:
        if self._running is None and not self.pairing.pair.streams:
            self._leave_at(0.0)

    # Time

    def _look(self) -> None:
        now = time.monotonic()
        self.pairing.call_at(now + LOOK_EVERY, self._look)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # what stood before mosh-server
        if self._running and self._running.pid and not _lives(self._running.pid):
            self._server_ended()
        streams = self.pairing.pair.streams
        heard = max((stream.heard for stream in streams.values()), default=now)
        for name in [name for name, stream in streams.items() if stream.waited(now) > STALE and stream.heard < heard]:
            self.pairing.drop_stream(name)

    def _watch_server(self, pid: int | None) -> None:
        if pid and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._server = os.pidfd_open(pid)
                self.pairing.watch(self._server, self._server_ended)

    def _server_ended(self) -> None:
        if self._server is not None:
            self.pairing.unwatch(self._server)
            os.close(self._server)
            self._server = None
        self._running = None
        for name in list(self.pairing.pair.streams):
            self.pairing.say(name, frame.REPORT, {"ended": True})
        self._leave_at(LAST_WORDS if self._end is None else 0.0)

    def _leave(self) -> None:
        """The client has ended: so does mosh-server, in a moment."""
        if self._running is None:
            self._leave_at(0.0)
        elif self._end is None:
            self._leave_at(STUBBORN)
            self.pairing.call_at(time.monotonic() + GRACE, self._terminate)

    def _terminate(self) -> None:
        if self._running and self._running.pid:
            with contextlib.suppress(OSError):
                os.kill(self._running.pid, signal.SIGTERM)

    def _leave_at(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._end = end if self._end is None else min(self._end, end)
        self.pairing.call_at(end, lambda: None)


def _family(wanted: int) -> int:
    """The loopback's family to use: the one that was asked for, or the other where there is no such."""
    for family in (wanted, 10 - wanted):
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock,
        ):
            sock.bind((LOOPBACK[family], 0))
            return family
    raise Refused("no-loopback", "that machine has no loopback address")


def _door() -> Door:
    try:
        return Door("far")
    except OSError as error:
        raise Refused("no-door", f"no Unix socket can be made there: {error.strerror or error}") from None


def _servers(stun: list[Any]) -> list[Address]:
    """The STUN servers in a SERVE; what is none is left out."""
    found = []
    for each in stun[:MAX_STUN]:
        with contextlib.suppress(TypeError, ValueError, OSError):
            host, port = each
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
            if type(port) is int and 0 < port < 65536:
                found.append(Address(host, port))
    return found


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _fork() -> socket.socket | None:
    """Go on in a session of our own. What sshd started stays behind as the smallest program that waits for an end: of
    ours, or of the stream for which it stands."""
    here, there = socket.socketpair()
    if os.fork():
        os.dup2(there.fileno(), 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execvp("cat", ["cat"])
    there.close()
    os.setsid()
    return here


def main(secret: str) -> None:
    """Serve on standard input and output; `secret` in hexadecimal."""
    keeper = _fork()
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    far = Far(bytes.fromhex(secret), dict(os.environ))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    far.run((os.dup(0), os.dup(1)), keeper)
