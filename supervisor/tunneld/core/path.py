"""Addresses at which the peer may be reached over UDP."""

from __future__ import annotations

from typing import NamedTuple

KINDS = ("lan", "mapped", "reflexive", "visible", "relay")
"""What a candidate may be, as OFFER names it: an address of the machine's own; one that its router opened; what a STUN
server saw; what the SSH server saw, with the socket's own port; a UDP relay's. A sixth, `peer`, is never offered: the
source of an authenticated probe."""


class Address(NamedTuple):
    """A UDP address as sockets name it: a numeric host without a scope, IPv4 never written as IPv6 (::ffff:...)."""

    host: str
    port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.host else 4


class Candidate(NamedTuple):
    kind: str
    address: Address
