"""Our agent on the jump host: starts it once mosh-client runs, and tells both ends of the pair to meet there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tunneld.core.pair import packet
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.core.pair.offer import reachable
from tunneld.core.stream import frame
from tunneld.mosh import jump_host, resolve
from tunneld.mosh.failed_start import last_line
from tunneld.mosh.jump_route import JumpRoute
from tunneld.shipped import pack
from tunneld.shipped.pair_loop import PairLoop
from tunneld.shipped.udp_sockets import ADDRESS_FAMILIES

REPORT_MARK = "TUNNELD-MEETING"
"""The word before the agent's report, which is one line of JSON."""

START_DELAY = 0.05
"""Seconds from the start of mosh-client to the start of the agent, so that nothing competes with mosh-client's first
datagram. Half a second would delay the direct path by as much, and the first screen would come no sooner."""

AGENT_START_TIMEOUT = 15.0
"""Seconds for the agent to report its ports: one round trip, and the start of a Python."""

AGENT_CHECK_EVERY = 30.0
"""Seconds between two checks of whether the agent still answers."""

RESTART_PAUSE = 600.0
"""Seconds between two starts while no agent was of use. Where a firewall lets no UDP in, every agent that is started
stays for a minute."""

FAREWELL_SIZE = 16
"""Random bytes in the datagram that ends the agent: fewer than a STUN message has, and than any packet of a pair."""

MAX_OUTPUT = 64 * 1024
"""Bytes that are read of the agent's output."""

MAX_ADDRESSES = 4
"""Addresses of the agent that the two ends try."""


class FoundAgent(NamedTuple):
    """The agent's UDP ports by address family (4, 6), and the hosts under which it may be reached."""

    ports: dict[int, int]
    hosts: list[str]

    def addresses(self) -> list[UdpAddress]:
        """Each reachable host with the agent's port of its family, at most MAX_ADDRESSES."""
        hosts = dict.fromkeys(filter(None, map(reachable, self.hosts)))
        addresses = [UdpAddress(host, self.ports.get(UdpAddress(host, 0).family, 0)) for host in hosts]
        return [address for address in addresses if address.port][:MAX_ADDRESSES]


