"""The mosh agent: the end of a pair beside mosh-server, on a machine where nothing of ours is installed.

`tunneld mosh` starts it over SSH from its source text (see tunneld.shipped.pack), in two stages. The first is short and
starts mosh-server (tunneld.shipped.start_mosh_server); this is the second. The agent outlives the SSH session: another
session joins through the agent's join socket, and UDP paths need no session. The agent ends with mosh-server, or when
the client says that it has ended.

    SERVING  {"key": "4NeCCgvZFe2RnPgrcU1PQw", "pid": 4712, "family": 6, "ssh_connection": "203.0.113.9 50000 ..."}
             or {"error": "a sentence", "code": "no-mosh-server"}, from the first stage; then from the second
             {"door": "/tmp/tunneld-far-4711-9f86d0/join", "host": "pi"}, or {"door": null, "why": "..."}
    SERVE    from the client: {"relay": [["192.0.2.1", 40111], ...]}, addresses of a jump host's agent;
             {"stun": [["192.0.2.9", 3478], ...]}, servers to ask where they see this end; or {"leave": true}
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
from tunneld.core.stream.names import FIRST_STREAM
from tunneld.shipped.end_with_us import guard
from tunneld.shipped.join_socket import JoinSocket
from tunneld.shipped.pair_loop import PairLoop
from tunneld.shipped.start_mosh_server import GREETING, LOOPBACK_HOSTS, Running
from tunneld.shipped.udp_sockets import ADDRESS_FAMILIES

STREAM_NAME = re.compile(rb"[a-z0-9-]{1,32}")

MAX_MOSH_STREAMS = 6
"""Two in use, two that replace them, and two that are dead without our knowing it yet."""

CHECK_EVERY = 1.0
"""Seconds between two looks at mosh-server and at the streams."""

STALE_STREAM = 60.0
"""Seconds without an answer after which a stream is closed, if another one was heard meanwhile."""

LAST_DATAGRAMS = 2.0
"""Seconds for mosh-server's last datagrams to reach the client."""

SERVER_GRACE = 1.0
"""Seconds for mosh-server to end by itself after its client has ended; then it gets SIGTERM."""

GOODBYE_LIMIT = 15.0
"""Seconds after the client's end until the agent leaves in any case. mosh-server repeats its goodbye for ten
seconds."""

MAX_NAMED = 8
"""Addresses that are taken of one message: STUN servers, or those of a jump host's agent."""


