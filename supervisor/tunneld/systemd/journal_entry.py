"""An event of the log as an entry of the journal: a message for a person, and a field for each value.

Tested in tests/systemd/test_journal.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tunneld.systemd.journal import PRIORITY, encoded

# Values that the message has already, or that have no place in it.
NOT_IN_BRACKETS = {"event", "level", "tunnel", "reason", "problem", "exception"}

# Values in seconds: the message gives them their unit.
IN_SECONDS = {"retry_in", "down_for", "lived", "silence"}


def entry(_: object, __: str, event: Mapping[str, object]) -> str:
    """structlog's last processor: the entry's datagram, as text that `surrogateescape` turns into bytes again."""
    return encoded(fields_of(event)).decode("utf-8", "surrogateescape")


def fields_of(event: Mapping[str, object]) -> dict[str, str]:
    """The fields of an entry: MESSAGE, PRIORITY, and TUNNELD_EVENT, TUNNELD_TUNNEL ... for the event's values."""
    values = {key: value for key, value in event.items() if key not in {"level", "exception"} and value is not None}
    return {
        "MESSAGE": message_of(event),
        "PRIORITY": str(PRIORITY.get(str(event.get("level")), PRIORITY["info"])),
        "SYSLOG_IDENTIFIER": "tunneld",
        **{_field_name(key): str(value) for key, value in values.items()},
    }


def message_of(event: Mapping[str, object]) -> str:
    """`pi-home: session lost: relay.example.net:22 no longer answers (failure network, retry in 3.2 s)`."""
    words = str(event["event"])
    parts = [event.get("tunnel"), words.replace("_", " ") if words.isidentifier() else words]
    parts += [event.get("reason"), event.get("problem")]
    line = ": ".join(str(part) for part in parts if part)
    about = ", ".join(_about(event))
    line = f"{line} ({about})" if about else line
    return f"{line}\n{event['exception']}" if "exception" in event else line


def _about(event: Mapping[str, object]) -> Iterator[str]:
    """The values that stand in brackets at the message's end."""
    for key, value in event.items():
        if key not in NOT_IN_BRACKETS and value is not None:
            yield f"{key.replace('_', ' ')} {value}{' s' if key in IN_SECONDS else ''}"


def _field_name(key: str) -> str:
    """A field's name has capitals, digits and underscores, and at most 64 of them (systemd.journal-fields(7))."""
    return "TUNNELD_" + re.sub(r"[^A-Z0-9_]", "_", key.upper())[:56]
