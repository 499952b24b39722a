"""What the daemon tells systemd by sd_notify(3): each message is one datagram of lines `NAME=VALUE`.

Without $NOTIFY_SOCKET, as outside systemd, nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

from tunneld.core.printable import one_line

# Seconds. At boot many services talk at once, and systemd's queue may be full for a moment; the tunnels must not wait
# longer.
SEND_TIMEOUT = 1.0

# Characters of STATUS=. systemd cuts nothing, and `systemctl status` shows the whole on one line.
LONGEST_STATUS = 250


class NotifySocket:
    """The socket of the systemd that started us. Sending never raises, and waits for `SEND_TIMEOUT` at most.

    `watchdog` is the number of seconds within which systemd wants the next alive(); None where it wants none.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog = _watchdog(environment)
        self._last_status = ""

    @property
    def is_heard(self) -> bool:
        """Whether there is a systemd to tell anything."""
        return bool(self._address)

    def ready(self) -> None:
        """The daemon looks after its tunnels: at the start, or again after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins; ready() ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The daemon is about to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The event loop still runs: a sign of life for systemd's watchdog."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Show `text` in `systemctl status`, on one line. A line that systemd has already is not sent again."""
        line = one_line(text, LONGEST_STATUS)
        if line != self._last_status and self._send(f"STATUS={line}"):
            self._last_status = line

    def _send(self, message: str) -> bool:
        """Whether systemd has the message."""
        if not self._address:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.settimeout(SEND_TIMEOUT)
            sending.sendto(message.encode(errors="replace"), self._address)
            return True
        return False


def _address(given: str) -> str:
    """The socket's address. In an abstract one, `@` stands for the first byte, which is zero."""
    return f"\0{given[1:]}" if given.startswith("@") else given


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """As sd_watchdog_enabled(3): $WATCHDOG_USEC counts unless $WATCHDOG_PID names another process."""
    microseconds, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or int(microseconds) == 0 or process != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000
