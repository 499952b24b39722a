"""The journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram of fields for each entry.

Standard library only: the command line asks as well, whether its complaints go into the journal.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from typing import TextIO

SOCKET = "/run/systemd/journal/socket"

# Characters of a field. A datagram takes 200 KB, and nothing that we say should need more than this.
LONGEST_FIELD = 16384

# syslog(3)
PRIORITY = {"critical": 2, "error": 3, "exception": 3, "warning": 4, "info": 6, "debug": 7}


def is_journal(stream: TextIO) -> bool:
    """Whether what is written there goes into the journal: $JOURNAL_STREAM names that very file (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def encoded(fields: Mapping[str, str]) -> bytes:
    """An entry on the wire: `NAME=VALUE` lines; several lines come after their length (64 bits, little-endian)."""
    return b"".join(_field(name, value[:LONGEST_FIELD].encode(errors="replace")) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)


class Journal:
    """Where entries go."""

    def __init__(self, address: str = "") -> None:
        self._address = address or SOCKET
        self._way = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def write(self, entry: bytes) -> bool:
        """Whether the journal has this entry, as `encoded`; never waits, since a journal may hang and tunnels not."""
        try:
            self._way.sendto(entry, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._way.close()
