"""Candidates: UDP addresses at which the peer may be reached, and how its machine came to know each of them.

Tested in tests/core/pair/test_offer.py, which reads candidates from the wire.
"""

from __future__ import annotations

from typing import NamedTuple

KINDS = ("lan", "mapped", "reflexive", "visible", "relay")
"""What a candidate may be, as OFFER names it (much like RFC 8445's types, section 5.1.1):

- `lan`: an address of the machine's own;
- `mapped`: an address that the machine's router opened for it;
- `reflexive`: the address that a STUN server saw;
- `visible`: the address that the SSH server saw, with the UDP socket's own port;
- `relay`: the address of a UDP relay.

A sixth kind, `peer`, is never offered: it is the source of an authenticated packet.
"""


class UdpAddress(NamedTuple):
    """A UDP address as sockets name it: a numeric host without a scope, IPv4 never written as IPv6 (::ffff:...)."""

    host: str
    port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.host else 4

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.family == 6 else f"{self.host}:{self.port}"


class Candidate(NamedTuple):
    """An address to try; `kind` is one of KINDS."""

    kind: str
    address: UdpAddress
