"""What may be wrong with several relays in one profile: the same relay twice, or a listener that only one can have.

Tested in tests/profile/test_problems.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunneld.profile.document import RelayTable
from tunneld.profile.messages import Complaint
from tunneld.profile.overlap import Listener, comparable_server, overlap
from tunneld.profile.values import Mode


def complaints_about_relays(
    relays: object, mode: object, listeners: Sequence[Listener], folder: Path
) -> Iterator[Complaint]:
    """What is wrong with the relays among themselves, also where other parts of the profile are wrong.

    Args:
        relays: the value of `relay` as tomllib read it, of any type; None where it is missing. `mode`: alike.
        listeners: those of the profile's forwards.
        folder: the profile's folder.
    """
    if not isinstance(relays, list) or len(relays) < 2:
        return
    # "failover" may try one server twice, with another user or jump host. With "all" it is one server at one time.
    if mode == Mode.ALL:
        yield from _repeated(list(map(_server, relays)), "both would need the same ports at once")
        yield from _here(len(relays), listeners)
    else:
        yield from _repeated([_with_defaults(each, folder) for each in relays], "the first is tried again anyway")


def _repeated(relays: Sequence[object], why_not: str) -> Iterator[Complaint]:
    """Each relay that equals an earlier one; None stands for a relay that is wrong by itself."""
    for index, relay in enumerate(relays):
        if relay is not None and relay in relays[:index]:
            earlier = relays.index(relay) + 1
            yield ("relay", index, "host"), f"is the same as in relay[{earlier}], and {why_not}: remove one"


def _with_defaults(table: object, folder: Path) -> object:
    """The table with its defaults filled in; as it is written where something in it is wrong."""
    try:
        return RelayTable.model_validate(table, context=folder)
    except ValidationError:
        return table


def _server(table: object) -> Any:
    """The server that the table names; None where its host is wrong."""
    if not isinstance(table, Mapping) or not isinstance(table.get("host"), str):
        return None
    return comparable_server(table["host"], table.get("port"))


def _here(count: int, listeners: Sequence[Listener]) -> Iterator[Complaint]:
    """Listeners on this host, for which each relay's tunnel would need the same port."""
    for listener in listeners:
        if not listener.on_the_relay and overlap(listener.address, listener.address):  # port 0 does not, with itself
            yield (
                ("forward", listener.index, "listen"),
                f'{listener.address} on this host leads to one relay, and mode = "all" has {count}: '
                "write port 0 to have one chosen for each, or give it a profile of its own",
            )
