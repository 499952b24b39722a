"""Words for a tunnel's state that several places say: `tunneld status`, and the one line in `systemctl status`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunneld.core.supervise.lifecycle import Failure, State
from tunneld.status.quantities import counted, duration
from tunneld.status.snapshot import CarrierStatus, ForwardStatus, MoshStatus, TunnelStatus

# What a person has to mend: said louder than a link that is down.
HUMAN = {Failure.AUTHENTICATION, Failure.HOST_KEY}

STATES = {
    State.IDLE: "not started",
    State.DIALING: "dialing",
    State.UP: "up",
    State.BACKOFF: "down",
    State.DRAINING: "stopping",
    State.STOPPED: "stopped",
    State.FAILED: "FAILED",
}

# The mode of a profile whose relays are all held at once.
ALL = "all"

# What a forward to this port is for; others have their number alone.
SERVICES = {22: "ssh"}
LOOPBACK = {"127.0.0.1", "[::1]", "localhost"}

# Of a failure's text in one line, and of the forwards.
LONGEST_REASON = 160
MOST_FORWARDS = 3


def one_line(tunnels: Sequence[TunnelStatus]) -> str:
    """All of them in a line; of several, those that are not up."""
    if len(tunnels) == 1:
        return brief(tunnels[0])
    faulty = [each for each in tunnels if not _is_whole(each)]
    if not faulty:
        return f"{len(tunnels)} tunnels up: {', '.join(each.name for each in tunnels)}"
    up = sum(each.state is State.UP for each in tunnels)
    told = "; ".join(f"{each.name}: {brief(each)}" for each in faulty)
    return f"{up} of {counted(len(tunnels), 'tunnel')} up; {told}"


def _is_whole(status: TunnelStatus) -> bool:
    needed = status.relays if status.mode == ALL else ()
    return all(each.state is State.UP for each in (status, *needed))


def brief(status: TunnelStatus) -> str:
    """`up 3 h to relay.example.net; ssh 2222 to 22; mosh 60001-60010, 1 session, stream 41 ms`, or what is wrong."""
    if status.mode == ALL:
        return _each_relay(status)
    relay = host_of(status.relay)
    if status.state is State.UP:
        silent = (
            []
            if status.silence is None
            else [f"NO SIGN OF LIFE for {duration(status.silence, units=1)}, dialing again"]
        )
        up = f"up {duration(status.since, units=1)} to {relay}{_instead(status)}"
        return "; ".join([up, *silent, *_forwards(status), *_mosh(status.mosh)])
    if status.state in {State.DRAINING, State.STOPPED}:
        return STATES[status.state]
    if status.failure is None:
        return f"{STATES[status.state]} {relay}"
    needs = "NEEDS YOU: " if status.failure.failure in HUMAN else ""
    return f"{needs}{_clipped(status.failure.text)}; {_next(status)}"


def _each_relay(status: TunnelStatus) -> str:
    """How many relays are up; then those that are not, or what all are for."""
    down = [each for each in status.relays if each.state is not State.UP]
    count = relays_up(status)
    if not down:
        first = status.relays[0]
        return "; ".join([f"{count} for {duration(status.since, units=1)}", *_forwards(first), *_mosh(first.mosh)])
    return "; ".join([count, *(f"{host_of(each.relay)}: {brief(each)}" for each in down)])


def relays_up(status: TunnelStatus) -> str:
    """`1 of 2 relays up`."""
    up = sum(each.state is State.UP for each in status.relays)
    return f"{up} of {counted(len(status.relays), 'relay')} up"


def _instead(status: TunnelStatus) -> str:
    """The relay where it should be."""
    preferred = status.relays[0].relay if status.relays else status.relay
    return "" if preferred == status.relay else f" instead of {host_of(preferred)}"


def host_of(relay: str) -> str:
    """Without the user."""
    return relay.rpartition("@")[2]


def _next(status: TunnelStatus) -> str:
    if status.next_try_in is not None:
        return f"next try in {duration(status.next_try_in)}"
    return "dialing again" if status.state is State.DIALING else STATES[status.state]


def _forwards(status: TunnelStatus) -> Iterator[str]:
    yield from map(_forward, status.forwards[:MOST_FORWARDS])
    if more := len(status.forwards) - MOST_FORWARDS:
        yield from [f"{counted(more, 'forward')} more"] if more > 0 else []


def _forward(forward: ForwardStatus) -> str:
    line = _service(forward) + _port(forward.listening or forward.listen)
    line += f" to {_port(forward.to)}" if forward.to else ""
    if forward.state != "listening":
        return f"{line} NOT listening"
    if forward.canary is not None and forward.canary.verdict == "broken":
        return f"{line} NOT passing"
    fault = target_fault(forward)
    return f"{line} ({_clipped(fault)})" if fault else line


def target_fault(forward: ForwardStatus) -> str | None:
    """Why nothing comes of connections through a forward that is well itself."""
    if forward.target is None and forward.canary is not None and forward.canary.verdict == "target":
        return forward.canary.text
    return forward.target


def _service(forward: ForwardStatus) -> str:
    """What the forward is for, if that is clear, and that it goes the other way, if it does."""
    if forward.direction != "remote":
        return {"local": "local ", "dynamic": "SOCKS "}.get(forward.direction, "")
    port = (forward.to or "").rpartition(":")[2]
    service = SERVICES.get(int(port)) if port.isdecimal() else None
    return f"{service} " if service else ""


def _port(address: str) -> str:
    """An address as short as it stays clear: a loopback one is its port."""
    host, _, port = address.rpartition(":")
    return port if host in LOOPBACK else address


def _mosh(mosh: MoshStatus) -> Iterator[str]:
    if mosh.state == "ready":
        sessions = [counted(mosh.flows, "session")] if mosh.flows else []
        yield ", ".join([f"mosh {mosh.ports}", *sessions, *_carrier(mosh.carriers)])
    elif mosh.state != "off":
        yield f"mosh {mosh.state}" + (f": {_clipped(mosh.reason)}" if mosh.reason else "")


def _carrier(carriers: Sequence[CarrierStatus]) -> Iterator[str]:
    """The fastest that answers. All those inside SSH are the one way that is always there."""
    answering = [(each.rtt, each.name) for each in carriers if each.rtt is not None and not each.stalled]
    for rtt, name in sorted(answering)[:1]:
        way = "stream" if name.startswith(("control", "stream")) else name
        yield f"{way} {rtt * 1000:.0f} ms"


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
