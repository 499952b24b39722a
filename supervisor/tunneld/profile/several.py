"""What is wrong with several relays in one profile: one of them twice, or listeners that only one can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunneld.profile.lines import Location
from tunneld.profile.overlap import SSH_PORT, Listener, overlap
from tunneld.profile.values import Mode

Finding = tuple[Location, str]


def several(relays: object, mode: object, listeners: Sequence[Listener]) -> Iterator[Finding]:
    """What can be told even where other parts of the profile are wrong; `relays` and `mode` are as written."""
    if not isinstance(relays, list) or len(relays) < 2:
        return
    yield from _repeated(relays, mode == Mode.ALL)
    if mode == Mode.ALL:
        yield from _shared(len(relays), listeners)


def _repeated(relays: Sequence[object], at_once: bool) -> Iterator[Finding]:
    """Two ways to one relay (another user, another jump host) are worth a try after each other, never at once."""
    seen: list[object] = []
    for index, table in enumerate(relays):
        same = _place(table) if at_once else table
        if same in seen:
            text = "their listeners would be in each other's way" if at_once else "it is tried in its turn anyway"
            yield ("relay", index, "host"), f"is relay[{seen.index(same) + 1}] again, and {text}: remove one"
        seen.append(same if same is not None else object())


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
