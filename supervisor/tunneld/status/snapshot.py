"""What a tunnel says about itself: frozen snapshots, pulled when somebody asks, and their JSON on the status socket.

Durations are seconds before the snapshot was taken (or after it, where a name says `_in`), so that no clock has to be
shared with the reader. JSON from a newer or older daemon is read too: unknown keys are skipped, missing ones take
their defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, cast

from tunneld.core.supervise.lifecycle import Failure, State

MoshState = Literal["off", "starting", "ready", "unavailable"]
ForwardState = Literal["waiting", "listening", "refused"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FailureStatus:
    """Why an attempt, a session or a forward ended; `ago` in seconds. No class: a fault of tunneld's own."""

    failure: Failure | None
    text: str
    ago: float


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """What the last try of a forward from the relay's side has shown: "passes", "target", "broken" or "unknown".

    `text` says why, or what is noteworthy. `rtt`, in seconds, is from our question to the target's first bytes on the
    relay's side (two round trips to the relay, and what the target takes), or to its accept; `ago` is in seconds too.
    """

    verdict: str
    text: str = ""
    rtt: float | None = None
    ago: float = 0


@dataclass(frozen=True, slots=True)
class ForwardStatus:
    """One forward: as the profile has it, and as it is.

    `listening` is the actual address (port 0 resolved), empty while it does not listen. `failure` is why not;
    `target` is why the last connection through it came to nothing, both None when all is well.
    """

    direction: str
    listen: str
    to: str | None
    required: bool
    state: ForwardState = "waiting"
    listening: str = ""
    connections: int = 0
    total: int = 0
    failure: FailureStatus | None = None
    next_try_in: float | None = None
    target: str | None = None
    canary: CanaryStatus | None = None  # none yet, or none wanted


@dataclass(frozen=True, slots=True)
class CarrierStatus:
    """One way in which the shim's two ends exchange datagrams; `rtt` in seconds, the rest in datagrams."""

    name: str
    rtt: float | None = None
    stalled: bool = False
    queued: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class MoshStatus:
    """Whether mosh can cross the tunnel, and why not; "off" when the profile has no [mosh]."""

    state: MoshState
    reason: str = ""
    ports: str = ""
    flows: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    carriers: tuple[CarrierStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """A tunnel at one moment. `attempts` and `sessions` (those that came up) count since `running` seconds.

    Of several relays, `relays` has a tunnel for each, in the profile's order. With `mode` failover all the rest is the
    one that serves; with all, it is what they have in common, and forwards and mosh are each relay's own.
    """

    name: str
    state: State
    since: float  # how long it has been in this state
    relay: str
    running: float = 0  # how long this daemon has held it
    uptime: float = 0  # of the session that is up now
    attempts: int = 0
    sessions: int = 0
    failure: FailureStatus | None = None  # the last one, also after it was overcome
    next_try_in: float | None = None  # of the dial, or of a forward that is waited for
    rtt: float | None = None  # from a question to the relay to its answer
    silence: float | None = None  # since the last answer, when one is overdue
    forwards: tuple[ForwardStatus, ...] = ()
    mosh: MoshStatus = MoshStatus("off")
    mode: str = ""  # what several relays are for
    relays: tuple[TunnelStatus, ...] = ()
    pid: int = 0  # the daemon's
    version: str = ""  # of the daemon's program, which an upgrade leaves running


def to_json(status: TunnelStatus) -> str:
    """One line in ASCII, without a line end: it is printed on terminals, too."""
    return json.dumps(asdict(status), separators=(",", ":"))


def from_json(text: str | bytes) -> TunnelStatus:
    """The snapshot that `to_json` wrote.

    Raises:
        ValueError: this is no status.
    """
    return from_object(json.loads(text))


def from_object(data: Mapping[str, Any]) -> TunnelStatus:
    """The snapshot that `to_json` wrote, once its JSON is parsed.

    Raises:
        ValueError: this is no status.
    """
    try:
        return replace(_tunnel(data), relays=tuple(map(_tunnel, data.get("relays", ()))))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no tunnel's status: {error}") from error


def _tunnel(data: Mapping[str, Any]) -> TunnelStatus:
    return _build(
        TunnelStatus,
        data,
        state=State(data["state"]),
        failure=_failure(data.get("failure")),
        forwards=tuple(_forward(each) for each in data.get("forwards", ())),
        mosh=_mosh(data.get("mosh") or {"state": "off"}),
        relays=(),
    )


def _forward(data: Mapping[str, Any]) -> ForwardStatus:
    canary = data.get("canary")
    return _build(
        ForwardStatus,
        data,
        failure=_failure(data.get("failure")),
        canary=None if canary is None else _build(CanaryStatus, canary),
    )


def _failure(data: Mapping[str, Any] | None) -> FailureStatus | None:
    if data is None:
        return None
    return _build(FailureStatus, data, failure=None if data["failure"] is None else Failure(data["failure"]))


def _mosh(data: Mapping[str, Any]) -> MoshStatus:
    return _build(MoshStatus, data, carriers=tuple(_build(CarrierStatus, each) for each in data.get("carriers", ())))


def _build(kind: type[T], data: Mapping[str, Any], **built: object) -> T:
    """A snapshot from those of its fields that are there; `built` are the ones that needed building."""
    known = fields(cast(Any, kind))
    values = {each.name: built.get(each.name, data.get(each.name)) for each in known if each.name in data}
    missing = [each.name for each in known if each.name not in values and _is_needed(each)]
    if missing:
        raise ValueError(f"no {kind.__name__}: {', '.join(missing)} missing")
    return kind(**values)


def _is_needed(each: Any) -> bool:
    return each.default is MISSING and each.default_factory is MISSING
