"""Clocks that a test shifts for single programs; the clocks of the machine itself do not change."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
SHIFTS = struct.Struct("ll")  # seconds: the machine's own longs, as in SOURCE


class Clocks:
    """Clocks of programs started with `environment`: a test can set the wall clock, or pretend a machine's sleep."""

    def __init__(self, folder: Path) -> None:
        """Build the library in `folder`, which must exist. Needs gcc."""
        self._shim = folder / "clock.so"
        self._shifts = folder / "clock.offset"
        self._wall = self._asleep = 0
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", self._shim, SOURCE], check=True)
        self._write()

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._shim), "CLOCK_OFFSET": str(self._shifts)}

    def set(self, offset: int) -> None:
        """From now on the wall clock differs from the true time by `offset` seconds."""
        self._wall = offset
        self._write()

    def slept(self, seconds: int) -> None:
        """Pretend that the machine slept for the last `seconds`. A program that ran meanwhile sees it go back."""
        self._asleep += seconds
        self._write()

    def _write(self) -> None:
        self._shifts.touch()
        with self._shifts.open("r+b") as file:  # in place, since the programs have mapped this file
            file.write(SHIFTS.pack(self._wall, self._asleep))
