"""What a pair shows to people: its paths, streams and choice as plain values, ready for JSON.

Times are seconds, loss is a share from 0 to 1; None (null) where nothing is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tunneld.core.pair import redundancy
from tunneld.core.pair.path import Path
from tunneld.core.pair.paths import Paths
from tunneld.core.stream.carrier import StreamCarrier


def name(path: Path | None) -> str:
    """What carries datagrams, in words; `path` is the path in use, if there is one."""
    return f"{path.kind} {path.remote}" if path else "stream"


def in_use(paths: Paths, streams: Iterable[StreamCarrier], now: float) -> dict[str, Any]:
    """What carries the next datagram, since how many seconds, and why."""
    current = paths.current
    if current:
        return {"carrier": "path", "since": round(now - paths.since, 1), "why": paths.why, **_measured(current, now)}
    ready = [stream for stream in streams if stream.greeted]
    carrier = "stream" if ready else "none"
    rtt = min((stream.rtt for stream in ready if stream.rtt is not None), default=None)
    return {"carrier": carrier, "since": round(now - paths.since, 1), "why": paths.why, "rtt": _rounded(rtt)}


def path(one: Path, current: Path | None, now: float) -> dict[str, Any]:
    """What is known about a path; `current` is the path in use."""
    held = one.held_until - now
    return {
        **_measured(one, now),
        "in_use": one is current,
        "state": one.state(now),
        "fault": one.fault,
        "held_for": round(held, 1) if held > 0 else None,
        "passes": one.proven,
        "heard_ago": round(now - one.heard, 1) if one.heard is not None else None,
        "sent": one.sent,
        "received": one.received,
    }


def stream(one: StreamCarrier, now: float) -> dict[str, Any]:
    """What is known about a stream."""
    return {
        "name": one.name,
        "greeted": one.greeted,
        "rtt": _rounded(one.rtt),
        "waited": round(one.waited(now), 3),
        "sent": one.sent,
        "received": one.received,
    }


def _measured(one: Path, now: float) -> dict[str, Any]:
    share = redundancy.estimate(one.loss, now)
    return {
        "kind": one.kind,
        "local": one.local,
        "remote": str(one.remote),
        "rtt": _rounded(one.rtt),
        "loss": round(share, 4) if share is not None else None,
    }


def _rounded(seconds: float | None) -> float | None:
    """To a tenth of a millisecond."""
    return round(seconds, 4) if seconds is not None else None
