"""What is wrong with several relays in one profile: one of them twice, or listeners that only one can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunneld.profile.document import RelayTable
from tunneld.profile.overlap import SSH_PORT, Listener, overlap
from tunneld.profile.toml_lines import Location
from tunneld.profile.values import Mode

Finding = tuple[Location, str]


def several(relays: object, mode: object, listeners: Sequence[Listener], folder: Path) -> Iterator[Finding]:
    """What can be told even where other parts of the profile are wrong; `relays` and `mode` are as written."""
    if not isinstance(relays, list) or len(relays) < 2:
        return
    if mode == Mode.ALL:
        yield from _repeated(list(map(_place, relays)), "their listeners would be in each other's way")
        yield from _shared(len(relays), listeners)
    else:
        yield from _repeated([_whole(each, folder) for each in relays], "it is tried in its turn anyway")


def _repeated(relays: Sequence[object], why_not: str) -> Iterator[Finding]:
    """Two ways to one relay (another user, another jump host) are worth a try after each other, never at once."""
    for index, relay in enumerate(relays):
        if relay is not None and relay in relays[:index]:
            yield ("relay", index, "host"), f"is relay[{relays.index(relay) + 1}] again, and {why_not}: remove one"


def _whole(table: object, folder: Path) -> object:
    """With what it leaves to the defaults; as it is written where that is wrong."""
    try:
        return RelayTable.model_validate(table, context=folder)
    except ValidationError:
        return table


def _place(table: object) -> Any:
    if not isinstance(table, Mapping) or not isinstance(table.get("host"), str):
        return None
    return table["host"].lower().rstrip("."), table.get("port", SSH_PORT)


def _shared(count: int, listeners: Sequence[Listener]) -> Iterator[Finding]:
    """Each relay's tunnel opens every forward by itself."""
    for listener in listeners:
        if not listener.on_the_relay and overlap(listener.address, listener.address):
            yield (
                ("forward", listener.index, "listen"),
                f'{listener.address} on this host leads to one relay, and mode = "all" has {count}: '
                "write port 0 to have one chosen for each, or give it a profile of its own",
            )
