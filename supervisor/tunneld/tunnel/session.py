"""One session: the attempt that is retried. Dial, open every forward, hear an answer, live, give everything back.

A session that stops answering is not waited for: a second one is dialled beside it, and whichever answers first stays.

Tested in tests/tunnel/test_tunnel*.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn

import asyncssh

from tunneld.core.supervise.failures import Failure
from tunneld.net.name_watch import NameWatch
from tunneld.profile import Direction, Forward, Profile, TcpAddress
from tunneld.ssh.connect.alive import wait_for_answer
from tunneld.ssh.connect.client import first_hop, why_ended
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.connect.keepalive_watch import KeepaliveWatch
from tunneld.ssh.connect.race import NAMES
from tunneld.ssh.remote.takeover import Holder, Mark, Takeover
from tunneld.status.snapshot import ForwardStatus
from tunneld.tunnel.canary_rounds import CanaryRounds
from tunneld.tunnel.context import TunnelContext
from tunneld.tunnel.forwards import Forwards, waiting
from tunneld.tunnel.handover import Handover
from tunneld.tunnel.interruptible import Interruptible
from tunneld.tunnel.second_dial import SecondDial

# Seconds for a clean close. A relay that still answers takes a few milliseconds. One that does not answer is left to
# find out by itself.
CLOSE_TIME = 3.0

# After so many seconds without a fault, one log line counts the events that got no line, and the next fault is logged
# again. This is longer than any backoff: a link that flaps every minute is one piece of news, not sixty an hour.
CALM_TIME = 600.0

Companion = Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class SessionEvents:
    """What a session calls when something happens."""

    taken_over: Callable[[Takeover], None]  # it is known what became of an earlier session of ours on the relay
    # A required forward was refused: why, and in how many seconds it is asked for again.
    forward_awaited: Callable[[SessionError, float], None]
    established: Callable[[], None]  # the session is up
    doubted: Callable[[], None]  # the relay's answer is overdue, or has come after all
    stable: Callable[[], None]  # the session has lived for CALM_TIME, or `stable_after` if that is longer


class ReplacedError(SessionError):
    """The session is over because a better one is ready: its connection is in the tunnel's Handover."""

    def __init__(self, text: str) -> None:
        super().__init__(Failure.NETWORK, text)


