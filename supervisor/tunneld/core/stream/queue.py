"""Datagrams that wait for the send window of a stream: few, fresh, and fair between flows.

mosh sends its state anew after RTO + acknowledgement delay (at most 1.1 s), so an older datagram helps nobody and only
delays newer ones. One of mosh's instructions may span several datagrams, sent at once and all full-size but the last.
Half an instruction is worthless, so the queue drops whole ones, the oldest first, and lets an instruction finish once
its first datagram has left. When too much waits, the flow with the most bytes loses its oldest instruction. A stranger
is a flow that mosh-server has not answered yet: anybody may have made it. Strangers wait until no other flow has
anything to send, and are the first that lose datagrams.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

MAX_AGE = 1.1
"""Seconds: mosh's largest RTO (1 s) and its acknowledgement delay (100 ms)."""

SUPERSEDED_AGE = 0.25
"""Seconds (mosh's longest frame interval) after which an instruction is dropped if a newer one of its flow waits.
Without this limit a slow line would always be MAX_AGE behind."""

MAX_BYTES = 48 * 1024
"""Bytes that wait, over all flows: one large screen's instruction, and room for other flows' keystrokes."""

DATAGRAM_COST = 64
"""Bytes that each datagram counts beyond its own: otherwise empty datagrams could wait without limit."""

FULL_SIZE = 1200
"""Bytes: a datagram of at least this size is not the last of its instruction (mosh fills 1252, over IPv6 1216)."""

INSTRUCTION_SPREAD = 0.25
"""Seconds within which all datagrams of one instruction arrive: mosh sends them at once, and a line of 1 Mbit/s takes
this long for 30 KB."""


class Waiting(NamedTuple):
    """A datagram that waits, `since` when (seconds); `from_stranger`: mosh-server has not answered its flow yet."""

    flow: int
    number: int
    datagram: bytes
    since: float
    from_stranger: bool = False

    @property
    def cost(self) -> int:
        """Bytes that the datagram counts for in the queue."""
        return len(self.datagram) + DATAGRAM_COST


class _Instruction:
    """The waiting datagrams of one of mosh's instructions, as far as their sizes and times tell."""

    def __init__(self, since: float) -> None:
        self.parts: deque[Waiting] = deque()
        self.since = since
        self.is_open = True  # its last datagram has not come yet
        self.has_begun = False  # its first datagram has left
        self.was_dropped = False

    def takes(self, waiting: Waiting) -> bool:
        return self.is_open and waiting.since - self.since < INSTRUCTION_SPREAD


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
        """Queue a datagram. False: it belongs to an instruction that was dropped, and is dropped as well."""
        self.is_stranger = waiting.from_stranger
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
        """Drop the instructions that are too old; returns how many datagrams they had."""
        dropped = 0
        while self.instructions and self._is_stale(self.instructions[0], now):
            dropped += self._drop(0)
        return dropped

    def drop_oldest(self) -> int:
        """Drop the oldest instruction, or the second one if the first has begun; returns how many datagrams it had."""
        return self._drop(1 if len(self.instructions) > 1 and self.instructions[0].has_begun else 0)

    def _is_stale(self, head: _Instruction, now: float) -> bool:
        if head.has_begun:
            return now - self._popped > MAX_AGE  # a slow line may take long over it, but must send some of it
        return now - head.since > (SUPERSEDED_AGE if len(self.instructions) > 1 else MAX_AGE)

    def _drop(self, place: int) -> int:
        instruction = self.instructions[place]
        del self.instructions[place]
        instruction.was_dropped = True
        self.cost -= sum(waiting.cost for waiting in instruction.parts)
        return len(instruction.parts)


class DatagramQueue:
    """A queue that is bounded in bytes and age; `dropped` counts the datagrams that it dropped."""

    def __init__(self) -> None:
        self.dropped = 0
        self._lanes: OrderedDict[int, _Lane] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    @property
    def cost(self) -> int:
        """Bytes that wait, with DATAGRAM_COST for each datagram."""
        return sum(lane.cost for lane in self._lanes.values())

    def push(self, waiting: Waiting) -> None:
        """Queue a datagram; when more than MAX_BYTES wait, drop from the flow that has most, strangers first."""
        lane = self._lanes.setdefault(waiting.flow, _Lane())
        if not lane.push(waiting):
            self.dropped += 1
            return
        while self.cost > MAX_BYTES:
            crowded = max(self._lanes.values(), key=lambda lane: (lane.is_stranger and lane.cost > 0, lane.cost))
            self.dropped += crowded.drop_oldest()

    def pop(self, now: float) -> Waiting | None:
        """Take the next fresh datagram; flows take turns, strangers come last. None when nothing waits."""
        for lane in self._lanes.values():
            self.dropped += lane.drop_stale(now)
        ready = [(flow, lane) for flow, lane in self._lanes.items() if lane.instructions]
        if not ready:
            return None
        flow, lane = min(ready, key=lambda item: item[1].is_stranger)
        self._lanes.move_to_end(flow)
        return lane.pop(now)

    def forget(self, flow: int) -> None:
        """Drop what waits for this flow, uncounted: the flow has ended."""
        self._lanes.pop(flow, None)
