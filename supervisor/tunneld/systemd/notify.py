"""What the service tells systemd: sd_notify(3), one datagram of NAME=VALUE lines for each message.

Outside systemd there is no $NOTIFY_SOCKET, and nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

# Seconds. At boot many services talk at once, and the line may be full for a moment; the tunnels must not wait longer.
PATIENCE = 1.0

# Characters of STATUS=. systemd cuts nothing, but `systemctl status` shows one line.
LONGEST_STATUS = 250


class NotifySocket:
    """The way to whoever started us, if it listens. Saying something never fails, and waits for a second at most."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog = _watchdog(environment)  # seconds within which a sign of life is wanted; None: it is not
        self._told = ""

    @property
    def is_heard(self) -> bool:
        return bool(self._address)

    def ready(self) -> None:
        """Supervision runs, at the start or again after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins, and ends with ready()."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; the same again is not sent."""
        line = " ".join(text.split())
        line = line if len(line) <= LONGEST_STATUS else line[: LONGEST_STATUS - 1] + "…"
        if line != self._told and self._send(f"STATUS={line}"):
            self._told = line

    def _send(self, message: str) -> bool:
        """Whether it has arrived."""
        if not self._address:
            return False
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.settimeout(PATIENCE)
            way.sendto(message.encode(errors="replace"), self._address)
            return True
        return False


def _address(given: str) -> str:
    """A socket's path; one in the abstract namespace is written with `@` for its first byte."""
    return f"\0{given[1:]}" if given.startswith("@") else given


def _watchdog(environment: Mapping[str, str]) -> float | None:
    """sd_watchdog_enabled(3): microseconds, and meant for this process or for whoever is asked."""
    given, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", str(os.getpid()))
    if not given.isdecimal() or int(given) == 0 or process != str(os.getpid()):
        return None
    return int(given) / 1_000_000
