"""Turns pydantic's errors into messages for the user: what is wrong, and what to write.

A location is what pydantic calls `loc`: the keys and indices that lead to a value; indices count from 0.

Tested in tests/profile/test_problems.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tunneld.profile.document import Document
from tunneld.profile.toml_lines import Location
from tunneld.profile.toml_text import toml_value

# What is wrong with a document: the place, and the message.
Complaint = tuple[Location, str]

# What a value should be, by pydantic's kind of error.
_NEEDED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a table",
}
_BOUNDS = {"greater_than_equal": ("ge", "too small", "at least"), "less_than_equal": ("le", "too large", "at most")}
_LONGEST_QUOTE = 60  # characters of a value that a message quotes


def message_for(error: ErrorDetails) -> str:
    """What is wrong at the error's place of the document, and what to write there, on one line."""
    kind, location, value = error["type"], error["loc"], error["input"]
    if kind == "extra_forbidden":
        return _unknown(location)
    if kind in ("missing", "too_short"):  # an empty list is as good as none
        return _missing(location)
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "literal_error":
        return f"{quoted(value)} is not a choice: write {error['ctx']['expected']}"
    if kind == "finite_number":
        return f"{value} is no length of time: write a number of seconds"
    if kind in _BOUNDS:
        bound, fault, limit = _BOUNDS[kind]
        return f"{quoted(value)} is {fault}: write {limit} {error['ctx'][bound]:g}"
    return _wrong_type(kind, location, value)


def dotted_key(location: Location) -> str:
    """The location as people read it: `forward[2].listen` for ("forward", 1, "listen")."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            bare = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else quoted(part)
            text += f".{bare}" if text else bare
    return text


def quoted(value: object) -> str:
    """The value as TOML writes it, on one line, cut after `_LONGEST_QUOTE` characters."""
    text = toml_value(value)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."


def _unknown(location: Location) -> str:
    """The message for a key that the table does not know."""
    key = str(location[-1])
    fields = _fields(location[:-1])
    if near := get_close_matches(key, fields, n=1):
        return f"unknown key: did you mean {near[0]}?"
    if key in Document.model_fields:
        return f"unknown key here: {_at_the_top(key)}"
    tables = [str(table) for table in Document.model_fields if key in _fields((table, 0))]
    if tables:
        return f"unknown key here: it belongs in {' or '.join(map(_header, tables))}"
    return f"unknown key: remove it; known here are {', '.join(fields)}"


def _missing(location: Location) -> str:
    """The message for a key that has to be there."""
    key = str(location[-1])
    if location == ("relay",):
        return 'is missing: write [relay] and in it host = "relay.example.net"'
    if location == ("mosh", "bind"):
        return 'is missing, and not guessed since it makes ports public: write bind = "0.0.0.0" for the whole world'
    return f"is missing: write for example {_example(location) or key}"


def _wrong_type(kind: str, location: Location, value: object) -> str:
    """The message for a value of the wrong type, such as text for a number or one table for several."""
    key = str(next(part for part in reversed(location) if isinstance(part, str)))
    if location == ("relay",):
        return f"{quoted(value)} is {_kind(value)}, and a table is needed: write [relay]"
    if isinstance(value, Mapping) and kind == "list_type" and location == ("forward",):
        return "is a single table, and a list of tables is needed: write [[forward]]"
    if isinstance(value, list) and kind == "model_type":
        return f"is a list of tables, and a single one is needed: write [{key}]"
    if kind == "model_type":
        header = f"[[{key}]]" if isinstance(location[-1], int) else f"[{key}]"
        return f"{quoted(value)} is {_kind(value)}, and a table is needed: write {header}"
    needed = _NEEDED.get(kind, "something else")
    if kind == "int_type" and isinstance(value, str) and value.isdecimal():
        return f"{quoted(value)} is text, and {needed} is needed: write {key} = {int(value)}"
    if kind == "list_type":
        needed = "text or a list of texts"
    return f"{quoted(value)} is {_kind(value)}, and {needed} is needed: write for example {_example(location)}"


def _kind(value: object) -> str:
    """The type of a TOML value in words."""
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or a time")


def _header(table: str) -> str:
    return "[[forward]]" if table == "forward" else f"[{table}]"


def _at_the_top(key: str) -> str:
    """Where to write a key of the whole file: a table anywhere, and another key before the first table's header."""
    is_table = any(_models(Document.model_fields[key].annotation))
    return f"write {_header(key)}" if is_table else "move the line above the first table"


def _fields(location: Location) -> dict[str, FieldInfo]:
    """The keys that the table at this location may have."""
    model: type[BaseModel] = Document
    for part in location:
        if isinstance(part, str):
            field = model.model_fields.get(part)
            model = next(iter(_models(field.annotation if field else None)), BaseModel)
    return model.model_fields


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The tables that a field may hold: directly, in a list, or as one of several types."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _example(location: Location) -> str:
    """A line `key = value` that would be right at this location; empty for an unknown key."""
    names = [part for part in location if isinstance(part, str)]
    field = _fields(tuple(names[:-1])).get(names[-1])
    if field is None or not field.examples:
        return ""
    return f"{names[-1]} = {quoted(field.examples[0])}"
