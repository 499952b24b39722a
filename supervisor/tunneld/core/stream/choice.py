"""Which carriers a datagram takes: one pure function.

A lost segment stalls one TCP connection and seldom two, so small datagrams (keystrokes, acknowledgements) go over every
dedicated stream. Large ones stay on one, since mosh puts only one instruction together at a time and a fragment that
overtakes destroys it; while a stream is late, large ones take a second as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from tunneld.core.stream.carrier import StreamCarrier

SMALL = 300
"""Bytes: up to this size a datagram is a whole instruction of mosh's, a keystroke or its echo. Sent twice, these cost a
typist less than 10 kbit/s."""


def choose(carriers: Iterable[StreamCarrier], size: int, now: float) -> list[StreamCarrier]:
    """The carriers for a datagram of `size` bytes, best first; empty when there are none.

    Among equals the first given wins, so the choice does not swing. A stream that is shared with forwards is taken only
    when no dedicated one answers in time.
    """
    ready = [carrier for carrier in carriers if carrier.greeted]
    late = {carrier.name for carrier in ready if carrier.is_late(now)}
    ranked = sorted(ready, key=lambda carrier: (carrier.name in late, not carrier.dedicated))
    if not ranked or ranked[0].name in late:
        return ranked
    best, *others = ranked
    dedicated = [carrier for carrier in others if carrier.dedicated]
    if size <= SMALL or any(carrier.name in late for carrier in dedicated):
        return [best, *dedicated]
    return [best]
