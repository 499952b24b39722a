"""The journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram of fields for each entry.

It needs the standard library only, since the command line uses it too: to know whether its errors go into the journal.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from typing import TextIO

SOCKET = "/run/systemd/journal/socket"

# Characters of a field's value. A datagram holds 200 KB, and no text of ours needs more than this.
LONGEST_FIELD = 16384

# The priorities of syslog(3), by the level of an event.
PRIORITY = {"critical": 2, "error": 3, "exception": 3, "warning": 4, "info": 6, "debug": 7}


def is_journal(stream: TextIO) -> bool:
    """Whether the journal reads this stream: $JOURNAL_STREAM has its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def encoded(fields: Mapping[str, str]) -> bytes:
    """An entry on the wire: a line `NAME=VALUE` for each field.

    A value of several lines stands behind its name's line and its length (64 bits, little-endian) instead.
    """
    return b"".join(_field(name, value[:LONGEST_FIELD].encode(errors="replace")) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)


class Journal:
    """A socket to the journal."""

    def __init__(self, address: str = "") -> None:
        self._address = address or SOCKET
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def write(self, entry: bytes) -> bool:
        """Send an entry, as from encoded(); whether the journal has it. Never waits, since the journal may hang."""
        try:
            self._socket.sendto(entry, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()
