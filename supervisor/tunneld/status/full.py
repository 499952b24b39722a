"""A tunnel's status in words for a person: how it is, what listens where, what went wrong last, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from textwrap import indent

from tunneld.core.printable import escaped
from tunneld.core.supervise.lifecycle import State
from tunneld.status.brief import EVERY_RELAY, STATE_WORDS, host_of, relays_up
from tunneld.status.quantities import counted, duration
from tunneld.status.snapshot import CarrierStatus, FailureStatus, ForwardStatus, MoshStatus, TunnelStatus

# What to do about a fault of tunneld's own, which has no failure class.
FAULT_ADVICE = "restart the daemon, and report what its log says"

# What a canary's verdict means for whoever uses the forward.
CANARY_WORDS = {
    "passes": "passes",
    "target": "the tunnel passes, its TARGET FAILS",
    "broken": "does NOT pass",
    "unknown": "not tried",
}

# Where a forward listens, by its direction.
WHERE = {"remote": "on the relay", "local": "here", "dynamic": "here (SOCKS)"}


def describe(status: TunnelStatus) -> str:
    """A tunnel in several lines, the first with its name and state. Nothing in them moves a terminal's cursor."""
    if status.mode == EVERY_RELAY:
        return "\n".join([escaped(headline(status)), *(_indented(each) for each in status.relays)])
    lines = [headline(status), f"  relay     {status.relay}, {_history(status)}"]
    lines += [f"  other     {other_line(each)}" for each in status.relays if each.relay != status.relay]
    lines += [f"  forward   {forward_line(each)}" for each in status.forwards]
    lines += [f"  mosh      {mosh_line(status.mosh)}"] if status.mosh.state != "off" else []
    lines += [f"  carrier   {carrier_line(each)}" for each in status.mosh.carriers]
    lines += list(_trouble(status))
    return "\n".join(map(escaped, lines))


def _indented(status: TunnelStatus) -> str:
    """The lines of one relay, under its address, where every relay is held at once."""
    return indent(describe(replace(status, name=host_of(status.relay))), "  ")


def headline(status: TunnelStatus) -> str:
    """`pi-home: down for 1 min 40 s, next try in 20 s`: name, state, and what is about to happen."""
    return f"{status.name}: {_how(status)}"


def _how(status: TunnelStatus) -> str:
    if status.state is State.DIALING and status.next_try_in is not None:
        words = f"logged in, has waited {duration(status.since)} for a port that is taken"
    else:
        words = f"{STATE_WORDS[status.state]} for {duration(status.since)}"
    failure = status.failure.failure if status.failure else None
    if status.state is not State.UP and failure and failure.rule.needs_person:
        words = f"NEEDS YOU: {failure.value}, {words}"
    if status.silence is not None:
        words += f", but no sign of life from the relay for {duration(status.silence)}: dialing a second session"
    if status.next_try_in is not None:
        words += f", next try in {duration(status.next_try_in)}"
    return f"{words}; {relays_up(status)}" if status.mode == EVERY_RELAY else words


def _history(status: TunnelStatus) -> str:
    sessions, attempts = counted(status.sessions, "session"), counted(status.attempts, "attempt")
    rtt = "" if status.rtt is None else f", answers in {status.rtt * 1000:.0f} ms"
    return f"{sessions} from {attempts} in {duration(status.running)}{rtt}"


def other_line(status: TunnelStatus) -> str:
    """A relay that does not serve now, and why it does not."""
    if status.state is State.IDLE:
        return f"{status.relay}: in reserve"
    if status.state is State.UP and status.silence is None:
        returns = "" if status.serves_in is None else f"; returns to service in {duration(status.serves_in)}"
        return f"{status.relay}: healthy for {duration(status.since)}{returns}"
    told = f"; {_told(status.failure)}" if status.failure and status.state is not State.UP else ""
    return f"{status.relay}: {_how(status)}{told}"


def forward_line(forward: ForwardStatus) -> str:
    """Where a forward listens and leads to, and how it is."""
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
    """What becomes of connections through a forward, and how long ago that was tried."""
    canary = forward.canary
    if canary is None or canary.verdict not in CANARY_WORDS:
        return f"; last target fault: {forward.target}" if forward.target else ""
    words = CANARY_WORDS[canary.verdict]
    if canary.rtt is not None:
        words += f" in {canary.rtt * 1000:.0f} ms"
    words += f": {canary.text}" if canary.text else ""
    other = forward.target if forward.target != canary.text else None
    words += f"; last target fault: {other}" if other else ""
    return f"; {words} ({duration(canary.ago, units=1)} ago)"


def mosh_line(mosh: MoshStatus) -> str:
    """Whether mosh can cross the tunnel, by which ports, and why not."""
    line = f"{mosh.state}, UDP ports {mosh.ports} on the relay" if mosh.ports else mosh.state
    if mosh.state == "ready":
        return f"{line}, {counted(mosh.flows, 'flow')}"
    return f"{line}: {mosh.reason}" if mosh.reason else line


def carrier_line(carrier: CarrierStatus) -> str:
    """One carrier's delay and its counts of datagrams."""
    rtt = "no measured delay yet" if carrier.rtt is None else f"{carrier.rtt * 1000:.0f} ms"
    line = f"{carrier.name}: {rtt}, {carrier.sent} sent, {carrier.received} received"
    return f"{line}, {carrier.queued} queued, STALLED" if carrier.stalled else line


def _trouble(status: TunnelStatus) -> Iterator[str]:
    """The last failure and, while it lasts, what to do about it."""
    if status.failure is None:
        return
    yield f"  last fault  {_told(status.failure)}"
    if status.state is not State.UP:
        failure = status.failure.failure
        yield f"  to do       {failure.rule.advice if failure else FAULT_ADVICE}"


def _told(failure: FailureStatus) -> str:
    kind = f"{failure.failure.value}: " if failure.failure else ""
    return f"{duration(failure.ago)} ago, {kind}{failure.text}"
