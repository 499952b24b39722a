"""The agent on a jump host: it passes packets between two ends that no NAT lets through to each other.

`tunneld mosh` starts it from its source text (see tunneld.shipped.pack), over the SSH connection that leads through the
jump host anyway. The agent holds a UDP socket of each family, tells everybody who asks (STUN) from where the question
came, and passes the two ends' sealed packets on, which it cannot read. Once it has said its ports it needs no SSH. It
lives for as long as it is used, or until it gets the farewell that came with its text.

It says one line, behind whatever login shells say:

    SYNC {"ports": {"4": 40111, "6": 40112}, "ssh_connection": "192.0.2.7 50022 192.0.2.1 22"}
    SYNC {"error": "a sentence"}
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tunneld.core.pair import stun
from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.packet import identity_of
from tunneld.core.pair.relaying import Relaying
from tunneld.core.stream.flow import Rate
from tunneld.shipped.udp_sockets import ADDRESS_FAMILIES, LONGEST_PACKET, batch, bound_everywhere

IP_PKTINFO = 8 if sys.platform == "linux" else 0
"""The option and the kind of message of linux/in.h, which Python's socket module lacks. struct in_pktinfo holds the
interface's number, the address to answer from, and the address that the packet was sent to: four bytes each."""

ANCILLARY = 64
"""Bytes for what the system says about a packet; struct in6_pktinfo has 20 and a header."""

MAX_RETURN_ROUTES = 8
"""Addresses of the two ends whose return routes are remembered: each end has two, and NATs make a few more."""

ReturnRoute = list[tuple[int, int, bytes]]
"""Ancillary data for sendmsg(2) that makes a packet leave from one of this machine's addresses; empty: from any."""

STUN_ANSWER_RATE = 20.0
"""Answers to STUN questions a second, and at once. A pair asks ten times a minute, and anybody may ask in another's
name."""

UNVISITED_LIMIT = 60.0
"""Seconds after which an agent leaves that no end has reached: probably a firewall keeps UDP out."""

SILENCE_LIMIT = 90.0
"""Seconds without a packet of either end, after which the agent leaves. A path that answers is asked every 10 s, and
one that does not every 30 s."""

LONE_END_LIMIT = 24 * 3600.0
"""Seconds for which one end may wait for the other: a laptop sleeps, and a person wants its session the next day."""

LIFE_LIMIT = 30 * 24 * 3600.0
"""Seconds after which the agent leaves in any case: else somebody could record packets, and keep it alive with them."""


