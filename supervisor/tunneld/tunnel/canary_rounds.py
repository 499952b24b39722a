"""A tunnel's canary: tries each remote forward of the session that is up, one after the other, every few minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import asyncssh

from tunneld.core.supervise.canary import IN_USE, Beat, Finding, Verdict
from tunneld.core.supervise.failures import Failure
from tunneld.profile import Direction, Forward
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.remote.canary_visit import look
from tunneld.tunnel.context import Level, TunnelContext
from tunneld.tunnel.interruptible import Interruptible

# The tunnel itself passes connections on.
REACHED = {Verdict.PASSES, Verdict.TARGET}

# Somebody who connects gets nothing: logged as a warning.
USELESS = {Verdict.TARGET, Verdict.BROKEN}


class CanaryRounds:
    """One for all sessions of a tunnel, so that a forward which a new session did not mend costs no third session."""

    def __init__(self, interval: float, context: TunnelContext) -> None:
        """`interval` is in seconds from one visit of a forward to its next; 0 for no visits."""
        self._interval = interval
        self._context = context
        self._in_vain: set[Forward] = set()  # a session was ended for these, and they have not been reached since
        self._pause = Interruptible()

    def adopt(self, interval: float) -> None:
        """Have this interval, in seconds, from now on."""
        self._interval = interval
        self.wake()

    def wake(self) -> None:
        """A forward listens that did not listen before."""
        self._pause.interrupt()

    async def run(
        self,
        connection: asyncssh.SSHClientConnection,
        listening: Callable[[], Sequence[OpenForward]],
        *,
        is_doubtful: Callable[[], bool],
    ) -> None:
        """Visit the forwards that are `listening` for as long as the session lives.

        Nothing is visited while the session `is_doubtful`: the keepalive judges that.

        Raises:
            SessionError: a forward is broken, and a new session may mend it.
        """
        beats: dict[OpenForward, Beat] = {}
        while True:
            now = self._context.timing.clock()
            beats = {each: beats.get(each) or Beat(now) for each in listening() if self._is_visited(each.forward)}
            if not beats:
                await self._pause.wait()
                continue
            for beat in beats.values():
                beat.shorten(now, self._interval)
            opened, beat = min(beats.items(), key=lambda item: item[1].due)
            if beat.due > now:
                await self._pause.wait_for(self._context.timing.sleep(beat.due - now))
            elif is_doubtful():
                beat.postpone(now)
            else:
                await self._visit(connection, opened, beat, is_doubtful)

    def _is_visited(self, forward: Forward) -> bool:
        return self._interval > 0 and forward.canary and forward.direction is Direction.REMOTE

    async def _visit(
        self,
        connection: asyncssh.SSHClientConnection,
        opened: OpenForward,
        beat: Beat,
        is_doubtful: Callable[[], bool],
    ) -> None:
        timing = self._context.timing
        before = opened.finding
        if before is not None and opened.heard:
            finding = IN_USE
        elif before is not None and before.is_final:
            finding = before
        else:
            finding = await look(connection, opened)
        if finding.verdict is Verdict.BROKEN and (is_doubtful() or opened.is_closed):
            beat.postpone(timing.clock())
            return
        opened.heard = False
        opened.finding = replace(finding, at=timing.clock())
        beat.note(opened.finding, interval=self._interval, chance=timing.chance())
        self._tell(opened, before, finding)
        if finding.verdict in REACHED:
            self._in_vain.discard(opened.forward)
        elif beat.is_lost and opened.forward not in self._in_vain:
            self._in_vain.add(opened.forward)
            raise SessionError(Failure.NETWORK, f"the forward from {opened.listening} is broken: {finding.text}")

    def _tell(self, opened: OpenForward, before: Finding | None, finding: Finding) -> None:
        """Log a finding that differs from the last one, unless the forward itself has logged that its target failed."""
        was = before or IN_USE
        if finding.verdict is was.verdict and (finding.verdict is Verdict.PASSES or finding.text == was.text):
            return
        if finding.verdict is Verdict.TARGET and finding.text == opened.target_error:
            return
        key = ("canary_found", opened.forward, finding.verdict, finding.text)
        listen, verdict, reason = str(opened.listening), finding.verdict.value, finding.text or None
        level: Level = "warning" if finding.verdict in USELESS else "info"
        self._context.tell(level, "canary_found", key=key, listen=listen, verdict=verdict, reason=reason)
