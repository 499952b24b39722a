"""Finds the line of a TOML text on which each key stands, which tomllib does not tell.

tomllib has read the text before, so it is valid TOML. This scanner checks nothing, it only keeps its place among table
headers, arrays of tables, dotted and quoted keys, inline tables, and arrays and strings of several lines.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from pathlib import Path

# The keys and indices that lead to a value, as ("forward", 1, "listen"); indices count from 0.
Location = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?""""{0,2}'  # up to two quotes may stand before the closing three
    r"|'''.*?''''{0,2}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> dict[Location, int]:
    """The line on which each key, table and array element first stands; lines count from 1. `text` is valid TOML."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def lines_of(file: Path) -> dict[Location, int]:
    """As key_lines(), for a file that was read before; empty where the file cannot be read any more."""
    try:
        text = file.read_text("utf-8-sig")
        tomllib.loads(text)
    except (OSError, ValueError):
        return {}
    return key_lines(text)


class _Scanner:
    """Reads `text` from front to back: `at` is the place of the next character, `lines` what was found before it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Location, int] = {}
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.lengths: dict[Location, int] = {}  # of the arrays of tables

    def document(self) -> None:
        table: Location = ()
        while self.blank() < len(self.text):
            if self.text.startswith("[[", self.at):
                table = self.header(2)
            elif self.text[self.at] == "[":
                table = self.header(1)
            else:
                self.pair(table)

    def header(self, brackets: int) -> Location:
        """Read `[a.b]` or `[[a.b]]`; return the location of the table that it opens."""
        start = self.at
        self.at += brackets
        self.blank()
        path: Location = ()
        for part in self.key():
            path = (*self.latest(path), part)
            self.note(path, start)
        self.at += brackets
        if brackets == 2:
            self.lengths[path] = self.lengths.get(path, 0) + 1
            path = self.latest(path)
            self.note(path, start)
        return path

    def latest(self, path: Location) -> Location:
        """The location of the last table so far, where `path` leads to an array of tables; else `path` itself."""
        return (*path, self.lengths[path] - 1) if path in self.lengths else path

    def pair(self, table: Location) -> None:
        start = self.at
        path = table
        for part in self.key():
            path = (*path, part)
            self.note(path, start)
        self.at += 1  # the equals sign
        self.blank()
        self.value(path)

    def value(self, path: Location) -> None:
        if self.text[self.at] == "{":
            self.inside("}", path)
        elif self.text[self.at] == "[":
            self.inside("]", path)
        else:
            self.skip(_STRING) or self.skip(_SCALAR)

    def inside(self, end: str, path: Location) -> None:
        """Read an inline table's pairs, or an array's elements."""
        self.at += 1
        index = 0
        while self.text[self.blank()] != end:
            if self.text[self.at] == ",":
                self.at += 1
                index += 1
            elif end == "}":
                self.pair(path)
            else:
                element = (*path, index)
                self.note(element, self.at)
                self.value(element)
        self.at += 1

    def key(self) -> list[str]:
        """Read a dotted key, whose dots may stand between blanks."""
        parts = [self.part()]
        while self.text[self.blank()] == ".":
            self.at += 1
            self.blank()
            parts.append(self.part())
        return parts

    def part(self) -> str:
        if bare := self.skip(_BARE):
            return bare
        return str(tomllib.loads(f"key = {self.skip(_STRING)}")["key"])

    def blank(self) -> int:
        """Skip white space and comments; return the place of the next character."""
        self.skip(_BLANK)
        return self.at

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Skip what matches the pattern here; return it, empty where nothing does."""
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def note(self, path: Location, at: int) -> None:
        self.lines.setdefault(path, bisect_left(self.newlines, at) + 1)