class JumpAgent:
    """Serves one pair. `identities` are those of packet.identities, `farewell` is the datagram that ends the agent, and
    `now` gives seconds of a steady clock."""

    def __init__(
        self, identities: tuple[bytes, bytes], farewell: bytes, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._now = now
        self._identities = identities
        self._relaying = Relaying(identities, self.counts)
        self._return_routes: dict[UdpAddress, ReturnRoute] = {}
        self._answers = Rate(STUN_ANSWER_RATE, STUN_ANSWER_RATE)
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[int, socket.socket] = {}
        self._began = now()
        self._farewell = farewell
        self._is_over = False

    def open(self, ports: range) -> dict[int, int]:
        """Open a socket in each family that this machine has, each on the first of these ports that is free (0: any).

        Returns:
            The port by family, 4 and 6.

        Raises:
            OSError: none could be opened.
        """
        error: OSError | None = None
        for family in ADDRESS_FAMILIES:
            try:
                self._sockets[family] = _bound(family, ports)
            except OSError as fault:
                error = error or fault
        if error and not self._sockets:
            raise error
        for sock in self._sockets.values():
            self._selector.register(sock, selectors.EVENT_READ, sock)
        return {family: sock.getsockname()[1] for family, sock in self._sockets.items()}

    def run(self) -> None:
        """Serve until nobody needs the agent any more."""
        while (left := self.end() - self._now()) > 0:
            self.serve(left)

    def serve(self, seconds: float) -> None:
        """Wait for packets for at most so many seconds, and deal with those that come first."""
        for key, _ in self._selector.select(seconds):
            self._read(key.data)

    def end(self) -> float:
        """The time at which to leave, if nothing comes until then."""
        if self._is_over:
            return self._began
        heard = [moment for moment in self._relaying.heard if moment is not None]
        if not heard:
            return self._began + UNVISITED_LIMIT
        other = min(heard) if len(heard) == 2 else self._began
        return min(max(heard) + SILENCE_LIMIT, other + LONE_END_LIMIT, self._began + LIFE_LIMIT)

    def close(self) -> None:
        """Close the sockets and the selector."""
        for sock in self._sockets.values():
            sock.close()
        self._selector.close()

    def _read(self, sock: socket.socket) -> None:
        for packet, ancillary, _, source in batch(lambda: sock.recvmsg(LONGEST_PACKET, ANCILLARY)):
            self._take(packet, UdpAddress(source[0].partition("%")[0], source[1]), _return_route(ancillary))

    def _take(self, packet: bytes, source: UdpAddress, route: ReturnRoute) -> None:
        now = self._now()
        if hmac.compare_digest(packet, self._farewell):
            self._is_over = True
        elif not stun.is_stun(packet):
            self._remember(packet, source, route)
            to = self._relaying.pass_on(packet, source, now)
            if to:
                self._send(packet, to, self._return_routes.get(to, []))
        elif self._answers.allows(now):
            self._send(stun.respond(packet, source), source, route)
        else:
            self.counts["questions_refused"] += 1

    def _remember(self, packet: bytes, source: UdpAddress, route: ReturnRoute) -> None:
        """Keep the newest routes, which stand last: whoever has seen an identity can send it from many addresses."""
        if identity_of(packet) in self._identities:
            self._return_routes.pop(source, None)
            self._return_routes[source] = route
            if len(self._return_routes) > MAX_RETURN_ROUTES:
                del self._return_routes[next(iter(self._return_routes))]

    def _send(self, packet: bytes | None, to: UdpAddress, route: ReturnRoute) -> None:
        if packet:
            with contextlib.suppress(OSError):  # lost, as packets are
                self._sockets[to.family].sendmsg([packet], route, 0, tuple(to))


def _bound(family: int, ports: range) -> socket.socket:
    """A socket on the first of these ports that is free.

    Raises:
        OSError: none is free, or this machine does not have the family.
    """
    error = OSError("no port was asked for")
    for port in ports:
        try:
            sock = bound_everywhere(family, port)
        except OSError as fault:
            error = fault
            continue
        _ask_for_destinations(sock, family)
        return sock
    raise error


def _ask_for_destinations(sock: socket.socket, family: int) -> None:
    """Have the system say to which of this machine's addresses a packet came: a NAT takes an answer from that address
    alone."""
    option = (socket.IPPROTO_IPV6, getattr(socket, "IPV6_RECVPKTINFO", 0)) if family == 6 else (0, IP_PKTINFO)
    if option[1]:
        with contextlib.suppress(OSError):  # then the system chooses, which is right where there is one address
            sock.setsockopt(*option, 1)


def _return_route(ancillary: ReturnRoute) -> ReturnRoute:
    """The route that makes an answer leave from the address to which the packet came."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, getattr(socket, "IPV6_PKTINFO", 0)):
            return [(level, kind, data[:16] + bytes(4))]
        if (level, kind) == (0, IP_PKTINFO):
            return [(level, kind, bytes(4) + data[4:8] + bytes(4))]
    return []


def _say(sync: str, report: dict[str, Any]) -> None:
    sys.stdout.write(f"{sync} {json.dumps(report)}\n")
    sys.stdout.flush()


def _outlive_session() -> None:
    """Go on in a process and a session of our own, with no file descriptor of the SSH session, so that it can end."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def main(sync: str, client: str, far: str, farewell: str, first: int, last: int) -> None:
    """Serve the pair whose ends have the identities `client` and `far`, until `farewell` comes (all in hexadecimal).

    `first` to `last` are the ports to choose from; 0 and 0 stand for any.
    """
    agent = JumpAgent((bytes.fromhex(client), bytes.fromhex(far)), bytes.fromhex(farewell))
    try:
        ports = agent.open(range(first, last + 1))
    except OSError as error:
        _say(sync, {"error": f"it has no UDP port for us: {error.strerror or error}"})
        return
    _say(sync, {"ports": ports, "ssh_connection": os.environ.get("SSH_CONNECTION", "")})
    _outlive_session()
    agent.run()
