"""Which carriers a datagram takes: paths, streams, or both.

A path in use carries alone. Streams help while the path is new, in doubt, lossy, or slower than they are. Other paths
help as well while the path is in doubt or lossy. Without a path in use streams carry, and small datagrams also take a
path that answers but was found wanting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tunneld.core.pair.path import Path
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.choice import SMALL_DATAGRAM, choose

NEW_FOR = 1.0
"""Seconds (or two round trips, if longer) for which streams carry as well when a path was just chosen."""

SLOWER_BY = 0.02
"""Seconds, plus a quarter of the stream's round trip, by which a path's round trip may exceed the stream's. Beyond
that, small datagrams take both."""

SHARE_WITHIN = 0.02
"""Seconds, plus half of the best path's round trip, by which another path's round trip may exceed the best one's for
the two to share the copies."""

HELPERS_IN_DOUBT = 3
"""Further paths that carry as well while the path in use is in doubt. After a move to another network nobody knows
which of them still lead anywhere, and the doubt is short."""


class Route(NamedTuple):
    """`paths` share a datagram's copies: the first copy takes the first path, and so on, in turn.

    Each of `streams` and of `beside`, further paths, takes the datagram once.
    """

    paths: list[Path]
    streams: list[StreamCarrier]
    beside: Sequence[Path] = ()


def route(
    size: int, now: float, *, current: Path | None, is_new: bool, known: Iterable[Path], streams: list[StreamCarrier]
) -> Route:
    """The carriers for a datagram of `size` bytes.

    `current` is the path in use; `is_new`: it was chosen a moment ago. `known`: all paths that have ever answered.
    """
    is_small = size <= SMALL_DATAGRAM
    if current is not None and _is_enough(current, size, now, streams) and not is_new:
        return Route([current, *_second_path(current, known, now)], [])
    ready = choose(streams, size, now)
    if current is None:
        is_in_time = bool(ready) and not ready[0].is_late(now)
        resort = _last_resort(known, is_alone=not is_in_time) if is_small or not is_in_time else []
        return Route(resort[:1], ready, resort[1:])
    if size > current.proven:
        return Route([] if ready else [current], ready)
    if current.is_doubtful(now):
        return Route([current], ready, _others(current, known, now)[:HELPERS_IN_DOUBT])
    if not current.is_open(now):
        return Route([current], ready, _others(current, known, now)[:1])
    return Route([current], ready)


def is_new(current: Path, since: float, now: float) -> bool:
    """Whether the path in use since `since` is too new to carry alone."""
    return now - since < max(NEW_FOR, 2 * (current.rtt or 0))


def _is_enough(current: Path, size: int, now: float, streams: list[StreamCarrier]) -> bool:
    """Whether the path can carry the datagram by itself, as it nearly always can."""
    is_well = size <= current.proven and current.is_open(now) and not current.is_doubtful(now)
    return is_well and not (size <= SMALL_DATAGRAM and _is_slow(current, streams))


def _last_resort(known: Iterable[Path], *, is_alone: bool) -> list[Path]:
    """The path that answered last. With no stream beside it: two, which may have gone silent."""
    paths = [path for path in known if is_alone or path.answered is not None]
    paths.sort(key=lambda path: (path.answered or 0.0, path.heard or 0.0), reverse=True)
    return paths[: 2 if is_alone else 1]


def _is_slow(current: Path, streams: list[StreamCarrier]) -> bool:
    trips = [stream.rtt for stream in streams if stream.rtt is not None]
    return bool(trips) and current.rtt is not None and current.rtt > 1.25 * min(trips) + SLOWER_BY


def _second_path(current: Path, known: Iterable[Path], now: float) -> list[Path]:
    """The path, if any, that shares copies with the one in use: nearly as short, and without a queue."""
    longest = 1.5 * current.trips.shortest + SHARE_WITHIN
    others = _others(current, known, now)
    return [path for path in others if path.trips.shortest <= longest and not path.trips.has_queue][:1]


def _others(current: Path, known: Iterable[Path], now: float) -> list[Path]:
    """Further paths that may be used, the shortest first."""
    others = [path for path in known if path is not current and path.is_open(now) and not path.is_silent(now)]
    return sorted(others, key=lambda path: path.trips.shortest)
