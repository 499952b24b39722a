"""Datagrams as they pass an interface, and datagrams that say they come from somebody else."""

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


class Heard(NamedTuple):
    source: tuple[str, int]
    target: tuple[str, int]
    payload: bytes


@dataclass(slots=True)
class Ear:
    """What came in so far, oldest first."""

    heard: list[Heard] = field(default_factory=list)

    def payloads(self, head: bytes) -> list[bytes]:
        """Those that begin so."""
        return [each.payload for each in self.heard if each.payload.startswith(head)]


@contextmanager
def listening(machine: Machine, interface: str) -> Iterator[Ear]:
    """UDP that comes in on an interface of the machine, to the end of the block; on loopback, each datagram once."""
    ear, closing = Ear(), threading.Event()
    with machine.entered():
        tapped = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with tapped:
        tapped.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        tapped.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER)
        tapped.bind((interface, ETH_P_ALL))
        tapped.settimeout(0.1)

        def listen() -> None:
            while not closing.is_set():
                try:
                    found = parsed(tapped.recv(FRAME))
                except TimeoutError:
                    continue
                if found is not None:
                    ear.heard.append(found)

        thread = threading.Thread(target=listen, name=f"ear at {machine.name}")
        thread.start()
        try:
            yield ear
        finally:
            closing.set()
            thread.join()


def parsed(frame: bytes) -> Heard | None:
    """The whole UDP datagram in an Ethernet frame, if that is what it holds."""
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
    return Heard((hosts[0], source), (hosts[1], target), packet[size + 8 : size + length])


@contextmanager
def forger(machine: Machine) -> Iterator[Forger]:
    """Sends datagrams with any source, from a machine on whose way nobody looks at sources."""
    with machine.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        yield Forger(raw)


@dataclass(frozen=True, slots=True)
class Forger:
    raw: socket.socket

    def send(self, forged: Heard) -> None:
        """IPv4, without a checksum for UDP (RFC 768 allows it); the kernel makes that of IP."""
        (source, from_port), (target, to_port), payload = forged
        length = 8 + len(payload)
        addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, UDP, 0) + addresses
        self.raw.sendto(header + struct.pack("!HHHH", from_port, to_port, length, 0) + payload, (target, 0))