class JumpAgentClient:
    """Starts the agent on the first jump host of `route`, and closes the route with itself.

    The agent uses UDP ports of the range `ports`. `addresses` are where it is, once it has reported.
    """

    def __init__(
        self, route: JumpRoute, *, ports: tuple[int, int] = (0, 0), now: Callable[[], float] = time.monotonic
    ) -> None:
        self._route = route
        self._ports = ports
        self._now = now
        self._process: subprocess.Popen[bytes] | None = None
        self.addresses: list[UdpAddress] = []
        self._started_at = 0.0
        self._was_of_use = False
        self._is_closed = False
        self._farewell = os.urandom(FAREWELL_SIZE)
        self._outcome: FoundAgent | str = "it could not be asked"
        self._woken: socket.socket | None = None
        self.says = "its agent starts when the session runs"

    def begin(
        self, loop: PairLoop, secret: bytes, *, ssh_connection: str, stun: Callable[[], Iterable[UdpAddress]]
    ) -> None:
        """Start the agent soon: mosh-client runs now.

        Args:
            ssh_connection: SSH_CONNECTION as DEST sees it; its first word is the jump host's address.
            stun: the STUN servers that the pair asks in any case.
        """
        if self._route.jump_host is None:
            return
        self._loop = loop
        self._identities = packet.identities(secret)
        self._stun = stun
        # Behind several jump hosts, DEST sees the last of them, and the agent is on the first.
        self._seen_by_dest = [] if self._route.jump_host.others else ssh_connection.split()[:1]
        if self._route.jump_host.asks:
            self.says = "ssh_config has you asked for each use of its connection: no agent there"
            return
        self._loop.call_at(self._now() + START_DELAY, self._start)

    def close(self) -> None:
        """End the agent, and whatever waits for it: the session is over."""
        self._is_closed = True
        if self._process and self._process.poll() is None:
            self._process.kill()
        if self._woken:
            self._woken.close()
        _send(self._farewell, self.addresses)
        self._route.close()

    def status(self) -> dict[str, Any] | None:
        """The jump host and how its agent fares, for `--paths`; None where no jump host is on the route."""
        return {"host": self._route.jump_host.host, "says": self.says} if self._route.jump_host else None

    # Starting the agent waits for other machines, so a thread does it and then wakes the loop.

    def _start(self) -> None:
        self._loop.call_at(self._now() + AGENT_CHECK_EVERY, self._check)
        stream = next(filter(self._route.is_shared, self._loop.pair.streams), None)
        if stream is None:
            if not self.addresses:
                self.says = "its connection cannot be shared: no agent there"
            return
        self._started_at, self._was_of_use = self._now(), False
        self._woken, waker = socket.socketpair()
        threading.Thread(target=self._ask, args=(stream, waker), name="jump-agent", daemon=True).start()
        self._loop.watch(self._woken.fileno(), self._finish)

    def _ask(self, stream: str, waker: socket.socket) -> None:
        with waker, contextlib.suppress(OSError):
            self._outcome = self._run_agent(stream)
            waker.send(b".")

    def _run_agent(self, stream: str) -> FoundAgent | str:
        """The agent, started through the connection of this stream, or a sentence that says why there is none."""
        assert self._route.jump_host
        arguments = (each.hex() for each in (*self._identities, self._farewell))
        program = pack.jump_agent_program(REPORT_MARK, *arguments, *self._ports)
        socket_path = self._route.socket(stream)
        command = jump_host.command_there(self._route.jump_host, socket_path, pack.command(program))
        status, output = self._run(command, program)
        report = _report(output)
        if report is None and status == -signal.SIGKILL:
            return f"it did not run our agent within {AGENT_START_TIMEOUT:g} s"
        if report is None:
            return f"it does not run our agent ({last_line(output) or f'exit status {status}'})"
        if "error" in report:
            return last_line(str(report["error"]))
        ports = {family: _port(report, family) for family in (4, 6)}
        # A machine in a cloud does not know its own public address.
        resolved = [each.host for each in resolve.reachable_addresses(self._route.jump_host.host, 0)]
        return FoundAgent(ports, [*_server(report), *resolved, *self._seen_by_dest])

    def _run(self, command: list[str], program: bytes) -> tuple[int, str]:
        """The command's exit status and output. It runs without a terminal, so it can ask nobody."""
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            self._process = process
            assert process.stdin
            assert process.stdout
            deadline = threading.Timer(AGENT_START_TIMEOUT, process.kill)
            deadline.start()
            with contextlib.suppress(OSError):  # the command has ended already; its output says why
                process.stdin.write(program)
                process.stdin.close()
            output = process.stdout.read(MAX_OUTPUT)
            if len(output) == MAX_OUTPUT:
                process.terminate()
            process.wait()
            deadline.cancel()
        return process.returncode, output.decode("utf-8", "replace")

    # In the loop again

    def _finish(self) -> None:
        assert self._woken
        self._loop.unwatch(self._woken.fileno())
        self._woken.close()
        self._woken = None
        outcome = self._outcome
        if isinstance(outcome, str):
            self.says = outcome
            return
        self.addresses = outcome.addresses()
        self.says = f"its agent is at {', '.join(map(str, self.addresses)) or 'no address that others reach'}"
        self._tell()

    def _tell(self) -> None:
        """Have both ends try the agent as a place to meet, and ask it for their public addresses."""
        now, pair = self._now(), self._loop.pair
        pair.use_stun_servers([*self._stun(), *self.addresses], now)
        self._loop.offer_also(Candidate("relay", address) for address in self.addresses)
        for name in pair.streams:
            self._loop.say(name, frame.SERVE, {"relay": [list(address) for address in self.addresses]})

    def _check(self) -> None:
        """Where no path over the agent answers, tell both ends of it again, or start another agent.

        The other end may not have heard of the agent, or the agent may have ended with its machine.
        """
        if self._is_closed:
            return
        if any(map(_answers, self._loop.pair.snapshot(self._now())["paths"])):
            self._was_of_use = True
        elif not self._woken and self._now() - self._started_at >= (0.0 if self._was_of_use else RESTART_PAUSE):
            self._start()
            return
        elif self.addresses:
            self._tell()
        self._loop.call_at(self._now() + AGENT_CHECK_EVERY, self._check)


def _answers(path: dict[str, Any]) -> bool:
    """Whether this is a path over the agent, and something answers on it."""
    return path["kind"] == "relay" and path["state"] not in ("tried", "silent")


def _report(output: str) -> dict[str, Any] | None:
    """The agent's report, which may follow whatever a login shell prints; None when there is none."""
    try:
        report = json.loads(output.partition(f"{REPORT_MARK} ")[2].partition("\n")[0])
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None


def _port(report: dict[str, Any], family: int) -> int:
    """The agent's port of this address family; 0 when there is none."""
    ports = report.get("ports")
    port = ports.get(str(family)) if isinstance(ports, dict) else None
    return port if type(port) is int and 0 < port < 65536 else 0


def _server(report: dict[str, Any]) -> list[str]:
    """The address at which the jump host's sshd was reached: the third word of SSH_CONNECTION there."""
    words = str(report.get("ssh_connection", "")).split()
    return [words[2].partition("%")[0]] if len(words) == 4 else []


def _send(farewell: bytes, addresses: list[UdpAddress]) -> None:
    """Tell the agent to end, twice: an agent that does not hear it holds its port for a while longer."""
    for address in (*addresses, *addresses):
        with (
            contextlib.suppress(OSError),
            socket.socket(ADDRESS_FAMILIES[address.family], socket.SOCK_DGRAM) as sock,
        ):
            sock.sendto(farewell, tuple(address))
