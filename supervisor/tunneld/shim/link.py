"""One life of the agent on the relay. The daemon starts it over SSH, tells it to open the ingress, and exchanges
datagrams with it until it ends.

The control stream is a session channel of the tunnel's own SSH connection. It starts the agent, and carries datagrams
until the dedicated streams are there. Datagrams from the agent go to mosh-server through the flows' sockets.

Tested in tests/shim/test_shim.py, test_rogue.py and test_cancel.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import asyncssh
from structlog.typing import FilteringBoundLogger

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.core.stream import frame
from tunneld.core.stream.endpoint import DeliverOnFlow, EndpointEvent, FlowEnded, Message, Outlet
from tunneld.core.stream.flow import Flow
from tunneld.core.stream.names import CONTROL_STREAM
from tunneld.core.supervise.backoff import Limits
from tunneld.profile import Keepalive, Mosh
from tunneld.shim.agent_streams import AgentError, AgentStreams
from tunneld.shim.dedicated_streams import STREAM_CHECK_INTERVAL, DedicatedStreams, Dial
from tunneld.shim.sockets import FlowSockets
from tunneld.shipped import pack
from tunneld.ssh.remote.remote import RemoteProgram

SERVE_TIMEOUT = 15.0
"""Seconds until the agent must have opened the ingress: a slow line and a busy relay need a few."""

SHORTEST_SILENCE = 20.0
"""Seconds without a byte from us after which the agent leaves, at least: it must outlive a daemon on a machine that is
busy for a moment."""

MAX_COUNTERS = 64
"""Counters of the agent that are shown."""

LONGEST_COUNTER = 64
"""Characters of a counter's name: the agent's own are half as long."""


class AgentLink:
    """Starts the agent over an SSH connection and serves until it ends. `reported` are the agent's counters."""

    def __init__(
        self, mosh: Mosh, host: str, *, keepalive: Keepalive, limits: Limits, dial: Dial, log: FilteringBoundLogger
    ) -> None:
        """`host` is mosh-server's numeric address; `dial` opens one more SSH connection to the relay."""
        ports = range(mosh.ports.first, mosh.ports.last + 1)
        silence = max(SHORTEST_SILENCE, keepalive.interval * (keepalive.count + 1))
        self.outlet = Outlet(ports)
        self.streams = AgentStreams(self.outlet, self._apply)
        self.reported: Mapping[str, int] = {}
        self._serve = {"bind": mosh.bind, "ports": [ports[0], ports[-1]], "silence": silence}
        self._ping_interval = min(keepalive.interval, silence / 4)
        self._now = asyncio.get_running_loop().time
        self._sockets = FlowSockets(host, self._answered, self._refused)
        self._dedicated = DedicatedStreams(self.streams, self.outlet, dial=dial, limits=limits, log=log)
        self._serving: dict[str, Any] | None = None
        self._news = asyncio.Event()  # the agent has said SERVING, or its control stream has ended

    async def run(self, connection: asyncssh.SSHClientConnection, *, ready: Callable[[], None]) -> None:
        """Serve; `ready` is called once the ingress is open.

        Raises:
            AgentError: always, in the end: the agent is gone, or was never there.
        """
        try:
            program = pack.ingress_agent_program()
            control = await self.streams.open(connection, CONTROL_STREAM, program, lost=self._news.set)
            join = await self._start_serving(control)
            ready()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._dedicated.keep(join)), group.create_task(self._keep_time())]
                await control.ended.wait()
                for task in tasks:
                    task.cancel()
            raise AgentError(self.streams.why_control_ended(control))
        finally:
            self.streams.drop_all()
            self._sockets.close_all()

    async def _start_serving(self, control: RemoteProgram) -> str:
        """Have the ingress opened; returns the path at which further streams join."""
        self.outlet.carriers[CONTROL_STREAM].say(frame.message(frame.SERVE, self._serve))
        self.streams.flush()
        try:
            async with asyncio.timeout(SERVE_TIMEOUT):
                while self._serving is None and not control.ended.is_set():
                    await self._news.wait()
                    self._news.clear()
        except TimeoutError:
            raise AgentError(f"the agent did not open the ingress within {SERVE_TIMEOUT:g} s") from None
        if self._serving is None:
            raise AgentError(self.streams.why_control_ended(control))
        return _join_path(self._serving)

    async def _keep_time(self) -> None:
        """Ping the agent, end idle flows, and close the dedicated streams when there are no flows."""
        next_ping = 0.0
        while True:
            now = self._now()
            self._dedicated.check()
            if now >= next_ping:
                next_ping = now + self._ping_interval
                for carrier in self.outlet.carriers.values():
                    if carrier.greeted:
                        carrier.ping(now)
            self._apply(self.outlet.tick(now))
            self.streams.flush()
            await asyncio.sleep(STREAM_CHECK_INTERVAL if self._dedicated.are_wanted else self._ping_interval)

    def _apply(self, events: Iterable[EndpointEvent]) -> None:
        for event in events:
            match event:
                case DeliverOnFlow(flow, datagram) if self.outlet.flows.get(flow.number) is flow:
                    # A flow that an earlier datagram of this batch has ended has no socket any more, and gets none.
                    self._dedicated.want()
                    self._sockets.send(flow, datagram)
                case FlowEnded(flow):
                    self._sockets.close(flow)
                case Message(frame.SERVING, body):
                    self._serving = body
                    self._news.set()
                case Message(frame.REPORT, body):
                    self.reported = _counters(body)

    def _answered(self, flow: Flow, datagram: bytes) -> None:
        """mosh-server sent a datagram."""
        self.outlet.answer(flow, datagram, self._now())
        self.streams.flush()

    def _refused(self, flow: Flow) -> None:
        """Nothing listens on the flow's port on this host: there is no mosh-server, or no longer."""
        self.outlet.counts["flows_refused_by_target"] += 1
        self._apply([self.outlet.close(flow, self._now())])
        self.streams.flush()


def _join_path(serving: Mapping[str, Any]) -> str:
    """The path at which further streams join, from the agent's SERVING.

    Raises:
        AgentError: the agent could not open the ingress, or names no path.
    """
    if "error" in serving:
        error = serving["error"]
        why = one_line(error, LONGEST_QUOTE) if isinstance(error, str) else "it does not say why"
        raise AgentError(f"the relay's ingress: {why}")
    if not isinstance(serving.get("join"), str):
        raise AgentError("the agent does not say where further streams join")
    return str(serving["join"])


def _counters(body: Mapping[str, Any]) -> dict[str, int]:
    """The counters in a REPORT. They are shown to the user, so anything else that the relay says is left out."""
    named = {
        name: count
        for name, count in body.items()
        if name.isidentifier() and len(name) <= LONGEST_COUNTER and type(count) is int
    }
    return {name: named[name] for name in sorted(named)[:MAX_COUNTERS] if 0 <= named[name] < 1 << 63}
