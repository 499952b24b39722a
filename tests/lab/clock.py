"""Clocks of a program's own, which a test may shift; the machine's are nobody's to touch."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
SHIFTS = struct.Struct("ll")  # seconds: the machine's own longs, as in SOURCE


class Clocks:
    """For programs that are started with `environment`: a wall clock that somebody sets, and a sleep to wake from."""

    def __init__(self, folder: Path) -> None:
        """Built in `folder`, which exists. Needs gcc."""
        self._shim = folder / "clock.so"
        self._shifts = folder / "clock.offset"
        self._wall = self._asleep = 0
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", self._shim, SOURCE], check=True)
        self._write()

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._shim), "CLOCK_OFFSET": str(self._shifts)}

    def set(self, offset: int) -> None:
        """Have the wall clock differ from the true time by so many seconds, from now on."""
        self._wall = offset
        self._write()

    def slept(self, seconds: int) -> None:
        """The machine was asleep for the last so many seconds. Who ran meanwhile sees a clock go back."""
        self._asleep += seconds
        self._write()

    def _write(self) -> None:
        self._shifts.touch()
        with self._shifts.open("r+b") as file:  # in place, for it is mapped
            file.write(SHIFTS.pack(self._wall, self._asleep))
