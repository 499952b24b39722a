"""A terminal's screen, computed from the bytes that came; it knows the control sequences of ssh and mosh-client."""

from __future__ import annotations

import re
from typing import Final

from tests.lab.terminal import COLUMNS, ROWS

UNIT: Final = re.compile(
    rb"\x1b\[(?P<numbers>[0-?]*)[ -/]*(?P<does>[@-~])"  # CSI
    rb"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, such as a title
    rb"|\x1b[ -/]*[0-Z\\^-~]"  # any other escape
    rb"|(?P<byte>[^\x1b])",
    re.DOTALL,
)
LOOKS: Final = b"hlmrtpqc"  # modes, colours, margins, windows: these do not move or erase characters
BLANK: Final = b" "


class Screen:
    """`cells` are the rows one after the other, a byte per cell; `put` counts all characters ever written."""

    def __init__(self) -> None:
        self.cells = bytearray(BLANK * (ROWS * COLUMNS))
        self.put = 0
        self._row = 0
        self._column = 0  # COLUMNS once a row is full: the next character goes to the next row
        self._rest = b""

    @property
    def place(self) -> int:
        """The cell of the next character."""
        return self._row * COLUMNS + self._column

    def feed(self, output: bytes) -> None:
        """Show the next bytes; a control sequence may be cut between two calls.

        Raises:
            AssertionError: the screen would scroll, or a control sequence is unknown; `cells` would be wrong.
        """
        self._rest += output
        done = 0
        while unit := UNIT.match(self._rest, done):
            done = unit.end()
            if unit["byte"]:
                self._byte(unit["byte"][0])
            elif unit["does"]:
                self._control(unit["does"], unit["numbers"])
        self._rest = self._rest[done:]

    def _byte(self, byte: int) -> None:
        if byte == 0x0A:
            self._down()
        elif byte == 0x0D:
            self._column = 0
        elif byte == 0x08:
            self._column = max(0, self._column - 1)
        elif byte >= 0x20 and not 0x80 <= byte < 0xC0:  # the first byte stands for a character of UTF-8
            if self._column == COLUMNS:
                self._down()
                self._column = 0
            self.cells[self.place] = byte
            self.put += 1
            self._column += 1

    def _down(self) -> None:
        self._row += 1
        assert self._row < ROWS, "the screen is full"

    def _control(self, does: bytes, numbers: bytes) -> None:
        if does == b"H":
            row, _, column = numbers.partition(b";")
            self._row, self._column = int(row or 1) - 1, int(column or 1) - 1
        elif does == b"K" and numbers in (b"", b"0"):
            self._erase(self.place, self._end)
        elif does == b"J" and numbers in (b"", b"2"):
            self._erase(0 if numbers else self.place, len(self.cells))
        elif does == b"X":
            self._erase(self.place, min(self._end, self.place + int(numbers or 1)))
        else:
            assert does in LOOKS, f"what does a terminal do on CSI {numbers!r} {does!r}?"

    @property
    def _end(self) -> int:
        return (self._row + 1) * COLUMNS

    def _erase(self, start: int, end: int) -> None:
        self.cells[start:end] = BLANK * (end - start)
