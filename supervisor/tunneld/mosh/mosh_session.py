"""One mosh session, from the first connection to the end of mosh-client: which program runs when, and what it hears."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.pair import SECRET_SIZE, Pair
from tunneld.core.stream import frame
from tunneld.core.stream.names import FIRST_STREAM
from tunneld.errors import UnavailableError
from tunneld.mosh import command_line
from tunneld.mosh.failed_start import SilentExit, unexpected, unserved
from tunneld.mosh.jump_agent_client import JumpAgentClient
from tunneld.mosh.paths_socket import PathsSocket, prepare
from tunneld.mosh.preconnect import connects_to
from tunneld.mosh.resolve import NameLookup
from tunneld.mosh.signal_pipe import SIGNALLED, Signals
from tunneld.mosh.ssh_pool import SshPool
from tunneld.mosh.ssh_process import SshProcess
from tunneld.mosh.start import Started, first_ssh, later_order
from tunneld.shipped import pack
from tunneld.shipped.end_with_us import guard
from tunneld.shipped.pair_loop import PairLoop
from tunneld.shipped.start_mosh_server import LOOPBACK_HOSTS

PATHS_VERSION = 1
"""The version of what `--paths --json` shows."""

SECOND_STREAM_AFTER = 1.0
"""Seconds until a second connection is made: nothing competes with the first prompt."""

SESSION_CHECK_EVERY = 1.0
"""Seconds between two checks of whether DEST still has this session."""

CLIENT_END_TIMEOUT = 3.0
"""Seconds for mosh-client to hear from mosh-server itself that the session is over."""

SSH_END_TIMEOUT = 2.0
"""Seconds for an ssh whose stream has ended to say why, and to end."""

LEAVE_TIMEOUT = 0.3
"""Seconds for ssh to deliver our last frames: a person waits for the shell's prompt."""


