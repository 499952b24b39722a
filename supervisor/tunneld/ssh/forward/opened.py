"""A forward that listens: its counters, the connections that run through it, and the canary's visits to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from tunneld.core.supervise.canary import Finding, Step, Visit
from tunneld.profile import Forward, ForwardAddress
from tunneld.ssh.forward.pipe import PipeEnd

# Connections through one forward at the same time. Each takes a file descriptor here, and a process usually may have
# 1,024 of them: half for one forward leaves room for the others and for the tunnel itself.
MOST_CONNECTIONS = 512


class _Listener(Protocol):
    """What asyncssh's listeners and ours have in common."""

    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


class _LocalEnd(PipeEnd):
    """The end of a pipe that is on this host; notes that something was said on it."""

    def __init__(self, opened: OpenForward) -> None:
        super().__init__(ended=lambda: opened.left(self))
        self._opened = opened

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        self._opened.heard = True
        super().data_received(data, datatype)


class OpenForward:
    """A forward that listens. Its counters only rise, but for `connections`; a canary's visits are not among them."""

    def __init__(self, forward: Forward, log: FilteringBoundLogger) -> None:
        self.forward = forward
        self.listening: ForwardAddress = forward.listen
        self.total = 0  # connections that arrived
        self.failed = 0  # of those: their target did not answer
        self.refused = 0  # of those: there were too many at once
        self.target_error: str | None = None
        self.heard = False  # something from a target since a canary has asked last
        self.speaks_first = False  # the target has been heard to, by a canary
        self.takes_program = False  # to visit it, since the relay opens no channel to it for us
        self.finding: Finding | None = None  # the canary's last
        self._log = log.bind(listen=str(forward.listen))
        self._running: set[PipeEnd] = set()
        self._listener: _Listener | None = None
        self._closed = False
        self._crowded = False
        self._visit: Visit | None = None  # that is under way
        self._visitor: PipeEnd | None = None

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._running) - (self._visitor in self._running)

    def listens(self, listener: _Listener, listening: ForwardAddress) -> None:
        self._listener, self.listening = listener, listening

    async def close(self) -> None:
        """Stop listening, close what runs. Returns when the port is free."""
        self._closed = True
        for end in tuple(self._running):
            end.abort()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
            await listener.wait_closed()

    @contextlib.contextmanager
    def visited_by(self, visit: Visit) -> Iterator[None]:
        """The next connection from the visit's origin is the canary's, and is closed at the end of this.

        If another one came from there, that may have been it, and the first one somebody's: the relay closes its own.
        """
        self._visit = visit
        try:
            yield
        finally:
            visitor, self._visit, self._visitor = self._visitor, None, None
            if visitor is not None and not visit.is_mixed_up:
                visitor.close()

    def visit_of(self, origin: str | None) -> Visit | None:
        """The visit whose connection has just arrived from `origin`, if it may be one."""
        visit = self._visit
        if visit is None or not _same_place(origin, visit.origin):
            return None
        if Step.ARRIVED in visit.steps:
            visit.is_mixed_up = True
            return None
        visit.saw(Step.ARRIVED)
        return visit

    def admit(self, visit: Visit | None = None) -> PipeEnd | None:
        """An end for a connection that has arrived; None where it must be turned away."""
        self.total += visit is None
        if self._closed:
            return None
        if len(self._running) >= MOST_CONNECTIONS:
            self._turn_away(visit)
            return None
        if visit is None:
            end: PipeEnd = _LocalEnd(self)
        else:
            end = self._visitor = PipeEnd(ended=lambda: self.left(end))
        self._running.add(end)
        return end

    def left(self, end: PipeEnd) -> None:
        self._running.discard(end)

    def target_failed(self, reason: str, visit: Visit | None = None) -> None:
        """Count it, unless it is a canary's; log the first failure, or a new reason, of a row of them."""
        if visit is None:
            self.failed += 1
        else:
            visit.saw(Step.FAILED, reason)
        if self.target_error != reason:
            self._log.warning("target_failed", to=str(self.forward.to or ""), reason=reason)
        self.target_error = reason

    def target_answered(self, visit: Visit | None = None) -> None:
        if visit is not None:
            visit.saw(Step.ACCEPTED)
        if self.target_error is not None:
            self._log.info("target_answers", to=str(self.forward.to or ""), failed=self.failed)
        self.target_error = None

    def _turn_away(self, visit: Visit | None) -> None:
        if visit is not None:
            visit.saw(Step.FORBIDDEN, f"{MOST_CONNECTIONS} connections run through it, and more are turned away")
            return
        self.refused += 1
        if not self._crowded:
            self._log.warning("connections_refused", limit=MOST_CONNECTIONS)
        self._crowded = True


def _same_place(origin: str | None, expected: str | None) -> bool:
    """Whether a connection from `origin` may come from `expected`. A name could be any address; so could no origin."""
    if origin is None or expected is None:
        return True
    try:
        one, other = map(ip_address, (origin, expected))
    except ValueError:
        return True
    if isinstance(one, IPv6Address) and one.ipv4_mapped is not None:
        one = one.ipv4_mapped
    return one == other or (one.is_loopback and other.is_loopback)
