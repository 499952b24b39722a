"""One life of the agent: the outlet here, the ingress there, and the streams between them.

The control stream is a session channel of the tunnel's own SSH connection; it starts the agent and carries datagrams
until better ones are there. While flows exist, two more SSH connections carry one dedicated stream each, so that
neither a bulk copy through a forward nor one lost segment delays a keystroke.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import asyncssh
from structlog.typing import FilteringBoundLogger

from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.endpoint import DeliverOnFlow, EndpointEvent, FlowEnded, Message, Outlet
from tunneld.core.stream.flow import Flow
from tunneld.core.supervise.backoff import Limits, floor
from tunneld.errors import TunneldError
from tunneld.shim.sockets import FlowSockets
from tunneld.shipped import pack
from tunneld.ssh.connect.failure import SessionError, safe
from tunneld.ssh.remote import remote
from tunneld.status.snapshot import CarrierStatus

CONTROL = "control"
DEDICATED = ("stream-1", "stream-2")

START_TIMEOUT = 15.0
"""Seconds for the far side to start Python and to greet: as long as a login may take."""

TICK = 0.5
"""Seconds between two looks at the streams: the granularity of the time-outs below."""

STALLED = 3.0
"""Seconds without an answer after which a dedicated stream is opened anew, if another one was heard meanwhile."""

UNUSED = 60.0
"""Seconds without a flow after which the dedicated connections are closed."""

LONGEST_PAUSE = 60.0
"""Seconds at most between two attempts to open a dedicated stream."""

Dial = Callable[[], Awaitable[asyncssh.SSHClientConnection]]


class AgentError(TunneldError):
    """The agent could not be started, or it ended; the text says why mosh is not available."""


class AgentLink:
    """Starts the agent over an SSH connection and serves until it ends."""

    def __init__(
        self, *, bind: str, ports: range, host: str, interval: float, silence: float, log: FilteringBoundLogger
    ) -> None:
        """`host` is mosh-server's numeric address; `interval` and `silence` (between pings, and until the agent gives
        up on us) are seconds."""
        self.outlet = Outlet(ports)
        self.reported: Mapping[str, int] = {}
        self._serve = {"bind": bind, "ports": [ports[0], ports[-1]], "silence": silence}
        self._interval = interval
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._sockets = FlowSockets(host, self._answered, self._refused)
        self._programs: dict[str, remote.RemoteProgram] = {}
        self._faults: dict[str, str] = {}
        self._serving: dict[str, Any] | None = None
        self._spoken = asyncio.Event()
        self._used = self._loop.time() - UNUSED
        self._in_use = asyncio.Event()

    async def run(self, connection: asyncssh.SSHClientConnection, *, dial: Dial, ready: Callable[[], None]) -> None:
        """Serve; `ready` is called once the ingress is open.

        Raises:
            AgentError: always, in the end: the agent is gone, or was never there.
        """
        try:
            control = await self._open(connection, CONTROL, pack.ingress_agent_program())
            door = await self._start_serving(control)
            ready()
            async with asyncio.TaskGroup() as group:
                programs = {name: pack.join_program(door, name) for name in DEDICATED}
                tasks = [group.create_task(self._keep(name, program, dial)) for name, program in programs.items()]
                tasks.append(group.create_task(self._tick()))
                await control.ended.wait()
                for task in tasks:
                    task.cancel()
            raise AgentError(self._why_ended(control))
        finally:
            for name in list(self._programs):
                self._drop(name)
            self._sockets.close_all()

    def carriers(self) -> Iterable[CarrierStatus]:
        now = self._loop.time()
        return [
            CarrierStatus(
                name=carrier.name,
                rtt=carrier.rtt,
                stalled=carrier.is_late(now),
                queued=carrier.queued,
                sent=carrier.sent,
                received=carrier.received,
            )
            for carrier in self.outlet.carriers.values()
        ]

    # Streams

    async def _open(self, connection: asyncssh.SSHClientConnection, name: str, program: bytes) -> remote.RemoteProgram:
        """Start a program on the far side and make a carrier of it; back once the far side has greeted."""
        carrier = StreamCarrier(name, self._loop.time(), dedicated=name != CONTROL)
        settled = asyncio.Event()

        def received(data: bytes) -> None:
            self._received(name, data)
            if carrier.greeted:
                settled.set()

        def lost() -> None:
            settled.set()
            self._spoken.set()

        opened = remote.RemoteProgram(received, lost)
        self.outlet.attach(carrier)
        self._programs[name] = opened
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await remote.start(connection, program, opened)
                await settled.wait()
        except TimeoutError:
            self._drop(name)
            raise AgentError(f"the relay did not start our agent within {START_TIMEOUT:g} s{_said(carrier)}") from None
        except asyncssh.ChannelOpenError as error:
            self._drop(name)
            raise AgentError(f"the relay runs no commands for us ({safe(error.reason) or 'refused'})") from None
        except BaseException:
            self._drop(name)
            raise
        if not carrier.greeted or opened.ended.is_set():
            self._drop(name)
            raise AgentError(self._why_not_started(opened, carrier))
        return opened

    async def _start_serving(self, control: remote.RemoteProgram) -> str:
        """Have the ingress opened; the path at which further streams join."""
        self.outlet.carriers[CONTROL].say(frame.message(frame.SERVE, self._serve))
        self._flush()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while self._serving is None and not control.ended.is_set():
                    await self._spoken.wait()
                    self._spoken.clear()
        except TimeoutError:
            raise AgentError(f"the agent did not open the ingress within {START_TIMEOUT:g} s") from None
        answer = self._serving
        if answer is None:
            raise AgentError(self._why_ended(control))
        if "error" in answer:
            error = answer["error"]
            raise AgentError(
                f"the relay's ingress: {_shown(error) if isinstance(error, str) else 'it does not say why'}"
            )
        if not isinstance(answer.get("join"), str):
            raise AgentError("the agent does not say where further streams join")
        return str(answer["join"])

    async def _keep(self, name: str, program: bytes, dial: Dial) -> None:
        """Hold one dedicated stream open while there are flows."""
        pause, told = 1.0, ""
        while True:
            await self._in_use.wait()
            opened, error = self._loop.time(), None
            try:
                await self._hold(name, program, dial)
            except (SessionError, AgentError, asyncssh.Error) as failed:
                error = failed
            if self._loop.time() - opened > LONGEST_PAUSE:
                pause, told = 1.0, ""
            wait = max(pause, _least_pause(error))
            if error is not None and str(error) != told:
                told = str(error)
                self._log.info("stream_failed", stream=name, reason=told, retry_in=wait)
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _hold(self, name: str, program: bytes, dial: Dial) -> None:
        """One life of a dedicated stream, on an SSH connection of its own."""
        connection = None
        try:
            connection = await dial()
            stream = await self._open(connection, name, program)
            self._log.debug("stream_opened", stream=name)
            await self._watch(name, stream)
        finally:
            self._drop(name)
            if connection:
                connection.abort()

    async def _watch(self, name: str, stream: remote.RemoteProgram) -> None:
        """Back when the stream has ended, answers no more, or is needed no more."""
        carrier = self.outlet.carriers[name]
        while self._in_use.is_set():
            try:
                async with asyncio.timeout(TICK):
                    await stream.ended.wait()
                return
            except TimeoutError:
                waited = carrier.waited(now := self._loop.time())
                others = (other for other in self.outlet.carriers.values() if other is not carrier)
                if waited > STALLED and any(other.heard > now - waited for other in others):
                    return

    async def _tick(self) -> None:
        next_ping = 0.0
        while True:
            now = self._loop.time()
            if len(self.outlet.flows):
                self._used = now
            if now - self._used >= UNUSED:
                self._in_use.clear()
            if now >= next_ping:
                next_ping = now + self._interval
                for carrier in self.outlet.carriers.values():
                    if carrier.greeted:
                        carrier.ping(now)
            self._apply(self.outlet.tick(now))
            self._flush()
            await asyncio.sleep(TICK if self._in_use.is_set() else self._interval)

    def _received(self, name: str, data: bytes) -> None:
        if name not in self.outlet.carriers:
            return
        try:
            self._apply(self.outlet.receive(name, data, self._loop.time()))
        except frame.ProtocolError as error:
            self._faults[name] = str(error)
            self.outlet.counts["streams_malformed"] += 1
            self._drop(name)
        self._flush()

    def _flush(self) -> None:
        now = self._loop.time()
        for name, program in list(self._programs.items()):
            carrier = self.outlet.carriers[name]
            if carrier.is_choked:
                self._faults[name] = "it asks for more than it reads"
                self._drop(name)
            # The far side speaks first: until then its Python may still be reading the agent's source text.
            elif carrier.greeted and not program.is_full and (data := carrier.outgoing(now)):
                program.write(data)

    def _drop(self, name: str) -> None:
        self.outlet.detach(name)
        program = self._programs.pop(name, None)
        if program:
            program.close()

    # Datagrams

    def _apply(self, events: Iterable[EndpointEvent]) -> None:
        for event in events:
            match event:
                case DeliverOnFlow(flow, datagram) if self.outlet.flows.get(flow.number) is flow:
                    # A flow that was refused by an earlier datagram of this batch has no socket any more, nor gets one.
                    self._in_use.set()
                    self._sockets.send(flow, datagram)
                case FlowEnded(flow):
                    self._sockets.close(flow)
                case Message(frame.SERVING, body):
                    self._serving = body
                    self._spoken.set()
                case Message(frame.REPORT, body):
                    self.reported = _counters(body)

    def _answered(self, flow: Flow, datagram: bytes) -> None:
        self.outlet.answer(flow, datagram, self._loop.time())
        self._flush()

    def _refused(self, flow: Flow) -> None:
        """Nothing listens on the flow's port on this side: no mosh-server, or no more."""
        self.outlet.counts["flows_refused_by_target"] += 1
        self._apply([self.outlet.close(flow, self._loop.time())])
        self._flush()

    # Words

    def _why_not_started(self, program: remote.RemoteProgram, carrier: StreamCarrier) -> str:
        if fault := self._faults.pop(carrier.name, None):
            return f"the agent on the relay broke the protocol: {fault}"
        if program.exit_status == pack.NO_PYTHON:
            return "the relay has no python3; install Python 3.9 or newer there"
        said = f" (it said: {program.last_words})" if program.last_words else _said(carrier)
        status = "" if program.exit_status is None else f" with exit status {program.exit_status}"
        return f"the relay did not start our agent: the command ended{status}{said}"

    def _why_ended(self, program: remote.RemoteProgram) -> str:
        if fault := self._faults.pop(CONTROL, None):
            return f"the agent on the relay broke the protocol: {fault}"
        return f"the agent on the relay ended{f' (it said: {program.last_words})' if program.last_words else ''}"


def _least_pause(error: Exception | None) -> float:
    """Seconds: two streams that are refused at every try would have the relay lock this address out."""
    return floor(error.failure, Limits()) if isinstance(error, SessionError) else 0.0


def _counters(body: Mapping[str, Any]) -> dict[str, int]:
    """What looks like counters among what the relay says; the rest could be anything, and would be shown."""
    named = {
        name: count for name, count in body.items() if name.isidentifier() and len(name) <= 64 and type(count) is int
    }
    return {name: named[name] for name in sorted(named)[:64] if 0 <= named[name] < 1 << 63}


def _said(carrier: StreamCarrier) -> str:
    """What came on standard output in the agent's place, fit to be shown."""
    text = carrier.noise.decode("utf-8", "replace").strip()
    return f" (it said: {_shown(text)})" if text else ""


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:200])
