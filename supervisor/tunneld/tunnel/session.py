"""One session: the attempt that is retried. Dial, open every forward, hear an answer, live, give everything back.

A session that stops answering is not waited for: a second one is dialled beside it, and whichever answers first stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn

import asyncssh
from structlog.typing import FilteringBoundLogger

from tunneld.core.supervise.lifecycle import Failure
from tunneld.net.name_watch import NameWatch
from tunneld.profile import Direction, Forward, Profile, Relay, TcpAddress
from tunneld.ssh.connect.alive import wait_for_answer
from tunneld.ssh.connect.client import first_hop, why_ended
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.connect.keepalive_watch import KeepaliveWatch
from tunneld.ssh.connect.race import NAMES
from tunneld.ssh.remote.takeover import Holder, Mark, Takeover
from tunneld.status.snapshot import ForwardStatus
from tunneld.tunnel.canary_rounds import CanaryRounds
from tunneld.tunnel.forwards import Forwards, waiting
from tunneld.tunnel.interruptible import Interruptible
from tunneld.tunnel.repeats import Repeats
from tunneld.tunnel.second_dial import SecondDial
from tunneld.tunnel.timing import Timing

# Seconds for a clean close. A relay that still answers takes a few milliseconds; one that does not is left to find out.
CLOSE_TIME = 3.0

# Seconds without a fault until what was not logged is summed up, and the next fault is news again. Longer than any
# backoff: a link that flaps every minute is one piece of news, not sixty an hour.
CALM = 600.0

Companion = Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class SessionEvents:
    """Whom a session tells what.

    `taken_over`: what became of an earlier session of ours on the relay; `hindered`: why it is not up yet, and in how
    many seconds that is tried again; `established`: it is up; `doubted`: the relay's answer is overdue, or came after
    all; `stable`: it has lived CALM seconds (or `stable_after`).
    """

    taken_over: Callable[[Takeover], None]
    hindered: Callable[[SessionError, float], None]
    established: Callable[[], None]
    doubted: Callable[[], None]
    stable: Callable[[], None]


class ReplacedError(SessionError):
    """The session is over because a better one is there: `successor`, a connection that is logged in."""

    def __init__(self, text: str, successor: asyncssh.SSHClientConnection) -> None:
        super().__init__(Failure.NETWORK, text)
        self.successor = successor


class Session:
    """Runs once, over `successor` if that is given, else over a connection of its own to `relay`.

    `companion` lives beside the forwards for as long as the connection does (the shim), `canary` tries the forwards.
    `mark` is what we are known by on the relay; `outage` is how long, in seconds, there has been no session; `names`
    are the watches over host names.
    """

    def __init__(
        self,
        profile: Profile,
        relay: Relay,
        *,
        mark: Mark,
        companion: Companion | None,
        canary: CanaryRounds,
        successor: asyncssh.SSHClientConnection | None,
        outage: float,
        names: Callable[[str], NameWatch],
        timing: Timing,
        log: FilteringBoundLogger,
        repeats: Repeats,
    ) -> None:
        self._profile = profile
        self._relay = relay
        self._mark = mark
        self._companion = companion
        self._canary = canary
        self._successor = successor
        self._outage = outage
        self._names = names
        self._timing = timing
        self._log = log
        self._repeats = repeats
        self._forwards: Forwards | None = None
        self._vigil: KeepaliveWatch | None = None
        self._peer = ""
        self._beside = SecondDial(self._dial, limits=profile.backoff, timing=timing, log=log, repeats=repeats)
        self._staying = Interruptible()  # what holds a channel while there is no companion
        self._ended = asyncio.Event()
        self._error: SessionError | None = None
        self._leave_now: asyncio.TimerHandle | None = None

    async def run(self, news: SessionEvents) -> NoReturn:
        """Until the session ends; then everything it had open is closed, also when it is cancelled.

        Raises:
            ReplacedError: another session is to go on in its place.
            SessionError: why it never came up, or why it ended.
        """
        connection = self._successor or await self._dial(self._outage)
        try:
            try:
                await self._live(connection, news)
            finally:
                await self._close(connection)
        except BaseException:
            if isinstance(self._error, ReplacedError):
                self._error.successor.abort()
            raise
        assert self._error is not None
        raise self._error

    async def change(self, wanted: tuple[Forward, ...]) -> None:
        """Have these forwards instead; those in both lists are not touched. Ends the session if one is refused."""
        if self._forwards is None:
            return
        try:
            await self._forwards.change(wanted)
        except SessionError as error:
            self._end(error)

    def accompany(self, companion: Companion | None) -> None:
        """Have this beside the forwards from now on; one that is there already goes on."""
        if self._companion is None:
            self._companion = companion
            self._staying.interrupt()

    def nudge(self) -> bool:
        """Something happened that may have ended the session: find out. False: it is still being dialled."""
        if self._vigil is None:
            return False
        self._vigil.nudge()
        self._beside.nudge()
        return True

    def succeed(self, connection: asyncssh.SSHClientConnection, reason: str) -> None:
        """Give way to a session over this connection."""
        self._end(ReplacedError(reason, connection))

    def forwards(self) -> tuple[ForwardStatus, ...]:
        if self._forwards is None:
            return tuple(map(waiting, self._profile.forward))
        return self._forwards.status()

    @property
    def let_in(self) -> bool:
        """Whether the relay has logged us in."""
        return self._vigil is not None

    @property
    def peer(self) -> str:
        """The address that this machine is connected to; empty while it is not."""
        return self._peer

    @property
    def rtt(self) -> float | None:
        """Seconds from a question to the relay to its answer."""
        return None if self._vigil is None else self._vigil.rtt

    @property
    def silence(self) -> float | None:
        """Seconds since the relay's last answer, if that is longer than it should be."""
        return None if self._vigil is None else self._vigil.silence

    # A life

    async def _live(self, connection: asyncssh.SSHClientConnection, news: SessionEvents) -> None:
        """Until the session has ended."""
        self._vigil = KeepaliveWatch(connection, self._profile.keepalive.interval)
        async with asyncio.TaskGroup() as beside:
            tasks = [
                beside.create_task(self._watch(connection)),
                beside.create_task(self._vigil.run()),
                beside.create_task(self._replace(self._vigil, news)),
                beside.create_task(self._follow(connection)),
                beside.create_task(self._serve(connection, news)),
            ]
            try:
                await self._ended.wait()
            finally:
                self._hurry(connection)
                for task in tasks:
                    task.cancel()

    async def _dial(self, outage: float) -> asyncssh.SSHClientConnection:
        return await dial(self._relay, self._profile.keepalive, outage=outage)

    async def _serve(self, connection: asyncssh.SSHClientConnection, news: SessionEvents) -> None:
        listens = [each.listen for each in self._profile.forward if each.direction is Direction.REMOTE]
        holder = Holder(connection, self._mark, [each for each in listens if isinstance(each, TcpAddress)])
        self._forwards = Forwards(
            connection,
            self._profile.forward,
            limits=self._profile.backoff,
            timing=self._timing,
            log=self._log,
            repeats=self._repeats,
            opened=self._canary.wake,
        )
        async with asyncio.TaskGroup() as beside:
            taking_over = beside.create_task(_take_over(holder, self._forwards, news))
            try:
                await self._forwards.open(taking_over, news.hindered)
                if not self._forwards.answered:
                    await wait_for_answer(connection)
            except SessionError as error:
                self._end(error)
                return
            news.established()
            beside.create_task(self._forwards.retry())
            beside.create_task(self._try_forwards(connection, self._forwards))
            beside.create_task(self._stay(connection, holder, taking_over))
            beside.create_task(self._settle(news.stable))

    async def _stay(
        self, connection: asyncssh.SSHClientConnection, holder: Holder, taking_over: asyncio.Task[Takeover]
    ) -> None:
        """Have a session channel open: the shim's, or one for its own sake."""
        await taking_over
        if self._companion is None:
            await self._staying.wait_for(_held(holder))
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
        await self._timing.sleep(max(CALM, self._profile.backoff.stable_after))
        stable()

    # Make before break

    async def _replace(self, vigil: KeepaliveWatch, news: SessionEvents) -> None:
        """While the session is doubtful, dial another."""
        while True:
            await vigil.doubted()
            times = self._repeats.count("session_doubted")
            say = self._log.info if times else self._log.debug
            say("session_doubted", silence=vigil.silence, times=times)
            news.doubted()
            async with asyncio.TaskGroup() as race:
                dialling = race.create_task(self._dial_beside("the relay answers a new session, and this one no more"))
                await vigil.trusted()
                dialling.cancel()
            news.doubted()
            self._log.debug("session_trusted")

    async def _follow(self, connection: asyncssh.SSHClientConnection) -> None:
        """When the relay's name leads elsewhere, go there."""
        name, self._peer = first_hop(connection)
        await self._names(name).moved(self._peer)
        NAMES.forget(name)  # else a slow name server would lead us back to where we are
        await self._dial_beside("the relay's name leads to another address now")

    async def _dial_beside(self, reason: str) -> None:
        """Dial until there is a second connection; for that `reason` this session is over then."""
        await self._beside.connect(self.silence or 0.0, lambda connection: self.succeed(connection, reason))

    # The end

    def _end(self, error: SessionError) -> None:
        if self._error is None or not isinstance(self._error, ReplacedError):
            self._error = error
        elif isinstance(error, ReplacedError):
            error.successor.abort()
        self._ended.set()

    async def _close(self, connection: asyncssh.SSHClientConnection) -> None:
        """Give the relay its ports back and leave; to one that answers no more there is nothing to say."""
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
        """From now on, a relay that does not answer is waited for no longer than CLOSE_TIME."""
        if self._leave_now is None:
            self._leave_now = asyncio.get_running_loop().call_later(CLOSE_TIME, connection.abort)


async def _held(holder: Holder) -> None:
    """Hold a channel for as long as there is one, and then wait: a companion may still come."""
    await holder.hold()
    await asyncio.Event().wait()


async def _take_over(holder: Holder, forwards: Forwards, news: SessionEvents) -> Takeover:
    takeover = await holder.start()
    forwards.taken_over(takeover)
    news.taken_over(takeover)
    return takeover
