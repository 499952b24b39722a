"""What is known about one hop of the way to the relay when something goes wrong there: for the words of a failure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """How far a hop got."""

    CONNECTING = "connecting"  # no TCP connection yet
    GREETING = "greeting"  # TCP stands; the SSH greeting has not come
    LOGIN = "login"  # the greeting has come; the user is not in yet
    RUNNING = "running"


@dataclass(slots=True)
class Hop:
    """One SSH server on the way, a jump host or the relay, as dialled. The dial fills it in as it goes on."""

    host: str
    port: int = 22  # 0: not known
    user: str = ""
    via: str = ""  # the jump host before it, as written; empty for none
    phase: Phase = Phase.CONNECTING
    time_limit: float = 0  # seconds that this phase may take
    offered_keys: tuple[str, ...] = ()  # kind and fingerprint of each; never a key
    known_hosts: str = "known_hosts"  # the files that were looked at, with commas between them
    shown_key: str = ""  # the kind and fingerprint of a host key that was shown and is not trusted
    is_copy: bool = False  # the service reads copies of known_hosts that were made when it started
    host_known: bool = False  # known_hosts has some key for this host

    @property
    def address(self) -> str:
        """`host:port`, without the port when it is not known."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    @property
    def add_key(self) -> str:
        """The command that adds the host's key to known_hosts; through a jump host only ssh itself can ask for it."""
        if self.via:
            return f"ssh -J {self.via} -p {self.port} {self.host}{self._afterwards}"
        return f"ssh-keyscan -p {self.port} {self.host} >> {self._file}{self._afterwards}"

    @property
    def remove_key(self) -> str:
        """The command that removes the host's old key from known_hosts."""
        name = self.host if self.port == 22 else f"'[{self.host}]:{self.port}'"
        return f"ssh-keygen -f {self._file} -R {name}{self._afterwards}"

    @property
    def _file(self) -> str:
        return self.known_hosts.split(", ")[0]

    @property
    def _afterwards(self) -> str:
        return "; then restart the service, which has a copy of that file" if self.is_copy else ""
