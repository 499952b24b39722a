"""Datagrams that wait for credit: little, fresh, and fair between flows.

mosh brings its peer up to date again from the last acknowledged state after RTO + ack delay (at most 1.1 s), so what is
older helps nobody and only delays what is new. Its instructions may span several datagrams, sent at once and all
full-size but the last. Half an instruction is worthless, so whole ones are dropped, the oldest first, and one that has
begun to leave is let finish. When too much waits, the flow that has most gives way. Flows that nobody has answered yet
may be anybody's: they wait for the others, and give way before them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

MAX_AGE = 1.1
"""Seconds: mosh's largest RTO (1 s) and its acknowledgement delay (100 ms)."""

SUPERSEDED = 0.25
"""Seconds, mosh's longest frame interval: an instruction that waited for longer gives way to a newer one, or a slow
line would always be MAX_AGE behind."""

MAX_BYTES = 48 * 1024
"""Bytes that wait, over all flows: one large screen's instruction and room for the keystrokes of others."""

OVERHEAD = 64
"""Bytes that a datagram counts beyond its own: without it, empty ones would be free."""

FULL_SIZE = 1200
"""Bytes: a datagram of at least this has another of its instruction behind it (mosh fills 1252, over IPv6 1216)."""

TOGETHER = 0.25
"""Seconds that an instruction takes to arrive at most: mosh sends it at once, 1 Mbit/s spreads 30 KB so far."""


class Waiting(NamedTuple):
    """`stranger`: nobody has answered its flow yet."""

    flow: int
    number: int
    datagram: bytes
    since: float
    stranger: bool = False

    @property
    def cost(self) -> int:
        return len(self.datagram) + OVERHEAD


class _Instruction:
    """What is left of one of mosh's instructions, as far as datagrams show them."""

    def __init__(self, since: float) -> None:
        self.parts: deque[Waiting] = deque()
        self.since = since
        self.is_open = True  # its last datagram has not come
        self.has_begun = False  # to leave
        self.was_dropped = False

    def takes(self, waiting: Waiting) -> bool:
        return self.is_open and waiting.since - self.since < TOGETHER


class _Lane:
    """One flow's instructions, first in, first out."""

    def __init__(self) -> None:
        self.instructions: deque[_Instruction] = deque()
        self.cost = 0
        self.is_stranger = False
        self._arriving = _Instruction(float("-inf"))
        self._popped = float("-inf")

    def __len__(self) -> int:
        return sum(len(instruction.parts) for instruction in self.instructions)

    def push(self, waiting: Waiting) -> bool:
        """False when it is the rest of an instruction that was dropped: it goes the same way."""
        self.is_stranger = waiting.stranger
        if not self._arriving.takes(waiting):
            self._arriving = _Instruction(waiting.since)
        arriving = self._arriving
        arriving.is_open = len(waiting.datagram) >= FULL_SIZE
        if arriving.was_dropped:
            return False
        if not arriving.parts:
            self.instructions.append(arriving)
        arriving.parts.append(waiting)
        self.cost += waiting.cost
        return True

    def pop(self, now: float) -> Waiting:
        head = self.instructions[0]
        waiting = head.parts.popleft()
        head.has_begun = True
        if not head.parts:
            self.instructions.popleft()
        self.cost -= waiting.cost
        self._popped = now
        return waiting

    def drop_stale(self, now: float) -> int:
        """Drop what is too old; the number of datagrams that went."""
        dropped = 0
        while self.instructions and self._is_stale(self.instructions[0], now):
            dropped += self._drop(0)
        return dropped

    def drop_oldest(self) -> int:
        """Drop the oldest instruction that has not begun to leave, if any; the number of datagrams that went."""
        return self._drop(1 if len(self.instructions) > 1 and self.instructions[0].has_begun else 0)

    def _is_stale(self, head: _Instruction, now: float) -> bool:
        if head.has_begun:
            return now - self._popped > MAX_AGE  # on a slow line it may take long, but it must move
        return now - head.since > (SUPERSEDED if len(self.instructions) > 1 else MAX_AGE)

    def _drop(self, place: int) -> int:
        instruction = self.instructions[place]
        del self.instructions[place]
        instruction.was_dropped = True
        self.cost -= sum(waiting.cost for waiting in instruction.parts)
        return len(instruction.parts)


class DatagramQueue:
    """Bounded in bytes and age; `dropped` counts datagrams that were given up."""

    def __init__(self) -> None:
        self.dropped = 0
        self._lanes: OrderedDict[int, _Lane] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    @property
    def cost(self) -> int:
        """Bytes that wait, each datagram's overhead included."""
        return sum(lane.cost for lane in self._lanes.values())

    def push(self, waiting: Waiting) -> None:
        lane = self._lanes.setdefault(waiting.flow, _Lane())
        if not lane.push(waiting):
            self.dropped += 1
            return
        while self.cost > MAX_BYTES:
            crowded = max(self._lanes.values(), key=lambda lane: (lane.is_stranger and lane.cost > 0, lane.cost))
            self.dropped += crowded.drop_oldest()

    def pop(self, now: float) -> Waiting | None:
        """The next fresh datagram, flows taking turns, strangers last; None when nothing waits."""
        for lane in self._lanes.values():
            self.dropped += lane.drop_stale(now)
        ready = [(flow, lane) for flow, lane in self._lanes.items() if lane.instructions]
        if not ready:
            return None
        flow, lane = min(ready, key=lambda one: one[1].is_stranger)
        self._lanes.move_to_end(flow)
        return lane.pop(now)

    def forget(self, flow: int) -> None:
        """The flow has ended: what waits for it goes, uncounted."""
        self._lanes.pop(flow, None)
