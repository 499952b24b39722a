"""One mosh session, from the first connection to mosh-client's end: who runs when, and what is said to whom."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from tunneld.core.pair.pair import SECRET, Pair
from tunneld.core.pair.path import UdpAddress
from tunneld.core.stream import frame
from tunneld.errors import UnavailableError
from tunneld.mosh import command_line
from tunneld.mosh.failed_start import EndedSilently, unexpected, unserved
from tunneld.mosh.jump_agent_client import JumpAgentClient
from tunneld.mosh.paths_socket import PathsSocket, prepare
from tunneld.mosh.preconnect import connects_to
from tunneld.mosh.resolve import NameLookup
from tunneld.mosh.signal_pipe import SIGNALLED, Signals
from tunneld.mosh.ssh_pool import SshPool
from tunneld.mosh.ssh_process import SshProcess
from tunneld.mosh.start import FIRST, Started, beside, first_line
from tunneld.shipped import pack
from tunneld.shipped.end_with_us import guard
from tunneld.shipped.pair_loop import PairLoop
from tunneld.shipped.start_mosh_server import LOOPBACK_HOSTS

VERSION = 1
"""Of what the window shows."""

SECOND_STREAM = 1.0
"""Seconds until a second connection is made: the first prompt comes first."""

LOOK_EVERY = 1.0
"""Seconds between two looks at whether the far end still has us."""

AFTERWARDS = 3.0
"""Seconds for mosh-client to hear from mosh-server itself that all is over."""

LAST_WORDS = 2.0
"""Seconds for an ssh whose stream has ended to say why."""

FAREWELL = 0.3
"""Seconds for ssh to bring our last words away: a person waits for the prompt."""


class MoshSession:
    """`run` gives the exit status. The terminal is mosh-client's from its start to its end, and ssh's before that."""

    def __init__(self, started: Started, signals: Signals) -> None:
        self._started = started
        self._order, self._first, self._dial = started.order, started.line, started.dial
        self._secret = os.urandom(SECRET)
        self._pairing = PairLoop(
            Pair(self._secret, time.monotonic(), is_client=True), message=self._hear, stream_lost=self._lost
        )
        self._lines = SshPool(self._pairing, self._dial_beside)
        self._pairing.moved = self._lines.moved
        self._jump = JumpAgentClient(started.way, ports=started.order.relay_ports) if started.way else None
        self._lookup: NameLookup | None = None
        self._reflectors: list[UdpAddress] = []
        self._serving: dict[str, Any] | None = None
        self._noise: str | None = None
        self._client: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._over = ""
        self._over_at = math.inf
        self._was_over = False
        self._signals = signals

    def run(self) -> int:
        """
        Raises:
            UnavailableError: something is missing, here or there.
        """
        self._pairing.watch(self._signals.fd, self._take_signals)
        try:
            self._begin()
            self._pairing.run(lambda: self._serving is not None or self._noise is not None)
            client = self._start_client()
            status = self._attend(client)
        except EndedSilently as ended:
            return ended.status
        finally:
            if self._client and self._client.poll() is None:  # a fault of ours, and the terminal is still its own
                self._client.kill()
                self._client.wait()
                self._started.restore()
            self._end()
        if status < 0:
            self._started.restore()
        if self._was_over:
            raise UnavailableError(self._over)
        return status if status >= 0 else SIGNALLED - status

    # The start

    def _begin(self) -> None:
        """ssh is connecting: what comes behind its command is ready when it has logged in."""
        self._address, self._port = self._open_local()
        if self._dial:
            self._pairing.watch(self._dial.fd, self._dial_alone)
        self._take_first()

    def _take_first(self) -> None:
        self._lines.add(self._first, pack.mosh_agent_program(self._secret))
        self._carrier = self._pairing.pair.streams[FIRST]
        self._pairing.watch(self._first.errors, self._hear_errors)

    def _dial_alone(self) -> None:
        """We do not get through: ssh shall try, and say why not."""
        assert self._dial
        connects = self._dial.alone
        self._end_dial()
        self._pairing.unwatch(self._first.errors)
        self._lines.drop(FIRST)
        self._first = first_line(self._order, self._started.far, self._started.way, connects)
        self._take_first()

    def _end_dial(self) -> None:
        if self._dial:
            self._pairing.unwatch(self._dial.fd)
            self._dial.close()
            self._dial = None

    def _open_local(self) -> tuple[str, int]:
        """On ::1 if there is one: mosh then makes datagrams that fit any path with our header."""
        try:
            return LOOPBACK_HOSTS[6], self._pairing.open_local(6)
        except OSError:
            return LOOPBACK_HOSTS[4], self._pairing.open_local(4)

    def _start_client(self) -> subprocess.Popen[bytes]:
        """
        Raises:
            UnavailableError: the far side did not start mosh-server.
            Ended: ssh has said why itself.
        """
        self._end_dial()
        if self._serving is None:
            status = self._first.end(LAST_WORDS)
            self._take_signals()  # ssh may have ended because of one that we have as well
            self._first.drain()
            raise unexpected(self._order.host, status, self._first.said, self._noise or "")
        if "key" not in self._serving:
            raise unserved(self._order.host, self._serving)
        argv = command_line.client_command(self._order, self._address, self._port)
        environment = command_line.client_environment(self._order, str(self._serving["key"]), self._started.environment)
        self._first.is_shown = False
        self._client = subprocess.Popen(argv, env=environment)
        return self._client

    def _attend(self, client: subprocess.Popen[bytes]) -> int:
        """Drive the pair until mosh-client has ended; its status, negative for a signal."""
        self._pairing.call_at(time.monotonic(), self._open_paths if self._order.udp else self._pairing.watch_network)
        self._look()
        with guard(client.pid), self._open_window():
            self._pairing.run(lambda: client.poll() is not None)
        return client.returncode

    @contextlib.contextmanager
    def _open_window(self) -> Iterator[None]:
        """For `--paths`; a session is worth more than a look into it."""
        try:
            window = PathsSocket(prepare(), self._seen)
        except OSError:
            yield
            return
        self._pairing.watch(window.fd, window.answer)
        try:
            yield
        finally:
            self._pairing.unwatch(window.fd)
            window.close()

    def _seen(self) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "destination": self._order.destination,
            "since": round(now - self._began, 1),
            "jump": self._jump.status() if self._jump else None,
            "ssh": self._lines.status(),
            "stun": {"unknown": self._lookup.found.unknown} if self._lookup else None,
            "pair": self._pairing.pair.snapshot(now),
        }

    def _open_paths(self) -> None:
        assert self._serving
        self._pairing.open_udp()
        if self._jump:
            seen = str(self._serving.get("ssh_connection", ""))
            self._jump.begin(self._pairing, self._secret, ssh_connection=seen, stun=lambda: self._reflectors)
        self._lookup = NameLookup(connects_to(self._started.settings), self._order.stun)
        self._pairing.watch(self._lookup.fd, self._found)

    def _found(self) -> None:
        """The names that paths need have been looked up."""
        assert self._lookup
        self._pairing.unwatch(self._lookup.fd)
        hosts, self._reflectors, _ = self._lookup.found
        self._pairing.pair.sees_peer(hosts, time.monotonic())
        relays = self._jump.addresses if self._jump else []
        self._pairing.pair.asks([*self._reflectors, *relays], time.monotonic())
        if self._reflectors:
            for name in self._pairing.pair.streams:
                self._pairing.say(name, frame.SERVE, {"stun": [list(each) for each in self._reflectors]})

    def _dial_beside(self, name: str) -> tuple[SshProcess, bytes]:
        assert self._serving
        program = pack.rejoin_program(str(self._serving["door"]), name, str(self._serving.get("host")))
        order = beside(self._order, self._started.way, name)
        quiet = command_line.without_touch(self._started.settings)
        argv = command_line.ssh_command(order, pack.whole_command(program), quiet, beside=True)
        return SshProcess(name, argv), b""

    # What happens

    def _hear(self, stream: str, kind: int, body: dict[str, Any]) -> None:
        if kind == frame.SERVING:
            if body.get("door") and "door" not in (self._serving or {}):  # without one nobody can join
                self._lines.keep(time.monotonic() + SECOND_STREAM)
            self._serving = {**body, **(self._serving or {})}  # the door is told later than the key
        elif kind == frame.REPORT and body.get("ended"):
            self._end_soon(f"mosh-server on {self._order.host} was ended")

    def _lost(self, stream: str, why: str) -> None:
        if self._serving is None:
            self._noise = self._carrier.noise.decode("utf-8", "replace")
        self._lines.lost(stream)

    def _look(self) -> None:
        self._pairing.call_at(time.monotonic() + LOOK_EVERY, self._look)
        if self._lines.is_homeless:
            self._end_soon(f"{self._order.host} does not have this session any more; it was restarted, maybe")
        if time.monotonic() >= self._over_at and self._client and self._client.poll() is None:
            self._was_over = True
            self._client.kill()

    def _end_soon(self, why: str) -> None:
        """mosh-client would wait for ever: it cannot know that nobody is there any more."""
        if not self._over:
            self._over, self._over_at = why, time.monotonic() + AFTERWARDS

    def _hear_errors(self) -> None:
        """ssh talks to the person, until mosh-client runs."""
        self._take_signals()  # what runs for ssh may complain of one that is meant for us all
        if not self._first.is_shown or not self._first.read_errors():
            self._pairing.unwatch(self._first.errors)

    def _take_signals(self) -> None:
        status = self._signals.status()  # nothing of a child's end: `run` asks after each event who has ended
        if status is None:
            return
        if self._client is None:
            raise EndedSilently(status)
        if self._client.poll() is None:
            self._client.send_signal(signal.SIGTERM)  # it says goodbye to mosh-server, and ends

    # The end

    def _end(self) -> None:
        if self._dial:
            self._dial.close()
        if self._lookup:
            self._lookup.close()
        for name in list(self._pairing.pair.streams):
            self._pairing.say(name, frame.SERVE, {"leave": True})
        self._pairing.run(lambda: True)
        if self._jump:
            self._jump.close()
        self._pairing.close()
        self._lines.close(FAREWELL)
