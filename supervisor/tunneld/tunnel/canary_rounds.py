"""A tunnel's canary: visits each remote forward of the session that is up, one after the other, and seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import asyncssh
from structlog.typing import FilteringBoundLogger

from tunneld.core.supervise.canary import IN_USE, Beat, Finding, Verdict
from tunneld.core.supervise.lifecycle import Failure
from tunneld.profile import Direction, Forward
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.remote.canary_visit import look
from tunneld.tunnel.interruptible import Interruptible
from tunneld.tunnel.repeats import Repeats
from tunneld.tunnel.timing import Timing

REACHED = {Verdict.PASSES, Verdict.TARGET}
LOUD = {Verdict.TARGET, Verdict.BROKEN}


class CanaryRounds:
    """For all sessions of a tunnel: what a new session has not mended, it does not end another one for."""

    def __init__(self, interval: float, *, timing: Timing, log: FilteringBoundLogger, repeats: Repeats) -> None:
        """`interval` in seconds, 0: no visits."""
        self._interval = interval
        self._timing = timing
        self._log = log
        self._repeats = repeats
        self._in_vain: set[Forward] = set()  # a session was ended for these, and they have not been reached since
        self._pause = Interruptible()

    def adopt(self, interval: float) -> None:
        """Have this interval from now on."""
        self._interval = interval
        self.wake()

    def wake(self) -> None:
        """Something listens that did not."""
        self._pause.interrupt()

    async def run(
        self,
        connection: asyncssh.SSHClientConnection,
        listening: Callable[[], Sequence[OpenForward]],
        *,
        is_doubtful: Callable[[], bool],
    ) -> None:
        """Visit what is `listening` for as long as the session lives, unless that is doubtful.

        Raises:
            SessionError: a forward is broken, and a new session may mend it.
        """
        beats: dict[OpenForward, Beat] = {}
        while True:
            now = self._timing.clock()
            beats = {each: beats.get(each) or Beat(now) for each in listening() if self._is_ours(each.forward)}
            if not beats:
                await self._pause.wait_for(_for_ever())
                continue
            for beat in beats.values():
                beat.shorten(now, self._interval)
            opened, beat = min(beats.items(), key=lambda item: item[1].due)
            if beat.due > now:
                await self._pause.wait_for(self._timing.sleep(beat.due - now))
            elif is_doubtful():
                beat.postpone(now)
            else:
                await self._visit(connection, opened, beat, is_doubtful)

    def _is_ours(self, forward: Forward) -> bool:
        return self._interval > 0 and forward.canary and forward.direction is Direction.REMOTE

    async def _visit(
        self,
        connection: asyncssh.SSHClientConnection,
        opened: OpenForward,
        beat: Beat,
        is_doubtful: Callable[[], bool],
    ) -> None:
        before = opened.finding
        if before is not None and opened.heard:
            finding = IN_USE
        elif before is not None and before.is_final:
            finding = before
        else:
            finding = await look(connection, opened)
        if finding.verdict is Verdict.BROKEN and (is_doubtful() or opened.is_closed):
            beat.postpone(self._timing.clock())
            return
        opened.heard = False
        opened.finding = replace(finding, at=self._timing.clock())
        beat.note(opened.finding, interval=self._interval, chance=self._timing.chance())
        self._tell(opened, before, finding)
        if finding.verdict in REACHED:
            self._in_vain.discard(opened.forward)
        elif beat.is_lost and opened.forward not in self._in_vain:
            self._in_vain.add(opened.forward)
            raise SessionError(Failure.NETWORK, f"the forward from {opened.listening} is broken: {finding.text}")

    def _tell(self, opened: OpenForward, before: Finding | None, finding: Finding) -> None:
        """Log what is news; of a target that does not accept the forward itself has told."""
        was = before or IN_USE
        if finding.verdict is was.verdict and (finding.verdict is Verdict.PASSES or finding.text == was.text):
            return
        if finding.verdict is Verdict.TARGET and finding.text == opened.target_error:
            return
        times = self._repeats.count(("canary_found", opened.forward, finding.verdict, finding.text))
        say = self._log.debug if not times else self._log.warning if finding.verdict in LOUD else self._log.info
        say("canary_found", listen=str(opened.listening), verdict=finding.verdict.value, reason=finding.text or None)


async def _for_ever() -> None:
    await asyncio.Event().wait()
