"""The agent on a jump host: a place for packets where two ends meet that no NAT lets through to each other.

`tunneld mosh` starts it over the SSH connection that it goes through anyway, from its source text (see
tunneld.shipped.pack). It holds a UDP socket of each family, tells whoever asks (STUN) from where the question came,
and passes the two ends' sealed packets on, which it cannot read. Once it has said its ports it needs no SSH: it lives
for as long as it is used, or until it gets the farewell that came with its text.

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

FAMILIES = {4: (socket.AF_INET, "0.0.0.0"), 6: (socket.AF_INET6, "::")}

MAX_PACKET = 2048
"""Bytes to read of one packet: more than any that is passed on, so that none is cut to a size that would be."""

IP_PKTINFO = 8 if sys.platform == "linux" else 0
"""linux/in.h; in_pktinfo: the interface's number, the address to answer from, and the one that the packet had."""

ANCILLARY = 64
"""Bytes for what the system says of a packet; in6_pktinfo has 20 and a header."""

MAX_REMEMBERED = 8
"""Addresses of the two ends, and the ways back to them: each has two, and a few that NATs made."""

Told = list[tuple[int, int, bytes]]

BATCH = 64
"""Packets read from one socket before the other has its turn."""

ANSWERS = 20.0
"""A second, and at once, to STUN questions: a pair asks ten times a minute, and anybody may ask in another's name."""

UNUSED = 60.0
"""Seconds until an agent to which nobody comes leaves: a firewall in front of it lets no UDP in."""

IDLE = 90.0
"""Seconds without a packet of either end. A path that answers is asked each 10 s, one that does not each 30."""

ALONE = 24 * 3600.0
"""Seconds for which one end may wait for the other: a laptop sleeps, and its session is asked for the next day."""

LONGEST = 30 * 24 * 3600.0
"""Seconds: whoever records packets and repeats them keeps an agent no longer than this."""


class JumpAgent:
    """One pair's meeting place. `identities` are those of packet.identities; `farewell` ends it."""

    def __init__(
        self, identities: tuple[bytes, bytes], farewell: bytes, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._now = now
        self._identities = identities
        self._relaying = Relaying(identities, self.counts)
        self._back: dict[UdpAddress, Told] = {}
        self._answers = Rate(ANSWERS, ANSWERS)
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[int, socket.socket] = {}
        self._began = now()
        self._farewell = farewell
        self._is_over = False

    def open(self, ports: range) -> dict[int, int]:
        """Open a socket in each family that this machine has, on one of these ports; the port by family.

        Raises:
            OSError: none could be opened.
        """
        error: OSError | None = None
        for family in FAMILIES:
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
        """Serve until nobody needs it any more."""
        while (left := self.end() - self._now()) > 0:
            self.serve(left)

    def serve(self, patience: float) -> None:
        """Take what comes within so many seconds."""
        for key, _ in self._selector.select(patience):
            self._read(key.data)

    def end(self) -> float:
        """When to leave, if nothing comes until then."""
        if self._is_over:
            return self._began
        heard = [moment for moment in self._relaying.heard if moment is not None]
        if not heard:
            return self._began + UNUSED
        first = min(heard) if len(heard) == 2 else self._began
        return min(max(heard) + IDLE, first + ALONE, self._began + LONGEST)

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._selector.close()

    def _read(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                packet, told, _, source = sock.recvmsg(MAX_PACKET, ANCILLARY)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP answer to something that we sent
            self._take(packet, UdpAddress(source[0].partition("%")[0], source[1]), _same_way(told))

    def _take(self, packet: bytes, source: UdpAddress, back: Told) -> None:
        now = self._now()
        if hmac.compare_digest(packet, self._farewell):
            self._is_over = True
        elif not stun.is_stun(packet):
            self._remember(packet, source, back)
            to = self._relaying.pass_on(packet, source, now)
            if to:
                self._send(packet, to, self._back.get(to, []))
        elif self._answers.allows(now):
            self._send(stun.respond(packet, source), source, back)
        else:
            self.counts["questions_refused"] += 1

    def _remember(self, packet: bytes, source: UdpAddress, back: Told) -> None:
        if identity_of(packet) in self._identities:
            self._back.pop(source, None)
            self._back[source] = back
            if len(self._back) > MAX_REMEMBERED:
                del self._back[next(iter(self._back))]

    def _send(self, packet: bytes | None, to: UdpAddress, back: Told) -> None:
        if packet:
            with contextlib.suppress(OSError):  # lost, as packets are
                self._sockets[to.family].sendmsg([packet], back, 0, tuple(to))


def _bound(family: int, ports: range) -> socket.socket:
    """A socket on the first of these ports that is free.

    Raises:
        OSError: none is, or this machine does not have the family.
    """
    kind, everywhere = FAMILIES[family]
    error = OSError("no port was asked for")
    for port in ports:
        sock = socket.socket(kind, socket.SOCK_DGRAM)
        try:
            if family == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((everywhere, port))
        except OSError as fault:
            sock.close()
            error = fault
            continue
        sock.setblocking(False)
        _ask_for_ways(sock, family)
        return sock
    raise error


def _ask_for_ways(sock: socket.socket, family: int) -> None:
    """Have the system say to which of this machine's addresses a packet came: NATs take no answer from another one."""
    option = (socket.IPPROTO_IPV6, getattr(socket, "IPV6_RECVPKTINFO", 0)) if family == 6 else (0, IP_PKTINFO)
    if option[1]:
        with contextlib.suppress(OSError):  # then the system chooses, rightly where there is one address
            sock.setsockopt(*option, 1)


def _same_way(told: Told) -> Told:
    """What makes a packet leave from the address that another one came to."""
    for level, kind, data in told:
        if (level, kind) == (socket.IPPROTO_IPV6, getattr(socket, "IPV6_PKTINFO", 0)):
            return [(level, kind, data[:16] + bytes(4))]
        if (level, kind) == (0, IP_PKTINFO):
            return [(level, kind, bytes(4) + data[4:8] + bytes(4))]
    return []


def _say(sync: str, report: dict[str, Any]) -> None:
    sys.stdout.write(f"{sync} {json.dumps(report)}\n")
    sys.stdout.flush()


def _stay_behind() -> None:
    """The SSH session ends, and we do not."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def main(sync: str, client: str, far: str, farewell: str, first: int, last: int) -> None:
    """Serve the pair with these identities (all in hexadecimal) on ports from `first` to `last`; 0 and 0: on any."""
    meeting = JumpAgent((bytes.fromhex(client), bytes.fromhex(far)), bytes.fromhex(farewell))
    try:
        ports = meeting.open(range(first, last + 1))
    except OSError as error:
        _say(sync, {"error": f"it has no UDP port for us: {error.strerror or error}"})
        return
    _say(sync, {"ports": ports, "ssh_connection": os.environ.get("SSH_CONNECTION", "")})
    _stay_behind()
    meeting.run()
