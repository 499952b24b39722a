"""Turns a profile's file into a Profile, or into everything that is wrong with it.

Tested in tests/profile/test_load.py and test_problems.py.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunneld.core.supervise.backoff import Limits
from tunneld.errors import Problem, ProfileError
from tunneld.profile import folders, rules
from tunneld.profile.address import TcpAddress
from tunneld.profile.document import Document, ForwardTable, MoshTable, RelayTable
from tunneld.profile.messages import Complaint, dotted_key, message_for
from tunneld.profile.overlap import Listener, conflicts, overlapping
from tunneld.profile.relays import complaints_about_relays
from tunneld.profile.toml_lines import Location, key_lines
from tunneld.profile.toml_text import file_error, read_text
from tunneld.profile.values import Canary, Direction, Forward, Keepalive, Mode, Mosh, Profile, Relay

# How tomllib's messages begin, and what to write instead.
_HINTS = {
    "Invalid value": 'text stands in quotes, as key = "text"',
    "Cannot overwrite a value": "write each key once",
    "Cannot declare": "write each table once; several relays or forwards are several [[relay]] or [[forward]]",
    "Unterminated": "close the quotes",
    "Expected '=' after a key": 'write key = "value"',
    "Invalid statement": 'write [table] or key = "value"',
    "Expected newline or end of document": "one key per line, and text in quotes",
    "Unclosed array": "close it with ]",
    "Unclosed inline table": "close it with }",
    "Duplicate inline table key": "write each key once",
    "Illegal character": "close the quotes on the same line",
    "Invalid initial character for a key": 'write key = "value"',
}


def load(name_or_path: str) -> Profile:
    """The profile of this name or path.

    Raises:
        ProfileError: everything that is wrong with it, sorted by line.
    """
    file = folders.find_profile(name_or_path)
    if not folders.is_a_name(folders.profile_name(file)):
        raise file_error(file, 1, f"{folders.profile_name(file)!r} cannot be a profile's name: {folders.NAME_RULE}")
    text = read_text(file)
    data, lines = _parse(file, text)
    document, complaints = _judge(data, file.parent)
    if document is None or complaints:
        raise ProfileError(_problems(file, complaints, lines))
    return _profile(file, document)


def load_all(names: Sequence[str]) -> tuple[Profile, ...]:
    """The profiles of these names or paths, which shall run side by side.

    Raises:
        ProfileError: everything that is wrong with them, and where they conflict.
    """
    profiles: list[Profile] = []
    problems: list[Problem] = []
    for name in names:
        try:
            profiles.append(load(name))
        except ProfileError as error:
            problems += error.problems
    problems += conflicts(profiles)
    if problems:
        raise ProfileError(tuple(problems))
    return tuple(profiles)


def _parse(file: Path, text: str) -> tuple[dict[str, Any], dict[Location, int]]:
    """The document, and the line of each key."""
    try:
        return tomllib.loads(text), key_lines(text)
    except tomllib.TOMLDecodeError as error:
        raise file_error(file, *_syntax(str(error), text)) from None
    except RecursionError:
        raise file_error(file, 1, "is nested too deeply: a profile has tables and lists of texts, no more") from None
    except ValueError as error:  # Python's own limits, which tomllib does not catch: an integer of 5,000 digits
        raise file_error(file, 1, f"is not TOML that can be read ({error}): write a shorter value") from None


def _syntax(message: str, text: str) -> tuple[int, str]:
    """The line and the words for a message of tomllib's, at whose end the place stands in brackets."""
    what, _, place = message.rstrip(")").rpartition(" (at ")
    numbers = re.fullmatch(r"line (\d+), column (\d+)", place)
    line = int(numbers[1]) if numbers else len(text.rstrip().split("\n"))
    hint = next((right for wrong, right in _HINTS.items() if what.startswith(wrong)), "see https://toml.io")
    column = f" at column {numbers[2]}" if numbers else " at the end of the file"
    return line, f"is not TOML: {what}{column}: {hint}"


