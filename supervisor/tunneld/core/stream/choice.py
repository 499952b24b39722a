"""Which streams a datagram takes: one pure function.

A lost segment stalls one TCP connection and seldom two, so small datagrams (keystrokes, acknowledgements) go over every
dedicated stream. Large datagrams go over one stream only: mosh assembles one instruction at a time, and a fragment of
the next one that overtakes would destroy it. While a dedicated stream is late, large datagrams go over every dedicated
stream as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from tunneld.core.stream.carrier import StreamCarrier

SMALL_DATAGRAM = 300
"""Bytes: up to this size a datagram is a whole instruction of mosh's, a keystroke or its echo. Sent twice, these cost a
typist less than 10 kbit/s."""


def choose(carriers: Iterable[StreamCarrier], size: int, now: float) -> list[StreamCarrier]:
    """The streams for a datagram of `size` bytes, best first; empty when no peer has greeted.

    Among equals the first one given wins, so that the choice does not swing. A stream that shares its SSH connection
    with forwards is taken only when no dedicated stream answers in time; when none answers in time, all are taken.
    """
    ready = [carrier for carrier in carriers if carrier.greeted]
    late = {carrier.name for carrier in ready if carrier.is_late(now)}
    ranked = sorted(ready, key=lambda carrier: (carrier.name in late, not carrier.dedicated))
    if not ranked or ranked[0].name in late:
        return ranked
    best, *others = ranked
    dedicated = [carrier for carrier in others if carrier.dedicated]
    if size <= SMALL_DATAGRAM or any(carrier.name in late for carrier in dedicated):
        return [best, *dedicated]
    return [best]
