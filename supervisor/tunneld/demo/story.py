"""What happens in the demo, step by step. A step is told only after it was seen; the caller prints it.

Tested in tests/cli/test_demo.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, Protocol

from structlog.typing import EventDict

from tunneld.core.supervise.lifecycle import State
from tunneld.demo.events import Events
from tunneld.demo.pseudo_terminal import NotShownError, Terminal
from tunneld.demo.stage import Stage
from tunneld.errors import TunneldError
from tunneld.tunnel.tunnel import Tunnel

# Seconds for each step. It takes one or two; a busy machine may need more.
STEP_TIMEOUT = 20.0
# Seconds that the link stays cut, at least: the tunnel notices within them, and a reader can still wait for the end.
SHORTEST_CUT = 6.0
KEYS_TO_MEASURE = "abcdefghijklmnopqrst"  # no key twice, so that each echo is known

Mood = Literal["plain", "typed", "good", "bad"]


class Say(Protocol):
    """Tells a line: who does what. `at` is when, on the event loop's clock; without it, now."""

    def __call__(self, who: str, what: str, mood: Mood = "plain", *, at: float | None = None) -> None: ...


class DemoError(TunneldError):
    """The demo did not see what it wanted to show."""


class Story:
    """`say` tells a line, and `pause` gives the reader time."""

    def __init__(self, stage: Stage, *, say: Say, pause: Callable[[], Awaitable[None]]) -> None:
        self._stage = stage
        self._say = say
        self._pause = pause
        self._events = Events()
        self._tunnel = Tunnel(stage.profile, log=self._events.log)

    async def play(self) -> None:
        """Play from the tunnel's start to its stop.

        Raises:
            DemoError: a step failed.
        """
        async with self._running():
            await self._up()
            await self._pause()
            try:
                await self._person()
            except NotShownError as error:
                raise DemoError(f"the mosh session failed: {error}") from None
        await self._stopped()

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tunnel.run())
                try:
                    yield
                finally:
                    self._stage.link.mend()  # else the stop would wait for a relay that cannot be reached
                    self._tunnel.stop()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _up(self) -> None:
        await self._until("mosh_ready")
        status = self._tunnel.status()
        if status.state is not State.UP or status.mosh.state != "ready":
            raise DemoError(f"the tunnel is {status.state.value}, and mosh is {status.mosh.state}")

    async def _person(self) -> None:
        """One mosh session: before, during and after the cut."""
        self._say("person", f"$ {self._stage.mosh}", "typed")
        async with Terminal(shlex.split(self._stage.mosh), environment=self._stage.environment) as terminal:
            await terminal.shows(r"pi\$", within=STEP_TIMEOUT)
            self._say("person", "is on the host: mosh shows its prompt")
            terminal.type("echo hello-$$\r")
            self._say("person", "types: echo hello-$$", "typed")
            shell = (await terminal.shows(r"hello-(\d+)\D", within=STEP_TIMEOUT))[1]
            self._say("person", f"reads: hello-{shell}", "good")
            await self._measure(terminal)
            self._crossed()
            await self._pause()
            await self._cut_and_mend(terminal, shell)
            await self._measure(terminal)
            await self._pause()
            terminal.type("exit\r")
            self._say("person", "types: exit", "typed")
            if await terminal.ended(within=STEP_TIMEOUT) != 0:
                raise DemoError("mosh ended with an error")

    async def _cut_and_mend(self, terminal: Terminal, shell: str) -> None:
        now = asyncio.get_running_loop().time
        self._stage.link.cut()
        cut_at = now()
        self._say("link", "CUT: nothing passes between host and relay, and neither of them is told", "bad")
        terminal.type("echo typed-in-the-dark-$$\r")
        self._say("person", "goes on typing: echo typed-in-the-dark-$$", "typed")
        await self._until("backoff_ended")
        await asyncio.sleep(cut_at + SHORTEST_CUT - now())
        self._stage.link.mend()
        self._say("link", f"whole again, after {now() - cut_at:.0f} s", "good")
        await self._up()
        found = await terminal.shows(r"typed-in-the-dark-(\d+)\D", within=STEP_TIMEOUT)
        if found[1] != shell:
            raise DemoError(f"after the cut another shell answers: process {found[1]}, and before it was {shell}")
        self._say("person", f"reads: typed-in-the-dark-{shell}: the same mosh session, the same shell", "good")

    async def _measure(self, terminal: Terminal) -> None:
        echoes = [1000 * await terminal.echo(key, within=STEP_TIMEOUT) for key in KEYS_TO_MEASURE]
        terminal.type("\x15")  # Ctrl-U empties the line
        text = f"{len(KEYS_TO_MEASURE)} keys, each shown after {statistics.median(echoes):.0f} ms (median; the slowest"
        self._say("person", f"{text} {max(echoes):.0f} ms)")

    def _crossed(self) -> None:
        """Make sure that the datagrams went through the tunnel, and nowhere else."""
        mosh = self._tunnel.status().mosh
        to_host, back = (mosh.counters.get(f"host_datagrams_{way}", 0) for way in ("in", "out"))
        if not (mosh.flows and to_host and back):
            raise DemoError("mosh works, but its datagrams did not cross the tunnel")
        self._say("tunnel", f"has carried {to_host} of mosh's datagrams to the host, and {back} back")

    async def _stopped(self) -> None:
        await self._until("tunnel_stopped")
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                await self._stage.relay_is_quiet()
        except TimeoutError:
            held = ", ".join(self._stage.held_ports()) or "the agent"
            raise DemoError(f"the tunnel has stopped, but the relay still holds {held}") from None
        self._say("relay", "its ports are free again")

    async def _until(self, wanted: str) -> None:
        """Tell the tunnel's events, up to the first one that is called `wanted`."""
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                while True:
                    at, event = await self._events.next()
                    if told := told_as(event):
                        self._say("tunnel", *told, at=at)
                    if event["event"] == wanted:
                        return
        except TimeoutError:
            raise DemoError(f"{wanted} did not happen within {STEP_TIMEOUT:g} s; {self._trouble()}") from None

    def _trouble(self) -> str:
        status = self._tunnel.status()
        why = status.mosh.reason if status.state is State.UP else status.failure and status.failure.text
        return f"the tunnel is {status.state.value}" + (f": {why}" if why else "")


def told_as(event: EventDict) -> tuple[str, Mood] | None:
    """An event of the tunnel's log, in words. None for an event that the reader of the demo need not know."""
    match event:
        case {"event": "tunnel_started"}:
            return f"dialing {event['relay']}", "plain"
        case {"event": "backoff_ended"}:
            return "dialing again", "plain"
        case {"event": "session_established"}:
            return "UP: logged in, and the relay listens for the host", "good"
        case {"event": "session_lost" | "dial_failed"}:
            when = f"in {event['retry_in']:.1f} s" if event["retry_in"] else "at once"
            return f"DOWN: {event['reason']}; tries again {when}", "bad"
        case {"event": "mosh_ready"}:
            return f"mosh is ready: UDP ports {event['ports']} on the relay lead to the host", "good"
        case {"event": "stop_requested"}:
            return "stops", "plain"
        case {"event": "tunnel_stopped"}:
            return "stopped", "plain"
        case {"level": "warning" | "error"}:
            return f"{event['event']}: {event.get('reason', '')}", "bad"
    return None
