"""Turns pydantic's findings into sentences: what is wrong, and what would be right.

A location is what pydantic calls `loc`: the keys and indices (from 0) that lead to a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tunneld.profile.document import Document
from tunneld.profile.toml_lines import Location

_NEEDED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a table",
}
_BOUNDS = {"greater_than_equal": ("ge", "too small", "at least"), "less_than_equal": ("le", "too large", "at most")}
_LONGEST_QUOTE = 60  # characters of the user's own text in one message


def sentence(error: ErrorDetails) -> str:
    """What is wrong at one place of the document, and what would be right."""
    kind, location, value = error["type"], error["loc"], error["input"]
    if kind == "extra_forbidden":
        return _unknown(location)
    if kind == "missing":
        return _missing(location)
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "literal_error":
        return f"{written(value)} is not a choice: write {error['ctx']['expected']}"
    if kind == "finite_number":
        return f"{written(value)} is no length of time: write a number of seconds"
    if kind == "too_short":
        return _missing(location)
    if kind in _BOUNDS:
        bound, fault, limit = _BOUNDS[kind]
        return f"{written(value)} is {fault}: write {limit} {error['ctx'][bound]:g}"
    return _wrong_type(kind, location, value)


def key_of(location: Location) -> str:
    """`forward[2].listen`; what a person counts starts at 1."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            bare = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else written(part)
            text += f".{bare}" if text else bare
    return text


def written(value: object) -> str:
    """A value as TOML writes it, on one line, and not too much of it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in text)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."


def _unknown(location: Location) -> str:
    key = str(location[-1])
    fields = _fields(location[:-1])
    if near := get_close_matches(key, fields, n=1):
        return f"unknown key: did you mean {near[0]}?"
    if key in Document.model_fields:
        return f"unknown key here: write {_at_the_top(key)}"
    homes = [str(table) for table in Document.model_fields if key in _fields((table, 0))]
    if homes:
        return f"unknown key here: it belongs in {' or '.join(map(_header, homes))}"
    return f"unknown key: remove it; known here are {', '.join(fields)}"


def _missing(location: Location) -> str:
    key = str(location[-1])
    if location == ("relay",):
        return 'is missing: write [relay] and in it host = "relay.example.net"'
    if location == ("mosh", "bind"):
        return 'is missing, and not guessed since it makes ports public: write bind = "0.0.0.0" for the whole world'
    return f"is missing: write for example {_example(location) or key}"


def _wrong_type(kind: str, location: Location, value: object) -> str:
    key = str(next(part for part in reversed(location) if isinstance(part, str)))
    if location == ("relay",):
        return f"{written(value)} is {_kind(value)}, and a table is needed: write [relay]"
    if isinstance(value, Mapping) and kind == "list_type" and location == ("forward",):
        return "is a single table, and a list of tables is needed: write [[forward]]"
    if isinstance(value, list) and kind == "model_type":
        return f"is a list of tables, and a single one is needed: write [{key}]"
    if kind == "model_type":
        header = f"[[{key}]]" if isinstance(location[-1], int) else f"[{key}]"
        return f"{written(value)} is {_kind(value)}, and a table is needed: write {header}"
    needed = _NEEDED.get(kind, "something else")
    if kind == "int_type" and isinstance(value, str) and value.isdecimal():
        return f"{written(value)} is text, and {needed} is needed: write {key} = {int(value)}"
    if kind == "list_type":
        needed = "text or a list of texts"
    return f"{written(value)} is {_kind(value)}, and {needed} is needed: write for example {_example(location)}"


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or a time")


def _header(table: str) -> str:
    return "[[forward]]" if table == "forward" else f"[{table}]"


def _at_the_top(key: str) -> str:
    """Where a table or a key of the whole file belongs; in TOML a header opens its table until the next header."""
    is_table = any(_models(Document.model_fields[key].annotation))
    return _header(key) if is_table else f"{_example((key,))} above the first table"


def _fields(location: Location) -> dict[str, FieldInfo]:
    """The keys known in the table at this location."""
    model: type[BaseModel] = Document
    for part in location:
        if isinstance(part, str):
            field = model.model_fields.get(part)
            model = next(iter(_models(field.annotation if field else None)), BaseModel)
    return model.model_fields


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The table that a field holds: itself, in a list, or as one of several types."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _example(location: Location) -> str:
    names = [part for part in location if isinstance(part, str)]
    field = _fields(tuple(names[:-1])).get(names[-1])
    if field is None or not field.examples:
        return ""
    return f"{names[-1]} = {written(field.examples[0])}"
