"""What is known about one hop of the way to the relay when something goes wrong there: for the words of a failure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """How far a hop got."""

    CONNECTING = "connecting"  # no TCP connection yet
    GREETING = "greeting"  # TCP stands; the SSH greeting has not come
    LOGIN = "login"  # keys are exchanged, the user is not in yet
    RUNNING = "running"


@dataclass(slots=True)
class Hop:
    """One SSH server on the way, the relay or a jump host, as dialled. Filled in while the dial goes on."""

    host: str
    port: int = 22
    user: str = ""
    via: str = ""  # the jump host before it
    phase: Phase = Phase.CONNECTING
    seconds: float = 0  # the time-out that applies
    keys: tuple[str, ...] = ()  # what is offered: kind, fingerprint, file; never the key
    known_hosts: str = "known_hosts"  # the files that were looked at
    host_key: str = ""  # the kind and fingerprint of the key that was shown and not trusted
    is_copy: bool = False  # known_hosts are copies, made when the service was started
    host_known: bool = False  # known_hosts has some key for this host

    @property
    def address(self) -> str:
        """`host:port`, the port left out when it is not known."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    @property
    def add_key(self) -> str:
        """The command that shows the host's key to known_hosts; through a jump host only ssh itself can ask."""
        file = self.known_hosts.split(", ")[0]
        if self.via:
            return f"ssh -J {self.via} -p {self.port} {self.host}{self._afterwards}"
        return f"ssh-keyscan -p {self.port} {self.host} >> {file}{self._afterwards}"

    @property
    def remove_key(self) -> str:
        name = self.host if self.port == 22 else f"'[{self.host}]:{self.port}'"
        return f"ssh-keygen -f {self.known_hosts.split(', ')[0]} -R {name}{self._afterwards}"

    @property
    def _afterwards(self) -> str:
        return "; then restart the service, which has a copy of that file" if self.is_copy else ""
