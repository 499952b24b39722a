"""A wall clock of a program's own, which a test may set; the machine's is nobody's to touch."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
SECONDS = struct.Struct("l")  # the machine's own long, as in SOURCE


class WallClock:
    """For programs that are started with `environment`. The others of their clocks are true."""

    def __init__(self, folder: Path) -> None:
        """Built in `folder`, which exists. Needs gcc."""
        self._shim = folder / "clock.so"
        self._offset = folder / "clock.offset"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", self._shim, SOURCE], check=True)
        self.set(0)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._shim), "CLOCK_OFFSET": str(self._offset)}

    def set(self, offset: int) -> None:
        """Have it differ from the true time by so many seconds, from now on."""
        self._offset.touch()
        with self._offset.open("r+b") as file:  # in place, for it is mapped
            file.write(SECONDS.pack(offset))