class MoshAgent:
    """One mosh-server, the end of one pair beside it, and any number of SSH sessions, one after the other.

    `secret` is the pair's. Its loop waits for streams, sockets, mosh-server's end and the clock.
    """

    def __init__(self, secret: bytes, running: Running) -> None:
        self._loop = PairLoop(
            Pair(secret, time.monotonic(), is_client=False), message=self._hear, stream_lost=lambda name, why: None
        )
        self._running = running
        self._server: int | None = None  # a pidfd, where the system has them
        self._has_ended = False
        self._end: float | None = None
        self._join_socket: JoinSocket | None = None
        self._servers: list[UdpAddress] = []
        self._relay: list[UdpAddress] = []

    def run(self, fds: tuple[int, int]) -> None:
        """Serve until mosh-server or the client has ended. `fds` are those of the stream that started the agent."""
        self._loop.open_local(self._running.family, self._running.port)
        self._loop.add_stream(FIRST_STREAM, *fds, keeper=self._running.keeper, said=len(GREETING))
        self._open_join_socket()
        self._watch_server()
        self._check()
        if self._running.wanted.udp:
            self._loop.call_at(time.monotonic(), self._open_udp)  # when the first words have been written
        try:
            self._loop.run(lambda: self._end is not None and time.monotonic() >= self._end)
        finally:
            self._terminate()  # nobody could reach mosh-server any more
            if self._join_socket:
                self._join_socket.close()
            self._loop.close()

    def _hear(self, stream: str, kind: int, body: dict[str, Any]) -> None:
        relay, servers = body.get("relay"), body.get("stun")
        if kind == frame.SERVE and isinstance(relay, list):
            self._use_relay(_addresses(relay))
        elif kind == frame.SERVE and isinstance(servers, list):
            self._servers = _addresses(servers)
            self._ask()
        elif kind == frame.SERVE and body.get("leave") is True:
            self._leave()
        else:
            raise ProtocolError("the client sent a SERVE without relay, stun or leave")

    # UDP

    def _open_udp(self) -> None:
        self._ask()
        self._seen_from(os.environ.get("SSH_CONNECTION", ""))
        self._loop.open_udp()

    def _use_relay(self, relay: list[UdpAddress]) -> None:
        """Offer the addresses of a jump host's agent, which passes packets on, and ask it where it sees us."""
        self._relay = relay
        self._ask()
        self._loop.offer_also(Candidate("relay", address) for address in relay)

    def _ask(self) -> None:
        """Ask the STUN servers that the client names, and a jump host's agent, where they see us."""
        self._loop.pair.use_stun_servers([*self._servers, *self._relay], time.monotonic())

    def _seen_from(self, ssh_connection: str) -> None:
        """Try the client's address as sshd saw it. SSH_CONNECTION is that address and port, and then ours (ssh(1))."""
        words = ssh_connection.split()
        if len(words) == 4:
            self._loop.pair.sees_peer([words[0].partition("%")[0]], time.monotonic())

    # Streams

    def _open_join_socket(self) -> None:
        try:
            self._join_socket = JoinSocket("far")
        except OSError as error:  # no other stream can join, but the session goes on over this one, and over paths
            self._loop.say(FIRST_STREAM, frame.SERVING, {"door": None, "why": error.strerror or str(error)})
            return
        self._loop.say(FIRST_STREAM, frame.SERVING, {"door": self._join_socket.path, "host": os.uname().nodename})
        self._watch_join_socket()

    def _watch_join_socket(self) -> None:
        if self._join_socket:
            self._loop.watch(self._join_socket.socket.fileno(), self._admit)

    def _admit(self) -> None:
        assert self._join_socket
        try:
            joiner = self._join_socket.admit()
        except OSError:
            self._loop.unwatch(self._join_socket.socket.fileno())  # no file descriptor is left: look away for a while
            self._loop.call_at(time.monotonic() + CHECK_EVERY, self._watch_join_socket)
            return
        if joiner is None:
            return
        words, _, ssh_connection = joiner.words.partition(b"\0")
        if not STREAM_NAME.fullmatch(words):
            joiner.turn_away()
            return
        name, known = words.decode(), ssh_connection.decode("ascii", "replace")
        self._make_room(name)
        self._loop.add_stream(name, *joiner.fds, keeper=joiner.keeper)
        self._loop.say(name, frame.REPORT, {"ssh_connection": known})
        self._seen_from(known)

    def _make_room(self, name: str) -> None:
        """Close the stream that has waited longest for an answer, if this one would be too many."""
        streams = self._loop.pair.streams
        if name not in streams and len(streams) >= MAX_MOSH_STREAMS:
            now = time.monotonic()
            self._loop.drop_stream(max(streams, key=lambda name: streams[name].waited(now)))

    # Time

    def _check(self) -> None:
        now = time.monotonic()
        self._loop.call_at(now + CHECK_EVERY, self._check)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # the shell or wrapper that started mosh-server
        if not _is_alive(self._running):
            self._server_ended()
        streams = self._loop.pair.streams
        heard = max((stream.heard for stream in streams.values()), default=now)
        stale = [name for name, each in streams.items() if each.waited(now) > STALE_STREAM and each.heard < heard]
        for name in stale:
            self._loop.drop_stream(name)

    def _watch_server(self) -> None:
        """Have the loop notice mosh-server's end at once, where the system can tell; `_check` notices it anyway."""
        if self._running.pid and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._server = os.pidfd_open(self._running.pid)
                self._loop.watch(self._server, self._server_ended)

    def _server_ended(self) -> None:
        if self._server is not None:
            self._loop.unwatch(self._server)
            os.close(self._server)
            self._server = None
        if self._has_ended:
            return
        self._has_ended = True
        for name in list(self._loop.pair.streams):
            self._loop.say(name, frame.REPORT, {"ended": True})
        self._leave_at(LAST_DATAGRAMS if self._end is None else 0.0)

    def _leave(self) -> None:
        """The client has ended, so mosh-server will end too: by itself in a moment, or by SIGTERM."""
        if self._has_ended:
            self._leave_at(0.0)
        elif self._end is None:
            self._leave_at(GOODBYE_LIMIT)
            self._loop.call_at(time.monotonic() + SERVER_GRACE, self._terminate)

    def _terminate(self) -> None:
        if self._running.pid and not self._has_ended:
            with contextlib.suppress(OSError):
                os.kill(self._running.pid, signal.SIGTERM)

    def _leave_at(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._end = end if self._end is None else min(self._end, end)
        self._loop.call_at(end, lambda: None)


def _addresses(named: list[Any]) -> list[UdpAddress]:
    """The addresses in a client's message, of which MAX_NAMED count. What is no address is left out."""
    found = []
    for each in named[:MAX_NAMED]:
        with contextlib.suppress(TypeError, ValueError, OSError):
            host, port = each
            socket.inet_pton(ADDRESS_FAMILIES[6 if ":" in host else 4], host)
            if type(port) is int and 0 < port < 65536:
                found.append(UdpAddress(host, port))
    return found


def _is_alive(running: Running) -> bool:
    """Whether mosh-server's process lives or, where its number is not known, whether its port is taken."""
    if running.pid is None:
        with socket.socket(ADDRESS_FAMILIES[running.family], socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((LOOPBACK_HOSTS[running.family], running.port))
            except OSError:
                return True
            return False
    try:
        os.kill(running.pid, 0)
    except OSError:
        return False
    return True


def main(secret: bytes, running: Running) -> None:
    """Serve on standard input and output. From now on the SSH session is one stream among others and may end, so
    everything that it gave us is released."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    fds = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    os.chdir("/")
    with guard(running.pid) if running.pid else contextlib.nullcontext():
        agent = MoshAgent(secret, running)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        agent.run(fds)
