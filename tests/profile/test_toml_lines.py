"""The scanner finds the line of every key that tomllib finds."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.profile.toml_lines import Location, key_lines, lines_of

TRICKY = '''\
# [not.a.table]
name = "a # not a comment" # [nor.this]
text = """
[not.a.table]
key = 1 \\""" "" """""
raw = \'\'\'
[[not]]
it''s\'\'\'\'\'
list = [ # one
  1, "],",
  # [x]
  [2, { deep = 3, "qu.oted" = \'}\' }],
]
a.b . "c d" = 1979-05-27 07:32:00
a.e = { }
inline = { x = 1, y.z = [ { w = "" }, ] }

  [table . "sub"] # ]
key = 0x1F
[[array]]
x = 1
[array.sub]
y = 2
[[ array ]]
  [[array.nested]]
  z = 3
  [[array.nested]]
  z = 4
\t[array.nested.end]
  q = \'\'
'''

EXPECTED = {
    "name": 2,
    "text": 3,
    "raw": 6,
    "list": 9,
    "list.0": 10,
    "list.1": 10,
    "list.2": 12,
    "list.2.0": 12,
    "list.2.1.deep": 12,
    "list.2.1.qu.oted": 12,
    "a": 14,
    "a.b": 14,
    "a.b.c d": 14,
    "a.e": 15,
    "inline.x": 16,
    "inline.y": 16,
    "inline.y.z.0.w": 16,
    "table": 18,
    "table.sub": 18,
    "table.sub.key": 19,
    "array": 20,
    "array.0": 20,
    "array.0.x": 21,
    "array.0.sub": 22,
    "array.0.sub.y": 23,
    "array.1": 24,
    "array.1.nested": 25,
    "array.1.nested.0.z": 26,
    "array.1.nested.1": 27,
    "array.1.nested.1.z": 28,
    "array.1.nested.1.end": 29,
    "array.1.nested.1.end.q": 30,
}


def places(value: object, at: Location = ()) -> Iterator[Location]:
    """Every location in what tomllib read."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, part in value.items():
            yield from places(part, (*at, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from places(part, (*at, index))


def test_a_string_that_looks_like_a_table_is_none() -> None:
    """Nor do comments, quoted keys, inline tables and nested arrays confuse the scanner."""
    lines = {".".join(map(str, location)): line for location, line in key_lines(TRICKY).items()}
    assert {key: lines.get(key) for key in EXPECTED} == EXPECTED


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_key_of_the_document_has_a_line_and_no_other(newline: str) -> None:
    """The scanner's keys are tomllib's keys."""
    text = TRICKY.replace("\n", newline)
    assert set(key_lines(text)) == set(places(tomllib.loads(text)))


KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
STRINGS = st.text(st.sampled_from("ab \"'\\#[]{}=,.\n\té"), max_size=12)


class Writer:
    """Writes random TOML, and remembers on which line it put each key."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Location, int] = {}

    def note(self, location: Location) -> None:
        self.lines.setdefault(location, self.text.count("\n") + 1)

    def key(self, name: str) -> None:
        bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        self.text += name if bare and self.draw(st.booleans()) else quoted(name)

    def gap(self) -> None:
        self.text += self.draw(st.sampled_from(["", "", "\n", "# [x] = '''\n", "  \n\t"]))

    def value(self, location: Location, depth: int = 0) -> None:
        kinds = ["basic", "literal", "long basic", "long literal", "number"] + ["list", "inline"] * (depth < 3)
        kind = self.draw(st.sampled_from(kinds))
        if kind == "list":
            self.array(location, depth)
        elif kind == "inline":
            self.inline(location, depth)
        else:
            self.text += scalar(kind, self.draw(STRINGS))

    def array(self, location: Location, depth: int) -> None:
        self.text += "["
        for index in range(self.draw(st.integers(0, 3))):
            self.gap()
            self.note((*location, index))
            self.value((*location, index), depth + 1)
            self.gap()
            self.text += ","
        self.gap()
        self.text += "]"

    def inline(self, location: Location, depth: int) -> None:
        self.text += "{ "
        for index, name in enumerate(self.draw(st.lists(KEYS, max_size=3, unique=True))):
            self.text += ", " if index else ""
            self.pair(location, [name], depth + 1)
        self.text += " }"

    def pair(self, table: Location, names: list[str], depth: int = 0) -> None:
        location = table
        for index, name in enumerate(names):
            self.text += self.draw(st.sampled_from([".", " . "])) if index else ""
            location = (*location, name)
            self.note(location)
            self.key(name)
        self.text += self.draw(st.sampled_from(["=", " = "]))
        self.value(location, depth)

    def body(self, table: Location) -> None:
        for name in self.draw(st.lists(KEYS, max_size=3, unique=True)):
            self.gap()
            self.pair(table, [name, *self.draw(st.lists(KEYS, max_size=2))])
            self.text += self.draw(st.sampled_from(["\n", " # [[x]]\n"]))

    def document(self) -> None:
        self.body(())
        for _ in range(self.draw(st.integers(0, 4))):
            name = "a-table-" + self.draw(KEYS)  # longer than any key, so never one
            for count in range(self.draw(st.integers(1, 3))):
                self.array_of_tables(name, count)

    def array_of_tables(self, name: str, count: int) -> None:
        if (name, count) in self.lines:
            return
        self.gap()
        self.note((name,))
        self.note((name, count))
        self.text += "[["
        self.key(name)
        self.text += "]]\n"
        self.body((name, count))
        if (name, count, "sub") not in self.lines:
            self.note((name, count, "sub"))
            self.text += "["
            self.key(name)
            self.text += ' . "sub"]\n'
            self.body((name, count, "sub"))


def quoted(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f") if text.isascii() else '"' + escaped(text) + '"'


def escaped(text: str) -> str:
    return "".join(f"\\U{ord(character):08x}" for character in text)


def scalar(kind: str, text: str) -> str:
    if kind == "number":
        return str(len(text))
    if kind == "basic":
        return quoted(text)
    if kind == "literal":
        return "'" + text.replace("'", "").replace("\n", "") + "'"
    if kind == "long literal":
        return "'''" + text.replace("'", "") + "'''"
    return '"""' + text.replace("\\", "\\\\").replace('"""', "").replace('""', "") + '"""'


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Location, int]]:
    writer = Writer(draw)
    writer.document()
    return writer.text, writer.lines


@given(documents())
def test_each_key_is_on_the_line_where_it_was_written(document: tuple[str, dict[Location, int]]) -> None:
    """In any valid TOML, the scanner knows the line of every key and element."""
    text, lines = document
    assert key_lines(text) == lines
    assert set(lines) == set(places(tomllib.loads(text)))


def test_a_file_that_is_gone_has_no_lines(tmp_path: Path) -> None:
    """A problem found later is then reported at the first line."""
    assert lines_of(tmp_path / "gone.toml") == {}
    (tmp_path / "broken.toml").write_text("a =")
    assert lines_of(tmp_path / "broken.toml") == {}
