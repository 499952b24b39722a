"""tunneld with a gauge: the same program, which also counts what it holds each time SIGUSR1 comes.

Run as `python gauge.py REPORT ARGUMENTS...`: the arguments are tunneld's, and each count replaces the file
REPORT. Before each count Python collects its garbage and malloc returns free memory, so that only memory in use
counts.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import gc
import json
import os
import re
import signal
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

COMMON = 20  # a kind of object is listed from so many instances on


@dataclass(frozen=True, slots=True)
class Gauge:
    """What a process holds. `resident` and `heap` (malloc's) are bytes, `objects` are blocks of Python's allocator."""

    number: int  # of this count, from 1
    tasks: int
    threads: int
    descriptors: int
    resident: int
    heap: int
    objects: int
    clock: float  # the wall clock, in seconds since 1970
    kinds: dict[str, int]
    doing: dict[str, int]  # how many tasks run each coroutine

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.tasks, self.threads, self.descriptors


class MallInfo(ctypes.Structure):
    """struct mallinfo2 (mallinfo(3)). Bytes in use: `uordblks` in the heap, `hblkhd` in mappings of their own."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def read(report: Path) -> Gauge | None:
    return Gauge(**json.loads(report.read_bytes())) if report.exists() else None


def count(number: int) -> Gauge:
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    libc.mallinfo2.restype = MallInfo
    info = libc.mallinfo2()
    kinds = collections.Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    resident = re.search(r"^Rss:\s+(\d+) kB$", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert resident is not None
    return Gauge(
        number=number,
        tasks=len(asyncio.all_tasks()),
        threads=len(os.listdir("/proc/self/task")),
        descriptors=len(os.listdir("/proc/self/fd")) - 1,  # one descriptor is open only to read this folder
        resident=int(resident[1]) * 1024,
        heap=info.uordblks + info.hblkhd,
        objects=sys.getallocatedblocks(),
        clock=datetime.now(UTC).timestamp(),
        doing=dict(
            collections.Counter(str(getattr(task.get_coro(), "__qualname__", "?")) for task in asyncio.all_tasks())
        ),
        kinds={kind: times for kind, times in kinds.items() if times >= COMMON},
    )


def main(report: str, *arguments: str) -> int:
    numbers = iter(range(1, sys.maxsize))

    def write_count(*_: object) -> None:
        written = f"{report}.new"
        Path(written).write_text(json.dumps(asdict(count(next(numbers)))))
        os.replace(written, report)

    signal.signal(signal.SIGUSR1, write_count)
    from tunneld.cli import main as tunneld

    return tunneld(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
