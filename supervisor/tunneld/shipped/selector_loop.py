"""A loop that waits for file descriptors and for times, on the standard library's selectors alone."""

from __future__ import annotations

import heapq
import selectors
import socket
from collections.abc import Callable


class SelectorLoop:
    """Calls back when something can be read, and at times of the clock `now`, which gives seconds.

    Keys of its selector hold a function that takes the mask of events.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._selector = selectors.DefaultSelector()
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    def watch(self, readable: int | socket.socket, callback: Callable[[], None]) -> None:
        """Call `callback` whenever there is something to read."""
        self._selector.register(readable, selectors.EVENT_READ, lambda _: callback())

    def unwatch(self, readable: int | socket.socket) -> None:
        """Wait for it no more."""
        self._selector.unregister(readable)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, at that time of the clock."""
        self._serial += 1
        heapq.heappush(self._alarms, (when, self._serial, callback))

    def wait(self, deadline: float) -> None:
        """Wait for the first thing to happen, or until `deadline`, and call back for all that has happened by then."""
        wake = min([deadline, *[when for when, _, _ in self._alarms[:1]]])
        for key, mask in self._selector.select(max(0.0, wake - self._now())):
            registered = self._selector.get_map().get(key.fd)
            if registered and registered.data is key.data:  # an earlier callback of this round may have ended it
                key.data(mask)
        while self._alarms and self._alarms[0][0] <= self._now():
            heapq.heappop(self._alarms)[2]()

    def close(self) -> None:
        """Close the selector; what it watched stays open."""
        self._selector.close()
