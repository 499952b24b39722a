"""An event of the log as the journal keeps it: a sentence for a person, and a field for each of its values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tunneld.systemd.journal import PRIORITY, encoded

# In the sentence already, or said by the entry's own fields.
SAID = {"event", "level", "tunnel", "reason", "problem", "exception"}

# Seconds, as a person wants to know.
DURATIONS = {"retry_in", "down_for", "lived", "silence"}


def entry(_: object, __: str, event: Mapping[str, object]) -> str:
    """structlog's last step: the datagram, as text that `surrogateescape` turns into its bytes again."""
    return encoded(fields_of(event)).decode("utf-8", "surrogateescape")


def fields_of(event: Mapping[str, object]) -> dict[str, str]:
    """`session_lost` of `pi-home` becomes TUNNELD_EVENT, TUNNELD_TUNNEL, and so on, below the MESSAGE."""
    values = {key: value for key, value in event.items() if key not in {"level", "exception"} and value is not None}
    return {
        "MESSAGE": sentence(event),
        "PRIORITY": str(PRIORITY.get(str(event.get("level")), PRIORITY["info"])),
        "SYSLOG_IDENTIFIER": "tunneld",
        **{_name(key): str(value) for key, value in values.items()},
    }


def sentence(event: Mapping[str, object]) -> str:
    """`pi-home: session lost: relay.example.net:22 no longer answers (failure network, retry in 3.2 s)`."""
    words = str(event["event"])
    parts = [event.get("tunnel"), words.replace("_", " ") if words.isidentifier() else words]
    parts += [event.get("reason"), event.get("problem")]
    line = ": ".join(str(part) for part in parts if part)
    about = ", ".join(_about(event))
    line = f"{line} ({about})" if about else line
    return f"{line}\n{event['exception']}" if "exception" in event else line


def _about(event: Mapping[str, object]) -> Iterator[str]:
    for key, value in event.items():
        if key not in SAID and value is not None:
            yield f"{key.replace('_', ' ')} {value}{' s' if key in DURATIONS else ''}"


def _name(key: str) -> str:
    """A field's name: capitals, digits and underscores (systemd.journal-fields(7))."""
    return "TUNNELD_" + re.sub(r"[^A-Z0-9_]", "_", key.upper())[:56]
