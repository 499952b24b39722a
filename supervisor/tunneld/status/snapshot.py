"""What a tunnel says about itself: frozen snapshots, made when somebody asks, and their JSON on the status socket.

All durations are in seconds. They count back from the moment of the snapshot or, where a name ends in `_in`, forward
from there, so that the reader needs no clock in common with the daemon. The JSON of a newer or an older daemon can be
read too: unknown keys are skipped, and missing ones take their defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, cast

from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import State

MoshState = Literal["off", "starting", "ready", "unavailable"]
ForwardState = Literal["waiting", "listening", "refused"]

Snapshot = TypeVar("Snapshot")


@dataclass(frozen=True, slots=True)
class FailureStatus:
    """Why an attempt, a session or a forward ended."""

    failure: Failure | None  # its class; None for a fault of tunneld's own
    text: str  # one line for a person
    ago: float  # seconds since it happened


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """What the last try of a forward, from the relay's side, has shown."""

    verdict: str  # "passes", "target", "broken" or "unknown": see core/supervise/canary.py
    text: str = ""  # why, or what is noteworthy
    # Seconds from our question to the target's first bytes on the relay's side (two round trips to the relay, and what
    # the target takes) or, if the target waits for the client to speak, to its accept. None where neither was seen.
    rtt: float | None = None
    ago: float = 0  # seconds since the try ended


@dataclass(frozen=True, slots=True)
class ForwardStatus:
    """One forward, as the profile wants it and as it is."""

    direction: str  # "remote", "local" or "dynamic"
    listen: str  # the address in the profile
    to: str | None  # the target; None for a dynamic forward
    required: bool  # whether the tunnel is up only while this forward listens
    state: ForwardState = "waiting"
    listening: str = ""  # the actual address (port 0 resolved); empty while it does not listen
    connections: int = 0  # open now
    total: int = 0  # since it listens, in this session
    failure: FailureStatus | None = None  # why it does not listen
    next_try_in: float | None = None  # seconds until it is asked for again
    target: str | None = None  # why the last connection to the target failed; None if it did not
    canary: CanaryStatus | None = None  # None before the first try, or where none is wanted


@dataclass(frozen=True, slots=True)
class CarrierStatus:
    """One carrier: a way in which the two ends of the shim exchange datagrams."""

    name: str  # "control", "stream-1" ... inside SSH, else what the UDP path is
    rtt: float | None = None  # seconds; None before the first measurement
    stalled: bool = False  # whether it has stopped answering
    queued: int = 0  # datagrams that wait here
    sent: int = 0  # datagrams
    received: int = 0  # datagrams


@dataclass(frozen=True, slots=True)
class MoshStatus:
    """Whether mosh can cross the tunnel."""

    state: MoshState  # "off" when the profile has no [mosh]
    reason: str = ""  # why it is not ready
    ports: str = ""  # the relay's UDP ports, as "60001-60010"
    flows: int = 0  # open now; each is one mosh session
    counters: Mapping[str, int] = field(default_factory=dict)  # datagrams by what became of them
    carriers: tuple[CarrierStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """One tunnel at one moment.

    Of a profile with several relays, `relays` has a status for each, in the profile's order. With `mode` "failover" the
    other fields are those of the relay that serves. With "all" they are what the relays have in common, and forwards
    and mosh stand in each relay's own status.
    """

    name: str
    state: State
    since: float  # seconds in this state
    relay: str  # `user@host:port`, without what the profile leaves to ssh_config
    running: float = 0  # seconds since this daemon began to hold it
    uptime: float = 0  # seconds since the session that is up now was established; 0 without one
    attempts: int = 0  # sessions tried, in `running` seconds
    sessions: int = 0  # of those: the ones that came up
    failure: FailureStatus | None = None  # the last one, also after it was overcome
    next_try_in: float | None = None  # seconds until the next dial, or until a forward is asked for again
    rtt: float | None = None  # seconds from a question to the relay to its answer, smoothed
    silence: float | None = None  # seconds since the relay's last answer, while an answer is overdue
    forwards: tuple[ForwardStatus, ...] = ()
    mosh: MoshStatus = MoshStatus("off")
    mode: str = ""  # "failover" or "all"; empty for a profile with one relay
    relays: tuple[TunnelStatus, ...] = ()
    serves_in: float | None = None  # seconds until this relay takes the service back, if it stays healthy until then
    pid: int = 0  # the daemon's
    version: str = ""  # of the daemon's program, which an upgrade leaves running


def to_json(status: TunnelStatus) -> str:
    """The snapshot as one line of JSON in ASCII, without a line end, so that it is safe to print on a terminal.

    Args:
        status: one tunnel, with one level of `relays` at most.
    """
    return json.dumps(asdict(status), separators=(",", ":"))


def from_json(text: str | bytes) -> TunnelStatus:
    """The snapshot that `to_json` wrote, in this version of tunneld or in another.

    Args:
        text: one JSON object; bytes are UTF-8.

    Raises:
        ValueError: `text` is not a tunnel's status.
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


def _build(kind: type[Snapshot], data: Mapping[str, Any], **built: object) -> Snapshot:
    """A snapshot of this kind from the fields that `data` has; `built` holds those that are no plain JSON values."""
    known = fields(cast(Any, kind))
    values = {each.name: built.get(each.name, data.get(each.name)) for each in known if each.name in data}
    missing = [each.name for each in known if each.name not in values and _has_no_default(each)]
    if missing:
        raise ValueError(f"no {kind.__name__}: {', '.join(missing)} missing")
    return kind(**values)


def _has_no_default(each: Any) -> bool:
    return each.default is MISSING and each.default_factory is MISSING
