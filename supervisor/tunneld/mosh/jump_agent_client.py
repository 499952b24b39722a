"""Our agent on the jump host: started when the person has a prompt, and told to both ends as a place to meet."""

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
from tunneld.shipped.pair_loop import FAMILIES, PairLoop

SYNC = "TUNNELD-MEETING"
"""What the agent's line begins with."""

AFTER = 0.05
"""Seconds from the start of mosh-client to that of the agent: its first datagram is on its way, and has nobody beside
it. Half a second would put off the direct path by as much, and the first screen comes no sooner for it."""

PATIENCE = 15.0
"""Seconds for the agent to say where it is: one round trip, and the start of a Python."""

LOOK_EVERY = 30.0
"""Seconds between two looks at whether it still answers."""

AGAIN = 600.0
"""Seconds from a start that was of no use to the next: where UDP does not get in, each one stays for a minute."""

FAREWELL = 16
"""Bytes of chance that end the agent; fewer than a STUN message has, and no packet of a pair."""

MAX_ANSWER = 64 * 1024
"""Bytes to read of what it says."""

MAX_ADDRESSES = 4


class FoundAgent(NamedTuple):
    """The agent's ports by family, and under which addresses to try them."""

    ports: dict[int, int]
    hosts: list[str]

    def addresses(self) -> list[UdpAddress]:
        hosts = dict.fromkeys(filter(None, map(reachable, self.hosts)))
        mine = [UdpAddress(host, self.ports.get(UdpAddress(host, 0).family, 0)) for host in hosts]
        return [address for address in mine if address.port][:MAX_ADDRESSES]


