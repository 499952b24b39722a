"""What a process costs: memory and processor time, from /proc (proc(5)).

Tested by the benches that use it, in tests/bench.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.sshd import descendants

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB. `resident` counts shared pages in full, `proportional` divides them by their users, `private` has none."""

    resident: float
    proportional: float
    private: float

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            self.resident + other.resident, self.proportional + other.proportional, self.private + other.private
        )


def memory(pid: int) -> Memory:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    private = int(fields["Private_Clean"]) + int(fields["Private_Dirty"])
    return Memory(int(fields["Rss"]) / 1024, int(fields["Pss"]) / 1024, private / 1024)


def total(pids: Iterable[int]) -> Memory:
    return sum(map(memory, pids), Memory(0, 0, 0))


def family(pid: int) -> list[int]:
    """A process and everything below it."""
    return [pid, *descendants(pid)]


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used so far, in hundredths."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
