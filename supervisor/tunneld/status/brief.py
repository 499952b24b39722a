"""A tunnel in one line, for `systemctl status` and `tunneld enable`, and words that status/full.py uses as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunneld.core.printable import one_line
from tunneld.core.supervise.lifecycle import State
from tunneld.status.quantities import counted, duration
from tunneld.status.snapshot import CarrierStatus, ForwardStatus, MoshStatus, TunnelStatus

STATE_WORDS = {
    State.IDLE: "not started",
    State.DIALING: "dialing",
    State.UP: "up",
    State.BACKOFF: "down",
    State.DRAINING: "stopping",
    State.STOPPED: "stopped",
    State.FAILED: "FAILED",
}

# TunnelStatus.mode of a profile that holds a tunnel to every relay at once.
EVERY_RELAY = "all"

# The name of what a forward leads to, by the target's port. Any other target is told by its port alone.
SERVICES = {22: "ssh"}
IMPLIED_HOSTS = {"127.0.0.1", "[::1]", "localhost"}

# Characters of a failure's text in one line.
LONGEST_REASON = 160

# Forwards told in one line; the rest is counted.
MOST_FORWARDS = 3


def summary(tunnels: Sequence[TunnelStatus]) -> str:
    """All tunnels of a daemon in one line: of several, the names if all are up, else what is wrong with which."""
    if len(tunnels) == 1:
        return brief(tunnels[0])
    faulty = [each for each in tunnels if not _is_complete(each)]
    if not faulty:
        return f"{len(tunnels)} tunnels up: {', '.join(each.name for each in tunnels)}"
    up = sum(each.state is State.UP for each in tunnels)
    told = "; ".join(f"{each.name}: {brief(each)}" for each in faulty)
    return f"{up} of {counted(len(tunnels), 'tunnel')} up; {told}"


def _is_complete(status: TunnelStatus) -> bool:
    """Whether it is up, to every relay if it is to hold all of them."""
    needed = status.relays if status.mode == EVERY_RELAY else ()
    return all(each.state is State.UP for each in (status, *needed))


def brief(status: TunnelStatus) -> str:
    """One tunnel in one line.

    `up 3 h to relay.example.net; ssh 2222 to 22; mosh 60001-60010, 1 session, stream 41 ms`, or what is wrong.
    """
    if status.mode == EVERY_RELAY:
        return _each_relay(status)
    relay = host_of(status.relay)
    if status.state is State.UP:
        parts = [f"up {duration(status.since, units=1)} to {relay}{_instead(status)}"]
        if status.silence is not None:
            parts.append(f"NO SIGN OF LIFE for {duration(status.silence, units=1)}, dialing again")
        return "; ".join([*parts, *_forwards(status), *_mosh(status.mosh)])
    if status.state in {State.DRAINING, State.STOPPED}:
        return STATE_WORDS[status.state]
    if status.failure is None:
        return f"{STATE_WORDS[status.state]} {relay}"
    failure = status.failure.failure
    needs = "NEEDS YOU: " if failure and failure.rule.needs_person else ""
    return f"{needs}{_clipped(status.failure.text)}; {_next(status)}"


def _each_relay(status: TunnelStatus) -> str:
    """How many relays are up; then what is wrong with the others or, if nothing is, the forwards and mosh."""
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
    """That it is not on the relay that the profile prefers; empty if it is."""
    preferred = status.relays[0].relay if status.relays else status.relay
    return "" if preferred == status.relay else f" instead of {host_of(preferred)}"


def host_of(relay: str) -> str:
    """`relay.example.net` of `tunnel@relay.example.net`."""
    return relay.rpartition("@")[2]


def _next(status: TunnelStatus) -> str:
    if status.next_try_in is not None:
        return f"next try in {duration(status.next_try_in)}"
    return "dialing again" if status.state is State.DIALING else STATE_WORDS[status.state]


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
    """Why connections through a forward come to nothing although the tunnel passes them on; None if they do not."""
    if forward.target is None and forward.canary is not None and forward.canary.verdict == "target":
        return forward.canary.text
    return forward.target


def _service(forward: ForwardStatus) -> str:
    """`ssh ` before a remote forward whose target is known by its port; `local ` or `SOCKS ` before other kinds."""
    if forward.direction != "remote":
        return {"local": "local ", "dynamic": "SOCKS "}.get(forward.direction, "")
    port = (forward.to or "").rpartition(":")[2]
    service = SERVICES.get(int(port)) if port.isdecimal() else None
    return f"{service} " if service else ""


def _port(address: str) -> str:
    """An address, or its port alone if the address is loopback."""
    host, _, port = address.rpartition(":")
    return port if host in IMPLIED_HOSTS else address


def _mosh(mosh: MoshStatus) -> Iterator[str]:
    if mosh.state == "ready":
        sessions = [counted(mosh.flows, "session")] if mosh.flows else []
        yield ", ".join([f"mosh {mosh.ports}", *sessions, *_carrier(mosh.carriers)])
    elif mosh.state != "off":
        yield f"mosh {mosh.state}" + (f": {_clipped(mosh.reason)}" if mosh.reason else "")


def _carrier(carriers: Sequence[CarrierStatus]) -> Iterator[str]:
    """The fastest carrier that answers. All carriers inside SSH (`control`, `stream-1` ...) are told as `stream`."""
    answering = [(each.rtt, each.name) for each in carriers if each.rtt is not None and not each.stalled]
    for rtt, name in sorted(answering)[:1]:
        told = "stream" if name.startswith(("control", "stream")) else name
        yield f"{told} {rtt * 1000:.0f} ms"


def _clipped(text: str) -> str:
    return one_line(text, LONGEST_REASON)
