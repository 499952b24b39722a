"""How much of what is sent on a path gets lost: we know what was sent, and the peer's answers say what has come."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from math import inf
from typing import NamedTuple

REMEMBERED = 30.0
"""Seconds: a typist causes about 20 packets a second, so one loss in a hundred shows within a few seconds."""

ENTRY_EVERY = 0.2
"""Seconds between two entries, so that the list stays short."""

OVERTAKEN = 0.8
"""Seconds at each end of a period within which one entry is chosen, since packets overtake each other, and any single
entry may be wrong. At the end of a period the entry with the fewest missing packets counts: a packet that was only
overtaken has arrived by then. At the beginning the entry with the most missing packets counts: with a better one,
packets that were only late would look lost afterwards."""

MIN_SAMPLE = 20
"""Packets of which a share of losses can be told."""


class _Entry(NamedTuple):
    when: float
    sent: int
    came: int

    @property
    def missing(self) -> int:
        return self.sent - self.came


class Loss:
    """The loss of one path within the last REMEMBERED seconds."""

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()

    def learn(self, sent: int, came: int, now: float) -> None:
        """The answer to a packet came.

        Args:
            sent: how many packets we had sent on this path when that packet left, that packet included.
            came: how many packets the peer had received on this path when it answered.
        """
        if self._entries and sent < self._entries[-1].sent:
            return  # a later answer has overtaken it
        if self._entries and came < self._entries[-1].came // 2:
            self._entries.clear()  # the peer began to count anew
        if len(self._entries) > 1 and now - self._entries[-2].when < ENTRY_EVERY:
            self._entries.pop()
        self._entries.append(_Entry(now, sent, came))
        while now - self._entries[0].when > REMEMBERED:
            self._entries.popleft()

    def lately(self, seconds: float, now: float) -> tuple[int, int]:
        """How many packets the answers of the last `seconds` are about, and how many of these packets were lost."""
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
        """The network changed, or the path begins anew: earlier losses say nothing."""
        self._entries.clear()
