"""Captures UDP datagrams at an interface, and sends datagrams with a forged source."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.lab.machine import Machine
from tests.lab.wire import ETH_P_ALL, FRAME, PACKET_IGNORE_OUTGOING, SO_RCVBUFFORCE, SOCKET_BUFFER, SOL_PACKET

UDP = 17
ETHERNET = 14  # bytes before the packet, on loopback as well
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
IPV6_HEADER = 40


class CapturedDatagram(NamedTuple):
    source: tuple[str, int]
    target: tuple[str, int]
    payload: bytes


@dataclass(slots=True)
class Capture:
    """`datagrams`: those that came in so far, oldest first."""

    datagrams: list[CapturedDatagram] = field(default_factory=list)

    def payloads(self, head: bytes) -> list[bytes]:
        """The payloads that start with `head`."""
        return [each.payload for each in self.datagrams if each.payload.startswith(head)]


@contextmanager
def listening(machine: Machine, interface: str) -> Iterator[Capture]:
    """Capture UDP that comes in on an interface in this block; on loopback each datagram is captured once."""
    capture, closing = Capture(), threading.Event()
    with machine.entered():
        tapped = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with tapped:
        tapped.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        tapped.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER)
        tapped.bind((interface, ETH_P_ALL))
        tapped.settimeout(0.1)

        def record() -> None:
            while not closing.is_set():
                try:
                    found = parsed(tapped.recv(FRAME))
                except TimeoutError:
                    continue
                if found is not None:
                    capture.datagrams.append(found)

        thread = threading.Thread(target=record, name=f"capture at {machine.name}")
        thread.start()
        try:
            yield capture
        finally:
            closing.set()
            thread.join()


def parsed(frame: bytes) -> CapturedDatagram | None:
    """The UDP datagram in an Ethernet frame; None when the frame holds something else."""
    packet = frame[ETHERNET:]
    if frame[12:14] == IPV4 and packet[9] == UDP:
        size = (packet[0] & 15) * 4
        hosts = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    elif frame[12:14] == IPV6 and packet[6] == UDP:
        size = IPV6_HEADER
        hosts = socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return None
    source, target, length = struct.unpack_from("!HHH", packet, size)
    return CapturedDatagram((hosts[0], source), (hosts[1], target), packet[size + 8 : size + length])


@contextmanager
def forger(machine: Machine) -> Iterator[Forger]:
    """Open a raw socket on `machine` that sends datagrams with any source; no router on the way may check sources."""
    with machine.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        yield Forger(raw)


@dataclass(frozen=True, slots=True)
class Forger:
    raw: socket.socket

    def send(self, forged: CapturedDatagram) -> None:
        """Send over IPv4 without a UDP checksum, which RFC 768 allows; the kernel fills in the checksum of IP."""
        (source, from_port), (target, to_port), payload = forged
        length = 8 + len(payload)
        addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, UDP, 0) + addresses
        self.raw.sendto(header + struct.pack("!HHHH", from_port, to_port, length, 0) + payload, (target, 0))
