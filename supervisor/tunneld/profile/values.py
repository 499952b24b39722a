"""A profile once read: frozen values, paths expanded, everything checked.

Two profiles are equal when nothing in them differs; a reload relies on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from tunneld.core.supervise.backoff import Limits
from tunneld.profile.address import ForwardAddress, PortRange


class Mode(StrEnum):
    FAILOVER = "failover"  # one relay at a time, the first that answers
    ALL = "all"  # every relay at once


class Direction(StrEnum):
    REMOTE = "remote"  # the relay listens, this host connects
    LOCAL = "local"  # this host listens, the relay connects
    DYNAMIC = "dynamic"  # this host listens as a SOCKS proxy, the relay connects


@dataclass(frozen=True, slots=True)
class Relay:
    """Where the tunnel goes. None means ssh_config's value, else the usual one (22, the login name, ~/.ssh)."""

    host: str
    port: int | None = None
    user: str | None = None
    identity: tuple[Path, ...] = ()  # empty: the SSH agent and the usual files
    known_hosts: Path | None = None
    jump: tuple[str, ...] = ()  # [USER@]HOST[:PORT], in the order in which they are crossed
    ssh_config: bool | Path = True  # True: the usual files


@dataclass(frozen=True, slots=True)
class Forward:
    listen: ForwardAddress
    to: ForwardAddress | None  # None for a dynamic forward alone
    direction: Direction = Direction.REMOTE
    required: bool = True  # the tunnel is up only while it listens
    canary: bool = True  # of a remote one: whether it is tried from the relay's side


@dataclass(frozen=True, slots=True)
class Mosh:
    ports: PortRange  # UDP: the ingress on the relay, and mosh-server's on this side
    bind: str  # the relay's address for them
    to: str  # the host, seen from here, on which mosh-server listens


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Within a session: a silent relay is dead after `interval * (count + 1)` seconds."""

    interval: float = 10  # seconds
    count: int = 3


@dataclass(frozen=True, slots=True)
class Canary:
    """Each remote forward is tried end to end, from the relay's side."""

    interval: float = 300  # seconds; 0: never


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    file: Path
    relays: tuple[Relay, ...]  # at least one, in the order of preference
    forward: tuple[Forward, ...] = ()
    mosh: Mosh | None = None
    keepalive: Keepalive = field(default_factory=Keepalive)
    backoff: Limits = field(default_factory=Limits)
    canary: Canary = field(default_factory=Canary)
    mode: Mode = Mode.FAILOVER  # what several relays are for

    @property
    def relay(self) -> Relay:
        """The first: the preferred one, and the only one of most profiles."""
        return self.relays[0]

    def through(self, relay: Relay) -> Profile:
        """The same by way of this relay alone."""
        return replace(self, relays=(relay,), mode=Mode.FAILOVER)
