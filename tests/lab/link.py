"""An emulated link whose delay, loss and rate a test changes while it runs.

lab.home_link.set(delay=0.04)             # each way, seconds: 80 ms round trip
lab.home_link.set("up", loss=0.05)
lab.home_link.cut() ... .mend()           # a black hole: sockets stay open, and nothing comes
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.lab import wire
from tests.lab.machine import Machine, end

Direction = Literal["up", "down", "both"]
Counters = dict[str, dict[str, Any]]  # "up" and "down", each with wire.Way's fields


class Link:
    """The two directions between a gateway and the internet. `seed` decides which frames are lost."""

    def __init__(self, machine: Machine, *, seed: int) -> None:
        self._machine = machine
        self._seed = seed
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program: list[str | Path] = [sys.executable, "-I", "-S", Path(wire.__file__), str(self._seed)]
        self._process = self._machine.popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None)
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            end(self._process)

    def set(
        self,
        direction: Direction = "both",
        **fields: float | bool,
    ) -> Counters:
        """Change fields of `wire.Way` (delay, jitter, loss, rate, room, cut, reorder); they are in force on return."""
        return self._ask({way: fields for way in ("up", "down") if direction in (way, "both")})

    def cut(self, direction: Direction = "both") -> None:
        self.set(direction, cut=True)

    def mend(self, direction: Direction = "both") -> None:
        self.set(direction, cut=False)

    def counters(self) -> Counters:
        """For each way: frames, bytes, lost, overflowed and passed since the start, and the settings."""
        return self._ask({})

    def _ask(self, changes: dict[str, dict[str, float | bool]]) -> Counters:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(changes).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Counters:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("the link's program ended")
        answer: Counters = json.loads(line)
        return answer