def _judge(data: dict[str, Any], folder: Path) -> tuple[Document | None, list[Complaint]]:
    """The document, if its shape is right, and everything that is wrong."""
    complaints: list[Complaint] = []
    document = None
    try:
        document = Document.model_validate(data, context=folder)
    except ValidationError as error:
        complaints = [(_as_written(each["loc"], data), message_for(each)) for each in error.errors(include_url=False)]
    listeners = tuple(_listeners(data.get("forward"), folder))
    complaints += _overlaps(listeners)
    complaints += complaints_about_relays(data.get("relay"), data.get("mode"), listeners, folder)
    if not data.get("forward", []) and "mosh" not in data:
        complaints.append(
            ((), "holds neither a forward nor mosh, so there is nothing to do: write [[forward]] or [mosh]")
        )
    return document, complaints


def _as_written(location: Location, data: Mapping[str, Any]) -> Location:
    """The location as the user wrote it: a single [relay] has no index, though the document has a list of relays."""
    single = location[:2] == ("relay", 0) and isinstance(data.get("relay"), Mapping)
    return ("relay", *location[2:]) if single else location


def _overlaps(listeners: Sequence[Listener]) -> Iterator[Complaint]:
    for later, earlier in overlapping(listeners):
        where = "the relay" if later.on_the_relay else "this host"
        taken = f"{later.address} overlaps with forward[{earlier.index + 1}].listen, {earlier.address}, on {where}"
        yield ("forward", later.index, "listen"), f"{taken}: choose another port, or 0 to have one chosen"


def _listeners(forwards: object, folder: Path) -> Iterator[Listener]:
    """The listeners that are right, also those of forwards in which something else is wrong."""
    for index, table in enumerate(forwards if isinstance(forwards, list) else []):
        if not isinstance(table, Mapping) or not isinstance(table.get("listen"), str):
            continue
        try:
            direction = Direction(table.get("direction", "remote"))
            yield Listener(index, direction, rules.listen_address(table["listen"], direction, folder))
        except ValueError:
            continue  # the document's own complaint says it


def _problems(file: Path, complaints: Sequence[Complaint], lines: Mapping[Location, int]) -> tuple[Problem, ...]:
    problems = {_problem(file, location, text, lines) for location, text in complaints}
    return tuple(sorted(problems, key=lambda problem: (problem.line, problem.key)))


def _problem(file: Path, location: Location, text: str, lines: Mapping[Location, int]) -> Problem:
    """The problem at the line of the value, else of the table that should hold it, else at the first line."""
    place = location
    while place and place not in lines:
        place = place[:-1]
    if len(place) < len(location) and isinstance(location[-1], int):
        location = location[:-1]  # the user wrote `identity = "x"`, and the document has a list
    return Problem(file, lines.get(place, 1), dotted_key(location), text)


def _profile(file: Path, document: Document) -> Profile:
    forwards = tuple(map(_forward, document.forward))
    return Profile(
        name=folders.profile_name(file),
        file=file,
        relays=tuple(map(_relay, document.relay)),
        forward=forwards,
        mosh=None if document.mosh is None else _mosh(document.mosh, forwards),
        keepalive=Keepalive(**document.keepalive.model_dump()),
        backoff=Limits(**document.backoff.model_dump()),
        mode=Mode(document.mode),
        canary=Canary(**document.canary.model_dump()),
    )


def _relay(table: RelayTable) -> Relay:
    return Relay(
        host=table.host,
        port=table.port,
        user=table.user,
        identity=tuple(table.identity),
        known_hosts=table.known_hosts,
        jump=tuple(table.jump),
        ssh_config=table.ssh_config,
    )


def _forward(table: ForwardTable) -> Forward:
    return Forward(
        listen=table.listen,
        to=table.to,
        direction=Direction(table.direction),
        required=table.required,
        canary=table.canary,
    )


def _mosh(table: MoshTable, forwards: Sequence[Forward]) -> Mosh:
    """Without a `to`, mosh-server listens where the first remote forward arrives over TCP."""
    remote = (forward.to for forward in forwards if forward.direction is Direction.REMOTE)
    first = next((to.host for to in remote if isinstance(to, TcpAddress)), "127.0.0.1")
    return Mosh(ports=table.ports, bind=table.bind, to=table.to or first)
