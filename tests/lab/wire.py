"""The program in a `wan` namespace that passes frames between two interfaces as a real link would.

Standard library only; `lab.link` runs it as `python wire.py SEED`. It reads a JSON object from each line of
standard input, such as `{"up": {...}, "down": {...}}`, and changes those fields of `Way`. It answers each line with a
JSON line of all fields, the counters among them. It ends at the end of its input.

ARP always passes at once: without ARP a cut would make neighbours say "unreachable", but it must be silent.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import os
import random
import select
import socket
import sys
import time
from dataclasses import dataclass, field

SOL_PACKET = 263
SO_RCVBUFFORCE = 33  # asm/socket.h; beyond net.core.rmem_max, else the kernel would drop bursts before we do
PACKET_IGNORE_OUTGOING = 23  # linux/if_packet.h
ETH_P_ALL = 3
ARP = b"\x08\x06"
FRAME = 65536
BURST = 64  # frames read from one side before the other side has its turn
SOCKET_BUFFER = 16 << 20


@dataclass
class Way:
    """One direction of the link; `up` is from the home to the internet."""

    delay: float = 0.0  # seconds
    jitter: float = 0.0  # seconds, added evenly from 0 to this
    loss: float = 0.0  # 0 to 1
    rate: float = 0.0  # bits a second; 0 is unlimited
    room: int = 256_000  # bytes that may wait for a limited rate; more are dropped
    cut: bool = False  # a black hole; frames under way are lost too
    reorder: bool = False  # jitter may change the order of frames; else they keep it

    frames: int = 0  # that came in
    bytes: int = 0
    lost: int = 0  # by `loss` or `cut`
    overflowed: int = 0  # by `room`
    passed: int = 0


@dataclass
class Wire:
    """The link's logic, without sockets or a clock: frames that arrive are kept until they are due."""

    chance: random.Random
    ways: dict[str, Way] = field(default_factory=lambda: {"up": Way(), "down": Way()})
    _due: list[tuple[float, int, str, bytes]] = field(default_factory=list)
    _count: int = 0
    _free_at: dict[str, float] = field(default_factory=lambda: {"up": 0.0, "down": 0.0})
    _last: dict[str, float] = field(default_factory=lambda: {"up": 0.0, "down": 0.0})

    def arrive(self, frame: bytes, name: str, now: float) -> None:
        way = self.ways[name]
        if frame[12:14] == ARP:
            self._push(now, name, frame)
            return
        way.frames += 1
        way.bytes += len(frame)
        # Draw a random number during a cut too, so that a cut does not change which later frames are lost.
        if (self.chance.random() < way.loss) | way.cut:
            way.lost += 1
            return
        due = now
        if way.rate:
            start = max(now, self._free_at[name])
            if (start - now) * way.rate / 8 > way.room:
                way.overflowed += 1
                return
            due = self._free_at[name] = start + len(frame) * 8 / way.rate
        due += way.delay + way.jitter * self.chance.random()
        if not way.reorder:
            due = self._last[name] = max(due, self._last[name])
        self._push(due, name, frame)

    def take(self, now: float) -> list[tuple[str, bytes]]:
        """The frames that are due, oldest first, each with its direction."""
        out = []
        while self._due and self._due[0][0] <= now:
            _, _, name, frame = heapq.heappop(self._due)
            self.ways[name].passed += frame[12:14] != ARP
            out.append((name, frame))
        return out

    def deadline(self) -> float | None:
        return self._due[0][0] if self._due else None

    def change(self, changes: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
        for name, fields in changes.items():
            self.ways[name] = dataclasses.replace(self.ways[name], **fields)  # type: ignore[arg-type]
            if self.ways[name].cut:
                kept = [entry for entry in self._due if entry[2] != name]
                self.ways[name].lost += len(self._due) - len(kept)
                self._due = kept
                heapq.heapify(self._due)
        return {name: dataclasses.asdict(way) for name, way in self.ways.items()}

    def _push(self, due: float, name: str, frame: bytes) -> None:
        self._count += 1
        heapq.heappush(self._due, (due, self._count, name, frame))


def tap(interface: str) -> socket.socket:
    tapped = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tapped.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    tapped.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER)
    tapped.bind((interface, ETH_P_ALL))
    tapped.setblocking(False)
    return tapped


def pump(wire: Wire, sides: dict[str, socket.socket], name: str) -> None:
    for _ in range(BURST):
        try:
            frame = sides[name].recv(FRAME)
        except BlockingIOError:
            return
        wire.arrive(frame, name, time.monotonic())


def answer(counters: dict[str, dict[str, object]]) -> None:
    os.write(1, json.dumps(counters).encode() + b"\n")


def main(seed: int) -> None:
    wire = Wire(random.Random(seed))
    into = {"up": tap("home"), "down": tap("away")}
    out_of = {"up": into["down"], "down": into["up"]}
    answer(wire.change({}))
    pending = b""
    while True:
        deadline = wire.deadline()
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        # select, not poll, since the time-out of select counts microseconds.
        ready, _, _ = select.select([0, *(tapped.fileno() for tapped in into.values())], [], [], wait)
        for name, tapped in into.items():
            if tapped.fileno() in ready:
                pump(wire, into, name)
        for name, frame in wire.take(time.monotonic()):
            try:
                out_of[name].send(frame)
            except OSError:  # the far interface is down or its queue is full: a frame is lost, as on a real link
                wire.ways[name].overflowed += 1
        if 0 in ready:
            chunk = os.read(0, FRAME)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                answer(wire.change(json.loads(line)))


if __name__ == "__main__":
    main(int(sys.argv[1]))
