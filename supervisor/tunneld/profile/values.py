"""A profile as values: frozen, with its paths expanded and everything checked.

Two profiles are equal when nothing in them differs; a reload relies on that. The defaults
stand here, and those of [backoff] in core/supervise/backoff.py.

Tested in tests/profile/test_load.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from tunneld.core.supervise.backoff import Limits
from tunneld.profile.address import ForwardAddress, PortRange


class Mode(StrEnum):
    """What several relays are for."""

    FAILOVER = "failover"  # one relay at a time, the first that answers
    ALL = "all"  # every relay at once


class Direction(StrEnum):
    """Which side of a forward listens."""

    REMOTE = "remote"  # the relay listens, this host connects
    LOCAL = "local"  # this host listens, the relay connects
    DYNAMIC = "dynamic"  # this host listens as a SOCKS proxy, the relay connects


@dataclass(frozen=True, slots=True)
class Relay:
    """An SSH server that the tunnel goes to.

    None stands for ssh_config's value, or else the usual one: port 22, this user's name, ~/.ssh/known_hosts.
    """

    host: str
    port: int | None = None
    user: str | None = None
    identity: tuple[Path, ...] = ()  # private keys and certificates; empty: the SSH agent and the usual files
    known_hosts: Path | None = None
    jump: tuple[str, ...] = ()  # [USER@]HOST[:PORT], in the order in which they are crossed
    ssh_config: bool | Path = True  # True: the usual files; False: none


@dataclass(frozen=True, slots=True)
class Forward:
    """A listener on one side, and where its connections go on the other."""

    listen: ForwardAddress
    to: ForwardAddress | None  # None if, and only if, the forward is dynamic
    direction: Direction = Direction.REMOTE
    required: bool = True  # the tunnel is up only while it listens
    canary: bool = True  # whether a remote forward is tried from the relay's side; no other forward is


@dataclass(frozen=True, slots=True)
class Mosh:
    """The ingress for stock mosh clients."""

    ports: PortRange  # UDP ports: of the ingress on the relay, and of mosh-server on this side
    bind: str  # the relay's address on which the ingress listens
    to: str  # the host on which mosh-server listens, seen from this one


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Within a session: a relay that is silent for `interval * (count + 1)` seconds counts as dead."""

    interval: float = 10  # seconds of silence before the relay is asked for a sign of life, and between two questions
    count: int = 3  # questions


@dataclass(frozen=True, slots=True)
class Canary:
    """How often each remote forward is tried end to end, from the relay's side."""

    interval: float = 300  # seconds between two tries of a forward that nobody uses; 0: no tries


@dataclass(frozen=True, slots=True)
class Profile:
    """One tunnel, as the user wants it."""

    name: str
    file: Path
    relays: tuple[Relay, ...]  # at least one, in the order of preference
    forward: tuple[Forward, ...] = ()
    mosh: Mosh | None = None
    keepalive: Keepalive = field(default_factory=Keepalive)
    backoff: Limits = field(default_factory=Limits)
    canary: Canary = field(default_factory=Canary)
    mode: Mode = Mode.FAILOVER

    @property
    def relay(self) -> Relay:
        """The preferred relay, which is the only one in most profiles."""
        return self.relays[0]

    def through(self, relay: Relay) -> Profile:
        """The same profile with this relay alone."""
        return replace(self, relays=(relay,), mode=Mode.FAILOVER)
