"""What this process is known by on its relays: one name for each, and which of them know that it is this process."""

from __future__ import annotations

import secrets

from tunneld.profile import Relay
from tunneld.ssh.remote.takeover import Mark, Takeover, key_of, machine_id


class Marks:
    """Of one profile, for as long as its tunnels are held here."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._machine = machine_id()
        self._instance = secrets.token_hex(16)
        self._recorded: set[Relay] = set()

    def of(self, relay: Relay) -> Mark:
        """For a session to it. Two relays of a profile may be one machine: a session by the one is the other's own."""
        key = key_of(f"{self._profile} {relay.host} {relay.port or ''}", self._machine)
        return Mark(key, self._instance, displaces=relay not in self._recorded)

    def taken_over(self, relay: Relay, takeover: Takeover) -> None:
        """From its record on, other instances are no predecessors of ours there."""
        if takeover.recorded:
            self._recorded.add(relay)
