"""Which carriers a datagram takes: paths, streams, or both.

A path in use carries alone; streams help while it is new, in doubt, lossy or slower than they are; in doubt, or lossy,
other paths help as well. Without one, streams carry, and small datagrams also take a path that answers but was found
wanting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tunneld.core.pair.path import Path
from tunneld.core.pair.redundancy import SMALL
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.choice import choose

SETTLING = 1.0
"""Seconds, or two round trips, for which a path that was just chosen has a stream by its side."""

SLOWER = 0.02
"""Seconds by which a path's round trip may exceed a stream's, plus a quarter of it, before small ones take both."""

ASIDE = 0.02
"""Seconds, plus half its own, by which another path's round trip may exceed the best one's to be given copies."""


HELP_IN_DOUBT = 3
"""Further paths that carry as well while the one in use is in doubt: after a move to another network nobody knows which
of them still lead anywhere, and the doubt is short."""


class Route(NamedTuple):
    """`paths` share the copies: the first goes to the first, and so on. `beside` and `streams` get one each."""

    paths: list[Path]
    streams: list[StreamCarrier]
    beside: Sequence[Path] = ()


def route(
    size: int, now: float, *, current: Path | None, is_new: bool, known: Iterable[Path], streams: list[StreamCarrier]
) -> Route:
    """The carriers for a datagram of `size` bytes.

    `is_new`: the current path was chosen a moment ago; `known`: all paths that have ever answered.
    """
    is_small = size <= SMALL
    if current is not None and _is_enough(current, size, now, streams) and not is_new:
        return Route([current, *_aside(current, known, now)], [])
    ready = choose(streams, size, now)
    if current is None:
        is_in_time = bool(ready) and not ready[0].is_late(now)
        resort = _last_resort(known, is_alone=not is_in_time) if is_small or not is_in_time else []
        return Route(resort[:1], ready, resort[1:])
    if size > current.proven:
        return Route([] if ready else [current], ready)
    if current.is_doubtful(now):
        return Route([current], ready, _others(current, known, now)[:HELP_IN_DOUBT])
    if not current.is_open(now):
        return Route([current], ready, _others(current, known, now)[:1])
    return Route([current], ready)


def _is_enough(current: Path, size: int, now: float, streams: list[StreamCarrier]) -> bool:
    """It carries by itself, as nearly always."""
    is_well = size <= current.proven and current.is_open(now) and not current.is_doubtful(now)
    return is_well and not (size <= SMALL and _is_slow(current, streams))


def is_new(current: Path, since: float, now: float) -> bool:
    return now - since < max(SETTLING, 2 * (current.rtt or 0))


def _last_resort(known: Iterable[Path], *, is_alone: bool) -> list[Path]:
    """The path that answered last; two, and one that has gone silent as well, when nothing else is there."""
    paths = [path for path in known if is_alone or path.answered is not None]
    paths.sort(key=lambda path: (path.answered or 0.0, path.heard or 0.0), reverse=True)
    return paths[: 2 if is_alone else 1]


def _is_slow(current: Path, streams: list[StreamCarrier]) -> bool:
    trips = [stream.rtt for stream in streams if stream.rtt is not None]
    return bool(trips) and current.rtt is not None and current.rtt > 1.25 * min(trips) + SLOWER


def _aside(current: Path, known: Iterable[Path], now: float) -> list[Path]:
    longest = 1.5 * current.trips.shortest + ASIDE
    others = _others(current, known, now)
    return [path for path in others if path.trips.shortest <= longest and not path.trips.has_queue][:1]


def _others(current: Path, known: Iterable[Path], now: float) -> list[Path]:
    """Further paths that could be used, the shortest first."""
    others = [path for path in known if path is not current and path.is_open(now) and not path.is_silent(now)]
    return sorted(others, key=lambda path: path.trips.shortest)
