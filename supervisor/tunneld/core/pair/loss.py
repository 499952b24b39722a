"""How much of what is sent on a path gets lost: from what was sent and what the peer says has come."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from math import inf
from typing import NamedTuple

REMEMBERED = 30.0
"""Seconds: a typist's seconds hold about 20 packets, so that one loss in a hundred shows within a few."""

EVERY = 0.2
"""Seconds between two entries, so that the list stays short."""

OVERTAKEN = 0.8
"""Seconds of which one entry counts. At the end of a while the best: what was only overtaken has come in one of them.
At its beginning the worst: in a better one the probe itself was overtaken, which looked like a loss afterwards."""


class _Entry(NamedTuple):
    when: float
    sent: int
    came: int

    @property
    def missing(self) -> int:
        return self.sent - self.came


class Loss:
    """Packets that were sent up to a probe, and that had come when it was answered, both counted from the start."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()

    def learn(self, sent: int, came: int, now: float) -> None:
        if self._entries and sent < self._entries[-1].sent:
            return  # a later answer has overtaken it
        if self._entries and came < self._entries[-1].came // 2:
            self._entries.clear()  # the peer began to count anew
        if len(self._entries) > 1 and now - self._entries[-2].when < EVERY:
            self._entries.pop()
        self._entries.append(_Entry(now, sent, came))
        while now - self._entries[0].when > REMEMBERED:
            self._entries.popleft()

    def lately(self, seconds: float, now: float) -> tuple[int, int]:
        """How many packets the answers of the last `seconds` are about, and how many of them were lost."""
        entries = list(self._entries)
        recent = entries[bisect_left(entries, (now - seconds,)) :]
        if len(recent) < 2:
            return 0, 0
        early = recent[: bisect_left(recent, (recent[0].when + OVERTAKEN,))]
        late = recent[min(len(recent) - 2, bisect_right(recent, (recent[-1].when - OVERTAKEN, inf))) :]
        first = max(early, key=lambda entry: entry.missing)
        sent = recent[-1].sent - first.sent
        return sent, max(0, min(sent, min(entry.missing for entry in late) - first.missing))

    def forget(self) -> None:
        self._entries.clear()