class Session:
    """Runs once, to the profile's first relay."""

    def __init__(
        self,
        profile: Profile,
        context: TunnelContext,
        *,
        mark: Mark,
        companion: Companion | None,
        canary: CanaryRounds,
        handover: Handover,
        names: Callable[[str], NameWatch],
    ) -> None:
        """
        Args:
            mark: what the relay knows us by.
            companion: lives beside the forwards for as long as the connection does (the shim).
            canary: tries the forwards.
            handover: may have the connection to live on, and gets the one of a session that is to follow this one.
            names: gives the watch over a host name.
        """
        self._profile = profile
        self._context = context
        self._mark = mark
        self._companion = companion
        self._canary = canary
        self._handover = handover
        self._names = names
        self._forwards: Forwards | None = None
        self._keepalive: KeepaliveWatch | None = None
        self._peer = ""
        self._second_dial = SecondDial(self._dial, context)
        self._without_companion = Interruptible()  # what holds a channel until there is a companion
        self._ended = asyncio.Event()
        self._error: SessionError | None = None
        self._leave_now: asyncio.TimerHandle | None = None

    async def run(self, events: SessionEvents, *, outage: float) -> NoReturn:
        """Until the session ends; then everything that it had open is closed, also when it is cancelled.

        Args:
            events: what to call meanwhile.
            outage: seconds without a session so far.

        Raises:
            ReplacedError: another session is to go on in its place.
            SessionError: why it never came up, or why it ended.
        """
        connection = self._handover.take() or await self._dial(outage)
        try:
            await self._live(connection, events)
        finally:
            await self._close(connection)
        assert self._error is not None
        raise self._error

    async def change(self, wanted: tuple[Forward, ...]) -> None:
        """Hold these forwards from now on. Those that were held before are not touched.

        The session ends if a required one is refused.
        """
        if self._forwards is None:
            return
        try:
            await self._forwards.change(wanted)
        except SessionError as error:
            self._end(error)

    def accompany(self, companion: Companion | None) -> None:
        """Have this companion from now on; if there is one already, that one goes on. None changes nothing."""
        if self._companion is None and companion is not None:
            self._companion = companion
            self._without_companion.interrupt()

    def nudge(self) -> bool:
        """Something happened that may have ended the session: find out. Returns False while it is being dialled."""
        if self._keepalive is None:
            return False
        self._keepalive.nudge()
        self._second_dial.nudge()
        return True

    def succeed(self, connection: asyncssh.SSHClientConnection, reason: str) -> None:
        """End, and have the next session live on this connection."""
        self._handover.leave(connection)
        self._end(ReplacedError(reason))

    def forwards(self) -> tuple[ForwardStatus, ...]:
        """Each forward as it is now."""
        if self._forwards is None:
            return tuple(map(waiting, self._profile.forward))
        return self._forwards.status()

    @property
    def logged_in(self) -> bool:
        """Whether the relay has logged us in."""
        return self._keepalive is not None

    @property
    def peer(self) -> str:
        """The address that this machine is connected to; empty while it is not."""
        return self._peer

    @property
    def rtt(self) -> float | None:
        """Seconds from a question to the relay to its answer."""
        return None if self._keepalive is None else self._keepalive.rtt

    @property
    def silence(self) -> float | None:
        """Seconds since the relay's last answer, if that is longer than it should be."""
        return None if self._keepalive is None else self._keepalive.silence

    # A life

    async def _live(self, connection: asyncssh.SSHClientConnection, events: SessionEvents) -> None:
        """Until the session has ended."""
        self._keepalive = KeepaliveWatch(connection, self._profile.keepalive.interval)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._watch(connection)),
                group.create_task(self._keepalive.run()),
                group.create_task(self._replace(self._keepalive, events)),
                group.create_task(self._follow(connection)),
                group.create_task(self._serve(connection, events)),
            ]
            try:
                await self._ended.wait()
            finally:
                self._hurry(connection)
                for task in tasks:
                    task.cancel()

    async def _dial(self, outage: float) -> asyncssh.SSHClientConnection:
        return await dial(self._profile.relay, self._profile.keepalive, outage=outage)

    async def _serve(self, connection: asyncssh.SSHClientConnection, events: SessionEvents) -> None:
        listens = [each.listen for each in self._profile.forward if each.direction is Direction.REMOTE]
        holder = Holder(connection, self._mark, [each for each in listens if isinstance(each, TcpAddress)])
        self._forwards = Forwards(connection, self._profile.forward, self._context, opened=self._canary.wake)
        async with asyncio.TaskGroup() as tasks:
            taking_over = tasks.create_task(_take_over(holder, self._forwards, events))
            try:
                await self._forwards.open(taking_over, events.forward_awaited)
                if not self._forwards.answered:
                    await wait_for_answer(connection)
            except SessionError as error:
                self._end(error)
                return
            events.established()
            tasks.create_task(self._forwards.retry())
            tasks.create_task(self._try_forwards(connection, self._forwards))
            tasks.create_task(self._stay(connection, holder, taking_over))
            tasks.create_task(self._settle(events.stable))

    async def _stay(
        self, connection: asyncssh.SSHClientConnection, holder: Holder, taking_over: asyncio.Task[Takeover]
    ) -> None:
        """Have a session channel open: the companion's, or else the holder's, until a companion comes."""
        await taking_over
        if self._companion is None:
            await self._without_companion.wait_for(holder.hold())
        if self._companion is None:  # the channel has ended
            await self._without_companion.wait()
        if self._companion is not None:
            holder.close()
            await self._companion(connection)

    async def _try_forwards(self, connection: asyncssh.SSHClientConnection, forwards: Forwards) -> None:
        try:
            await self._canary.run(connection, forwards.listening, is_doubtful=lambda: self.silence is not None)
        except SessionError as error:
            self._end(error)

    async def _watch(self, connection: asyncssh.SSHClientConnection) -> None:
        await connection.wait_closed()
        self._end(why_ended(connection))

    async def _settle(self, stable: Callable[[], None]) -> None:
        await self._context.timing.sleep(max(CALM_TIME, self._profile.backoff.stable_after))
        stable()

    # Make before break

    async def _replace(self, keepalive: KeepaliveWatch, events: SessionEvents) -> None:
        """Dial a second session while this one is doubtful."""
        while True:
            await keepalive.doubted()
            self._context.tell("info", "session_doubted", key="session_doubted", silence=keepalive.silence)
            events.doubted()
            async with asyncio.TaskGroup() as race:
                dialling = race.create_task(
                    self._dial_second("the relay answers a new session, and no longer answers this one")
                )
                await keepalive.trusted()
                dialling.cancel()
            events.doubted()
            self._context.log.debug("session_trusted")

    async def _follow(self, connection: asyncssh.SSHClientConnection) -> None:
        """Go to another address when the relay's name leads there."""
        name, self._peer = first_hop(connection)
        if not await self._names(name).moved(self._peer):
            return  # the answers for this name will never prove anything
        NAMES.forget(name)  # else a slow name server would lead us back to where we are
        await self._dial_second("the relay's name leads to another address now")

    async def _dial_second(self, reason: str) -> None:
        """Dial until there is a second connection, and give way to it for this `reason`."""
        await self._second_dial.connect(self.silence or 0.0, lambda connection: self.succeed(connection, reason))

    # The end

    def _end(self, error: SessionError) -> None:
        if not isinstance(
            self._error, ReplacedError
        ):  # a ReplacedError stays: the handover already holds the next connection
            self._error = error
        self._ended.set()

    async def _close(self, connection: asyncssh.SSHClientConnection) -> None:
        """Give the relay its ports back, and leave. A session that is replaced is cut: its relay may not answer."""
        if isinstance(self._error, ReplacedError):
            connection.abort()
        self._hurry(connection)
        try:
            if self._forwards is not None:
                await self._forwards.close()
            connection.close()
            await connection.wait_closed()
        finally:
            connection.abort()
            if self._leave_now is not None:
                self._leave_now.cancel()

    def _hurry(self, connection: asyncssh.SSHClientConnection) -> None:
        """Cut the connection in CLOSE_TIME, however little the relay answers until then."""
        if self._leave_now is None:
            self._leave_now = asyncio.get_running_loop().call_later(CLOSE_TIME, connection.abort)


async def _take_over(holder: Holder, forwards: Forwards, events: SessionEvents) -> Takeover:
    takeover = await holder.start()
    forwards.taken_over(takeover)
    events.taken_over(takeover)
    return takeover