class MoshSession:
    """Runs a session that has been started. The terminal is ssh's at first, and mosh-client's while that runs."""

    def __init__(self, started: Started, signals: Signals) -> None:
        self._started = started
        self._order, self._first, self._preconnect = started.order, started.ssh, started.preconnect
        self._secret = os.urandom(SECRET_SIZE)
        self._loop = PairLoop(
            Pair(self._secret, time.monotonic(), is_client=True), message=self._hear, stream_lost=self._lost
        )
        self._pool = SshPool(self._loop, self._dial_another)
        self._loop.moved = self._pool.network_changed
        self._jump_agent = JumpAgentClient(started.route, ports=started.order.relay_ports) if started.route else None
        self._lookup: NameLookup | None = None
        self._stun_servers: list[UdpAddress] = []
        self._serving: dict[str, Any] | None = None  # what our agent on DEST has said of mosh-server
        self._noise: str | None = None  # what came in its place when the first stream ended
        self._client: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._over = ""  # why mosh-client has nobody to talk to any more
        self._over_at = math.inf  # when it is ended for that
        self._was_over = False
        self._signals = signals

    def run(self) -> int:
        """The exit status: mosh-client's own, ssh's where ssh failed, or a shell's for a signal.

        Raises:
            UnavailableError: something is missing here or on DEST, or DEST has lost the session.
        """
        self._loop.watch(self._signals.fd, self._take_signals)
        try:
            self._begin()
            self._loop.run(lambda: self._serving is not None or self._noise is not None)
            client = self._start_client()
            status = self._attend(client)
        except SilentExit as ended:
            return ended.status
        finally:
            if self._client and self._client.poll() is None:  # a fault of ours: mosh-client still has the terminal
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
        """While ssh connects, prepare what it is to send as soon as it has logged in."""
        self._address, self._port = self._open_local()
        if self._preconnect:
            self._loop.watch(self._preconnect.fd, self._connect_without_us)
        self._take_first()

    def _take_first(self) -> None:
        self._pool.add(self._first, pack.mosh_agent_program(self._secret))
        self._carrier = self._loop.pair.streams[FIRST_STREAM]
        self._loop.watch(self._first.errors, self._hear_errors)

    def _connect_without_us(self) -> None:
        """Our own connection has failed: start another ssh, which connects by itself or says why it cannot."""
        assert self._preconnect
        connects = self._preconnect.fallback_options
        self._end_preconnect()
        self._loop.unwatch(self._first.errors)
        self._pool.drop(FIRST_STREAM)
        self._first = first_ssh(self._order, self._started.agent_command, self._started.route, connects)
        self._take_first()

    def _end_preconnect(self) -> None:
        if self._preconnect:
            self._loop.unwatch(self._preconnect.fd)
            self._preconnect.close()
            self._preconnect = None

    def _open_local(self) -> tuple[str, int]:
        """mosh-client's port: on ::1 if possible, where mosh makes datagrams that fit every path with our header."""
        try:
            return LOOPBACK_HOSTS[6], self._loop.open_local(6)
        except OSError:
            return LOOPBACK_HOSTS[4], self._loop.open_local(4)

    def _start_client(self) -> subprocess.Popen[bytes]:
        """
        Raises:
            UnavailableError: our agent on DEST has not started mosh-server, or does not run.
            SilentExit: ssh itself has said why, or a signal ends us.
        """
        self._end_preconnect()
        if self._serving is None:
            status = self._first.end(SSH_END_TIMEOUT)
            self._take_signals()  # the signal that ended ssh may be meant for us as well
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
        """Drive the pair until mosh-client has ended; gives its exit status, or the negative number of a signal."""
        self._loop.call_at(time.monotonic(), self._open_paths if self._order.udp else self._loop.watch_network)
        self._check()
        with guard(client.pid), self._open_paths_socket():
            self._loop.run(lambda: client.poll() is not None)
        return client.returncode

    @contextlib.contextmanager
    def _open_paths_socket(self) -> Iterator[None]:
        """Answer `--paths` for as long as this lasts; where there is no place for the socket, do without."""
        try:
            paths_socket = PathsSocket(prepare(), self._snapshot)
        except OSError:
            yield
            return
        self._loop.watch(paths_socket.fd, paths_socket.answer)
        try:
            yield
        finally:
            self._loop.unwatch(paths_socket.fd)
            paths_socket.close()

    def _snapshot(self) -> dict[str, Any]:
        """What `--paths` shows of this session."""
        now = time.monotonic()
        return {
            "version": PATHS_VERSION,
            "pid": os.getpid(),
            "destination": self._order.destination,
            "since": round(now - self._began, 1),
            "jump": self._jump_agent.status() if self._jump_agent else None,
            "ssh": self._pool.status(),
            "stun": {"unknown": self._lookup.found.unknown} if self._lookup else None,
            "pair": self._loop.pair.snapshot(now),
        }

    def _open_paths(self) -> None:
        """Look for paths over UDP, now that mosh-client has sent its first datagram."""
        assert self._serving
        self._loop.open_udp()
        if self._jump_agent:
            seen = str(self._serving.get("ssh_connection", ""))
            self._jump_agent.begin(self._loop, self._secret, ssh_connection=seen, stun=lambda: self._stun_servers)
        self._lookup = NameLookup(connects_to(self._started.settings), self._order.stun)
        self._loop.watch(self._lookup.fd, self._use_names)

    def _use_names(self) -> None:
        """The names that the paths need have been looked up."""
        assert self._lookup
        self._loop.unwatch(self._lookup.fd)
        hosts, self._stun_servers, _ = self._lookup.found
        self._loop.pair.sees_peer(hosts, time.monotonic())
        jump_agents = self._jump_agent.addresses if self._jump_agent else []
        self._loop.pair.use_stun_servers([*self._stun_servers, *jump_agents], time.monotonic())
        if self._stun_servers:
            for name in self._loop.pair.streams:
                self._loop.say(name, frame.SERVE, {"stun": [list(each) for each in self._stun_servers]})

    def _dial_another(self, name: str) -> tuple[SshProcess, bytes]:
        """An ssh whose stream joins our agent on DEST, and what ssh's program gets as input (nothing)."""
        assert self._serving
        program = pack.rejoin_program(str(self._serving["door"]), name, str(self._serving.get("host")))
        order = later_order(self._order, self._started.route, name)
        quiet = command_line.without_touch(self._started.settings)
        argv = command_line.ssh_command(order, pack.whole_command(program), quiet, unattended=True)
        return SshProcess(name, argv), b""

    # What happens

    def _hear(self, stream: str, kind: int, body: dict[str, Any]) -> None:
        if kind == frame.SERVING:
            # "door" is the path of the socket at which further streams join; without it none can.
            if body.get("door") and "door" not in (self._serving or {}):
                self._pool.keep(time.monotonic() + SECOND_STREAM_AFTER)
            self._serving = {**body, **(self._serving or {})}  # the agent says "door" later than "key"
        elif kind == frame.REPORT and body.get("ended"):
            self._end_soon(f"mosh-server on {self._order.host} was ended")

    def _lost(self, stream: str, why: str) -> None:
        if self._serving is None:
            self._noise = self._carrier.noise.decode("utf-8", "replace")
        self._pool.lost(stream)

    def _check(self) -> None:
        """Whether DEST still has this session; where it does not, mosh-client is killed after a while."""
        self._loop.call_at(time.monotonic() + SESSION_CHECK_EVERY, self._check)
        if self._pool.is_homeless:
            self._end_soon(f"{self._order.host} does not have this session any more; it was restarted, maybe")
        if time.monotonic() >= self._over_at and self._client and self._client.poll() is None:
            self._was_over = True
            self._client.kill()

    def _end_soon(self, why: str) -> None:
        """End mosh-client if it does not end by itself: it would wait for ever for a mosh-server that has gone."""
        if not self._over:
            self._over, self._over_at = why, time.monotonic() + CLIENT_END_TIMEOUT

    def _hear_errors(self) -> None:
        """Show the person what ssh says, until mosh-client runs."""
        self._take_signals()  # ssh's ProxyCommand may complain of a signal that is meant for all of us
        if not self._first.is_shown or not self._first.read_errors():
            self._loop.unwatch(self._first.errors)

    def _take_signals(self) -> None:
        """End because of a signal. That a child has ended is no reason: `run` asks after each event who has."""
        status = self._signals.status()
        if status is None:
            return
        if self._client is None:
            raise SilentExit(status)
        if self._client.poll() is None:
            self._client.send_signal(signal.SIGTERM)  # it tells mosh-server, and ends

    # The end

    def _end(self) -> None:
        if self._preconnect:
            self._preconnect.close()
        if self._lookup:
            self._lookup.close()
        for name in list(self._loop.pair.streams):
            self._loop.say(name, frame.SERVE, {"leave": True})
        self._loop.run(lambda: True)
        if self._jump_agent:
            self._jump_agent.close()
        self._loop.close()
        self._pool.close(LEAVE_TIMEOUT)
