"""A profile's text: read from a file, and written from a Profile."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from tunneld.core.supervise.backoff import Limits
from tunneld.errors import Problem, ProfileError
from tunneld.profile.values import Canary, Direction, Forward, Keepalive, Mosh, Profile, Relay

LARGEST = 1 << 20  # bytes; a profile is a page, and what is larger was meant for something else


def read_text(file: Path) -> str:
    """The text of a profile's file.

    Raises:
        ProfileError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        if file.exists() and not file.is_file():
            raise _fault(file, 1, "is not a regular file: give the path of a profile")
        with file.open("rb") as source:
            content = source.read(LARGEST + 1)
    except FileNotFoundError:
        raise _fault(file, 1, "there is no such file: correct the path, or give a profile's name") from None
    except OSError as error:
        raise _fault(file, 1, f"cannot be read ({error.strerror}): correct the file's rights") from None
    if len(content) > LARGEST:
        raise _fault(file, 1, "is larger than 1 MiB: a profile is a short text")
    try:
        return content.decode("utf-8-sig")  # a mark that some editors leave in front is no text
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _fault(file, line, "is not UTF-8: save it in that encoding") from None


def as_toml(profile: Profile) -> str:
    """A profile with every default filled in; what SSH itself decides stands in comments."""
    header = "[relay]" if len(profile.relays) == 1 else "[[relay]]"
    blocks = [_top(profile), *(_relay(header, relay) for relay in profile.relays), *map(_forward, profile.forward)]
    if profile.mosh is not None:
        blocks.append(_mosh(profile.mosh))
    blocks += [_numbers(name, getattr(profile, name)) for name in ("keepalive", "backoff", "canary")]
    head = f"# {profile.name}, from {json.dumps(str(profile.file), ensure_ascii=False)}"
    return "\n\n".join([head, *("\n".join(block) for block in blocks)]) + "\n"


def _fault(file: Path, line: int, text: str) -> ProfileError:
    return ProfileError((Problem(file, line, "", text),))


def _top(profile: Profile) -> Iterator[str]:
    yield f"mode = {_value(profile.mode.value)}"


def _relay(header: str, relay: Relay) -> Iterator[str]:
    yield header
    yield f"host = {_value(relay.host)}"
    yield _optional("port", relay.port, "ssh_config's, else 22")
    yield _optional("user", relay.user, "ssh_config's, else this user's name")
    yield _optional("identity", _list(relay.identity) or None, "the SSH agent and the usual files")
    yield _optional("known_hosts", relay.known_hosts, "ssh_config's, else ~/.ssh/known_hosts")
    yield _optional("jump", _list(relay.jump) or None, "ssh_config's, else none")
    yield f"ssh_config = {_value(relay.ssh_config)}"


def _forward(forward: Forward) -> Iterator[str]:
    yield "[[forward]]"
    yield f"listen = {_value(str(forward.listen))}"
    if forward.direction is not Direction.DYNAMIC:
        yield f"to = {_value(str(forward.to))}"
    yield f"direction = {_value(forward.direction.value)}"
    yield f"required = {_value(forward.required)}"
    if forward.direction is Direction.REMOTE:
        yield f"canary = {_value(forward.canary)}"


def _mosh(mosh: Mosh) -> Iterator[str]:
    yield "[mosh]"
    yield from (f"{field.name} = {_value(str(getattr(mosh, field.name)))}" for field in fields(mosh))


def _numbers(name: str, table: Keepalive | Limits | Canary) -> Iterator[str]:
    yield f"[{name}]"
    yield from (f"{field.name} = {_number(getattr(table, field.name))}" for field in fields(table))


def _optional(key: str, value: object, otherwise: str) -> str:
    return f"# {key}: {otherwise}" if value is None else f"{key} = {_value(value)}"


def _list(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _value(value: object) -> str:
    """JSON's texts, lists, numbers and truths are TOML's, but for DEL, which TOML wants escaped."""
    plain = str(value) if isinstance(value, Path) else value
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
