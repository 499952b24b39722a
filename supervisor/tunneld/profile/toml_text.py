"""A profile's text: read from a file, and written from a Profile."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from tunneld.core.supervise.backoff import Limits
from tunneld.errors import Problem, ProfileError
from tunneld.profile.values import Canary, Direction, Forward, Keepalive, Mosh, Profile, Relay

LARGEST_PROFILE = 1 << 20  # bytes; a profile is a page of text, and a larger file is something else


def read_text(file: Path) -> str:
    """The text of a profile's file.

    Raises:
        ProfileError: the file cannot be read, is too large, or is not UTF-8.
    """
    try:
        if file.exists() and not file.is_file():
            raise file_error(file, 1, "is not a regular file: give the path of a profile")
        with file.open("rb") as source:
            content = source.read(LARGEST_PROFILE + 1)
    except FileNotFoundError:
        raise file_error(file, 1, "there is no such file: correct the path, or give a profile's name") from None
    except OSError as error:
        raise file_error(file, 1, f"cannot be read ({error.strerror}): correct the file's rights") from None
    if len(content) > LARGEST_PROFILE:
        raise file_error(file, 1, "is larger than 1 MiB: a profile is a short text")
    try:
        return content.decode("utf-8-sig")  # some editors put a byte order mark in front
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise file_error(file, line, "is not UTF-8: save it in that encoding") from None


def file_error(file: Path, line: int, text: str) -> ProfileError:
    """The error for a file that is wrong as a whole, and not in one of its keys. Lines count from 1."""
    return ProfileError((Problem(file, line, "", text),))


def as_toml(profile: Profile) -> str:
    """The profile's text with every default filled in; comments stand where ssh_config or ssh itself decides."""
    header = "[relay]" if len(profile.relays) == 1 else "[[relay]]"
    blocks = [_top(profile), *(_relay(header, relay) for relay in profile.relays), *map(_forward, profile.forward)]
    if profile.mosh is not None:
        blocks.append(_mosh(profile.mosh))
    blocks += [_numbers(name, getattr(profile, name)) for name in ("keepalive", "backoff", "canary")]
    head = f"# {profile.name}, from {toml_value(profile.file)}"
    return "\n\n".join([head, *("\n".join(block) for block in blocks)]) + "\n"


def toml_value(value: object) -> str:
    """A text, a list, a number or a truth as TOML writes it, on one line; a path and a date become texts.

    JSON writes these values as TOML does. Beyond that, unprintable characters become TOML's `\\UXXXXXXXX`: TOML forbids
    DEL, and others could move a terminal's cursor or turn a line around.
    """
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in text)


def _top(profile: Profile) -> Iterator[str]:
    yield f"mode = {toml_value(profile.mode.value)}"


def _relay(header: str, relay: Relay) -> Iterator[str]:
    yield header
    yield f"host = {toml_value(relay.host)}"
    yield _optional("port", relay.port, "ssh_config's, else 22")
    yield _optional("user", relay.user, "ssh_config's, else this user's name")
    yield _optional("identity", _list(relay.identity) or None, "the SSH agent and the usual files")
    yield _optional("known_hosts", relay.known_hosts, "ssh_config's, else ~/.ssh/known_hosts")
    yield _optional("jump", _list(relay.jump) or None, "ssh_config's, else none")
    yield f"ssh_config = {toml_value(relay.ssh_config)}"


def _forward(forward: Forward) -> Iterator[str]:
    yield "[[forward]]"
    yield f"listen = {toml_value(str(forward.listen))}"
    if forward.direction is not Direction.DYNAMIC:
        yield f"to = {toml_value(str(forward.to))}"
    yield f"direction = {toml_value(forward.direction.value)}"
    yield f"required = {toml_value(forward.required)}"
    if forward.direction is Direction.REMOTE:
        yield f"canary = {toml_value(forward.canary)}"


def _mosh(mosh: Mosh) -> Iterator[str]:
    yield "[mosh]"
    yield from (f"{field.name} = {toml_value(str(getattr(mosh, field.name)))}" for field in fields(mosh))


def _numbers(name: str, table: Keepalive | Limits | Canary) -> Iterator[str]:
    yield f"[{name}]"
    yield from (f"{field.name} = {_number(getattr(table, field.name))}" for field in fields(table))


def _optional(key: str, value: object, otherwise: str) -> str:
    return f"# {key}: {otherwise}" if value is None else f"{key} = {toml_value(value)}"


def _list(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
