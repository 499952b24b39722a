"""A tunnel's status in words for a person: how it is, what listens where, what went wrong last, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from textwrap import indent

from tunneld.core.supervise.lifecycle import Failure, State
from tunneld.status.brief import ALL, HUMAN, STATES, host_of, relays_up
from tunneld.status.quantities import counted, duration
from tunneld.status.snapshot import CarrierStatus, FailureStatus, ForwardStatus, MoshStatus, TunnelStatus

ADVICE = {
    Failure.NETWORK: "check this host's network and the relay's address; it is tried again by itself",
    Failure.CLOSED: "check that sshd runs on the relay, and on this port; it is tried again by itself",
    Failure.REFUSED: "look at sshd's log on the relay, and see that it is sshd that answers on this port; "
    "it is tried again by itself",
    Failure.AUTHENTICATION: "add this host's public key to the user's authorized_keys on the relay, "
    "or name the right identity in the profile",
    Failure.HOST_KEY: "compare the relay's key with one you trust, then put it into known_hosts; "
    "until then nothing is sent to it",
    Failure.FORWARD_BUSY: "give the forward another port, or end what holds this one; it is asked for again by itself",
    Failure.FORWARD_FORBIDDEN: "allow it on the relay: AllowTcpForwarding, PermitListen, "
    "and permitlisten in authorized_keys",
    Failure.PROTOCOL: "look at both sides' logs; the two do not agree on how to talk",
}
FAULT = "restart the daemon, and report what its log says"

# What a canary has found out.
CANARY = {
    "passes": "passes",
    "target": "the tunnel passes, its TARGET FAILS",
    "broken": "does NOT pass",
    "unknown": "not tried",
}

WHERE = {"remote": "on the relay", "local": "here", "dynamic": "here (SOCKS)"}


def describe(status: TunnelStatus) -> str:
    """Several lines, the first with the tunnel's name and state."""
    if status.mode == ALL:
        return "\n".join([_printable(headline(status)), *(_indented(each) for each in status.relays)])
    lines = [headline(status), f"  relay     {status.relay}, {_history(status)}"]
    lines += [f"  other     {other_line(each)}" for each in status.relays if each.relay != status.relay]
    lines += [f"  forward   {forward_line(each)}" for each in status.forwards]
    lines += [f"  mosh      {mosh_line(status.mosh)}"] if status.mosh.state != "off" else []
    lines += [f"  carrier   {carrier_line(each)}" for each in status.mosh.carriers]
    lines += list(_trouble(status))
    return "\n".join(map(_printable, lines))


def _indented(status: TunnelStatus) -> str:
    """One relay of several that are held at once: its block, under its own address."""
    return indent(describe(replace(status, name=host_of(status.relay))), "  ")


def _printable(line: str) -> str:
    """Whoever answered on the socket, and whatever a relay has said to it, moves no cursor here."""
    return "".join(each if each.isprintable() else " " for each in line)


def headline(status: TunnelStatus) -> str:
    return f"{status.name}: {_how(status)}"


def _how(status: TunnelStatus) -> str:
    waits = status.state is State.DIALING and status.next_try_in is not None
    state = "logged in, and waits for a port" if waits else STATES[status.state]
    words = f"{state} for {duration(status.since)}"
    if status.state is not State.UP and status.failure and status.failure.failure in HUMAN:
        words = f"NEEDS YOU: {status.failure.failure.value}, {words}"
    if status.silence is not None:
        words += f", but no sign of life from the relay for {duration(status.silence)}: dialing a second session"
    if status.next_try_in is not None:
        words += f", next try in {duration(status.next_try_in)}"
    return f"{words}; {relays_up(status)}" if status.mode == ALL else words


def _history(status: TunnelStatus) -> str:
    sessions, attempts = counted(status.sessions, "session"), counted(status.attempts, "attempt")
    rtt = "" if status.rtt is None else f", answers in {status.rtt * 1000:.0f} ms"
    return f"{sessions} from {attempts} in {duration(status.running)}{rtt}"


def other_line(status: TunnelStatus) -> str:
    """A relay that does not serve now: why not."""
    if status.state is State.IDLE:
        return f"{status.relay}: in reserve"
    if status.state is State.UP and status.silence is None:
        return f"{status.relay}: up for {duration(status.since)}, on trial before it serves again"
    told = f"; {_told(status.failure)}" if status.failure and status.state is not State.UP else ""
    return f"{status.relay}: {_how(status)}{told}"


def forward_line(forward: ForwardStatus) -> str:
    to = f" -> {forward.to}" if forward.to else ""
    optional = "" if forward.required else " (optional)"
    line = f"{forward.listening or forward.listen} {WHERE.get(forward.direction, '')}{to}{optional}: "
    if forward.state == "listening":
        line += f"listening, {counted(forward.connections, 'connection')} ({forward.total} in all)"
        return line + _canary(forward)
    if forward.failure is None:
        return line + "waits for the session"
    again = "" if forward.next_try_in is None else f"; next try in {duration(forward.next_try_in)}"
    return f"{line}NOT listening: {forward.failure.text}{again}"


def _canary(forward: ForwardStatus) -> str:
    """What comes of connections through it, and how we know."""
    canary = forward.canary
    if canary is None or canary.verdict not in CANARY:
        return f"; last target fault: {forward.target}" if forward.target else ""
    words = CANARY[canary.verdict]
    if canary.rtt is not None:
        words += f" in {canary.rtt * 1000:.0f} ms"
    words += f": {canary.text}" if canary.text else ""
    other = forward.target if forward.target != canary.text else None
    words += f"; last target fault: {other}" if other else ""
    return f"; {words} ({duration(canary.ago, units=1)} ago)"


def mosh_line(mosh: MoshStatus) -> str:
    line = f"{mosh.state}, UDP ports {mosh.ports} on the relay" if mosh.ports else mosh.state
    if mosh.state == "ready":
        return f"{line}, {counted(mosh.flows, 'flow')}"
    return f"{line}: {mosh.reason}" if mosh.reason else line


def carrier_line(carrier: CarrierStatus) -> str:
    rtt = "no measured delay yet" if carrier.rtt is None else f"{carrier.rtt * 1000:.0f} ms"
    line = f"{carrier.name}: {rtt}, {carrier.sent} sent, {carrier.received} received"
    return f"{line}, {carrier.queued} queued, STALLED" if carrier.stalled else line


def _trouble(status: TunnelStatus) -> Iterator[str]:
    """The last failure; what to do about it only while it lasts."""
    if status.failure is None:
        return
    yield f"  last fault  {_told(status.failure)}"
    if status.state is not State.UP:
        kind = status.failure.failure
        yield f"  to do       {ADVICE[kind] if kind else FAULT}"


def _told(failure: FailureStatus) -> str:
    kind = f"{failure.failure.value}: " if failure.failure else ""
    return f"{duration(failure.ago)} ago, {kind}{failure.text}"