class JumpAgentClient:
    """The agent at the first hop of a way, which it closes as well. `ports` is the range that it may use there.

    `addresses` are where it is, once that is known.
    """

    def __init__(
        self, way: JumpRoute, *, ports: tuple[int, int] = (0, 0), now: Callable[[], float] = time.monotonic
    ) -> None:
        self._way = way
        self._ports = ports
        self._now = now
        self._process: subprocess.Popen[bytes] | None = None
        self.addresses: list[UdpAddress] = []
        self._tried = 0.0
        self._was_well = False
        self._is_closed = False
        self._farewell = os.urandom(FAREWELL)
        self._outcome: FoundAgent | str = "it could not be asked"
        self._waiting: socket.socket | None = None
        self.says = "its agent starts when the session runs"

    def begin(
        self, pairing: PairLoop, secret: bytes, *, ssh_connection: str, stun: Callable[[], Iterable[UdpAddress]]
    ) -> None:
        """mosh-client runs: now there is time. `ssh_connection` is the far side's, `stun` what the pair asks anyway."""
        if self._way.hop is None:
            return
        self._pairing = pairing
        self._identities = packet.identities(secret)
        self._stun = stun
        self._seen_there = [] if self._way.hop.others else ssh_connection.split()[:1]
        if self._way.hop.asks:
            self.says = "ssh_config has you asked for each use of its connection: no agent there"
            return
        self._pairing.call_at(self._now() + AFTER, self._start)

    def close(self) -> None:
        """The session is over."""
        self._is_closed = True
        if self._process and self._process.poll() is None:
            self._process.kill()
        if self._waiting:
            self._waiting.close()
        _send(self._farewell, self.addresses)
        self._way.close()

    def status(self) -> dict[str, Any] | None:
        """For `--paths`: None where no jump host is on the way."""
        return {"host": self._way.hop.host, "says": self.says} if self._way.hop else None

    # The agent's start, which waits for others and so does not happen in the loop

    def _start(self) -> None:
        self._pairing.call_at(self._now() + LOOK_EVERY, self._look)
        name = self._shared()
        if name is None:
            if not self.addresses:
                self.says = "its connection cannot be shared: no agent there"
            return
        self._tried, self._was_well = self._now(), False
        self._waiting, there = socket.socketpair()
        threading.Thread(target=self._ask, args=(name, there), name="jump", daemon=True).start()
        self._pairing.watch(self._waiting.fileno(), self._finish)

    def _shared(self) -> str | None:
        """A stream whose first hop is alive."""
        return next(filter(self._way.is_shared, self._pairing.pair.streams), None)

    def _ask(self, name: str, answer: socket.socket) -> None:
        """In a thread: start the agent, look the jump host up, then wake the loop."""
        with answer, contextlib.suppress(OSError):
            self._outcome = self._found(name)
            answer.send(b".")

    def _found(self, name: str) -> FoundAgent | str:
        assert self._way.hop
        names = (each.hex() for each in (*self._identities, self._farewell))
        program = pack.jump_agent_program(SYNC, *names, *self._ports)
        command = jump_host.command_there(self._way.hop, self._way.socket(name), pack.command(program))
        status, output = self._run(command, program)
        report = _report(output)
        if report is None and status == -signal.SIGKILL:
            return f"it did not run our agent within {PATIENCE:g} s"
        if report is None:
            return f"it does not run our agent ({last_line(output) or f'exit status {status}'})"
        if "error" in report:
            return last_line(str(report["error"]))
        ports = {family: _port(report, family) for family in (4, 6)}
        # A machine in a cloud does not know its own public address.
        resolved = [each.host for each in resolve.addresses(self._way.hop.host, 0)]
        return FoundAgent(ports, [*_server(report), *resolved, *self._seen_there])

    def _run(self, command: list[str], program: bytes) -> tuple[int, str]:
        """Its exit status and what it said. In a session of its own, without a terminal: it can ask nobody."""
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            self._process = process
            assert process.stdin
            assert process.stdout
            patience = threading.Timer(PATIENCE, process.kill)
            patience.start()
            with contextlib.suppress(OSError):  # it ended, and says why
                process.stdin.write(program)
                process.stdin.close()
            output = process.stdout.read(MAX_ANSWER)
            if len(output) == MAX_ANSWER:
                process.terminate()
            process.wait()
            patience.cancel()
        return process.returncode, output.decode("utf-8", "replace")

    def _finish(self) -> None:
        """In the loop again."""
        assert self._waiting
        self._pairing.unwatch(self._waiting.fileno())
        self._waiting.close()
        self._waiting = None
        outcome = self._outcome
        if isinstance(outcome, str):
            self.says = outcome
            return
        self.addresses = outcome.addresses()
        self.says = f"its agent is at {', '.join(map(str, self.addresses)) or 'no address that others reach'}"
        self._tell()

    def _tell(self) -> None:
        """Both ends try the agent as a place to meet, and ask it where the world sees them."""
        now, pair = self._now(), self._pairing.pair
        pair.use_stun_servers([*self._stun(), *self.addresses], now)
        self._pairing.offer_also(Candidate("relay", address) for address in self.addresses)
        for name in pair.streams:
            self._pairing.say(name, frame.SERVE, {"relay": [list(address) for address in self.addresses]})

    def _look(self) -> None:
        """An agent that is not reached may not have been told of, or have ended with its machine."""
        if self._is_closed:
            return
        if any(map(_answers, self._pairing.pair.snapshot(self._now())["paths"])):
            self._was_well = True
        elif not self._waiting and self._now() - self._tried >= (0.0 if self._was_well else AGAIN):
            self._start()
            return
        elif self.addresses:
            self._tell()
        self._pairing.call_at(self._now() + LOOK_EVERY, self._look)


def _answers(path: dict[str, Any]) -> bool:
    """Whether this is a path over an agent that is there."""
    return path["kind"] == "relay" and path["state"] not in ("tried", "silent")


def _report(output: str) -> dict[str, Any] | None:
    """What the agent says, behind whatever a login shell says; None when it said nothing."""
    try:
        report = json.loads(output.partition(f"{SYNC} ")[2].partition("\n")[0])
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None


def _port(report: dict[str, Any], family: int) -> int:
    ports = report.get("ports")
    port = ports.get(str(family)) if isinstance(ports, dict) else None
    return port if type(port) is int and 0 < port < 65536 else 0


def _server(report: dict[str, Any]) -> list[str]:
    """The address at which its sshd was reached."""
    words = str(report.get("ssh_connection", "")).split()
    return [words[2].partition("%")[0]] if len(words) == 4 else []


def _send(farewell: bytes, addresses: list[UdpAddress]) -> None:
    """Twice: an agent that does not hear it holds its port for a while longer."""
    for address in (*addresses, *addresses):
        with (
            contextlib.suppress(OSError),
            socket.socket(FAMILIES[address.family], socket.SOCK_DGRAM) as sock,
        ):
            sock.sendto(farewell, tuple(address))
