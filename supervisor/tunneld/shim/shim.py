"""The shim of one tunnel: keeps the agent on the relay running, over whichever session the tunnel has."""

from __future__ import annotations

import asyncio
import socket

import asyncssh
from structlog.typing import FilteringBoundLogger

from tunneld.profile import Keepalive, Mosh
from tunneld.shim.link import AgentError, AgentLink, Dial
from tunneld.status.snapshot import MoshState, MoshStatus

FIRST_PAUSE = 2.0
LONGEST_PAUSE = 300.0
"""Seconds between two starts of the agent: a port may become free soon, Python is seldom installed meanwhile."""

STEADY = 60.0
"""Seconds that an agent must have served for its end to be an accident: one that keeps ending is started less often."""

WAITING = "waiting for the tunnel"

SHORTEST_SILENCE = 20.0
"""Seconds: the agent must outlive a daemon whose machine is busy for a moment."""


class Shim:
    """`dial` opens one more SSH connection to the same relay."""

    def __init__(self, mosh: Mosh, *, dial: Dial, keepalive: Keepalive, log: FilteringBoundLogger) -> None:
        self._mosh = mosh
        self._dial = dial
        self._keepalive = keepalive
        self._log = log
        self._state: MoshState = "starting"
        self._reason = WAITING
        self._logged = ""
        self._ready_since = 0.0
        self._link: AgentLink | None = None

    async def run(self, connection: asyncssh.SSHClientConnection) -> None:
        """Serve mosh over this session until cancelled or until the connection has ended.

        Trouble with the agent never raises: it is logged once, shown by `status`, and the agent is started again.
        """
        try:
            await self._run(connection)
        finally:
            self._state, self._reason = "starting", WAITING

    def status(self) -> MoshStatus:
        link = self._link
        if link is None:
            return MoshStatus(self._state, self._reason, str(self._mosh.ports))
        here = {f"host_{name}": count for name, count in link.outlet.counters().items()}
        there = {f"relay_{name}": count for name, count in link.reported.items()}
        return MoshStatus(
            state=self._state,
            reason=self._reason,
            ports=str(self._mosh.ports),
            flows=len(link.outlet.flows),
            counters=dict(sorted({**here, **there}.items())),
            carriers=tuple(link.carriers()),
        )

    async def _run(self, connection: asyncssh.SSHClientConnection) -> None:
        pause = FIRST_PAUSE
        self._reason = ""
        while not connection.is_closed():
            try:
                await self._serve(connection)
            except (AgentError, asyncssh.Error) as error:
                if connection.is_closed():
                    break
                pause = FIRST_PAUSE if self._was_steady() else pause
                self._unavailable(str(error), pause)
            finally:
                self._link = None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _serve(self, connection: asyncssh.SSHClientConnection) -> None:
        silence = max(SHORTEST_SILENCE, self._keepalive.interval * (self._keepalive.count + 1))
        self._link = AgentLink(
            bind=self._mosh.bind,
            ports=range(self._mosh.ports.first, self._mosh.ports.last + 1),
            host=await self._resolve(),
            interval=min(self._keepalive.interval, silence / 4),
            silence=silence,
            log=self._log,
        )
        await self._link.run(connection, dial=self._dial, ready=self._ready)

    async def _resolve(self) -> str:
        """mosh-server's numeric address.

        Raises:
            AgentError: the name has none.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._mosh.to, None, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise AgentError(f"no address for {self._mosh.to}, where mosh-server is to listen: {error}") from None
        return str(found[0][4][0])

    def _ready(self) -> None:
        # News only once: a tunnel that flaps must not fill a journal.
        say = self._log.debug if self._logged == "ready" else self._log.info
        say("mosh_ready", ports=str(self._mosh.ports), bind=self._mosh.bind)
        self._state, self._reason, self._logged = "ready", "", "ready"
        self._ready_since = asyncio.get_running_loop().time()

    def _was_steady(self) -> bool:
        return self._state == "ready" and asyncio.get_running_loop().time() - self._ready_since > STEADY

    def _unavailable(self, reason: str, pause: float) -> None:
        if reason != self._logged:
            self._log.warning("mosh_unavailable", reason=reason, retry_in=pause)
        self._state, self._reason, self._logged = "unavailable", reason, reason
