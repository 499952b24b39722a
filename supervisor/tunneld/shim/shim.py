"""The shim of one tunnel: keeps the agent on the relay running, over the session that the tunnel has at the time."""

from __future__ import annotations

import asyncio
import socket

import asyncssh
from structlog.typing import FilteringBoundLogger

from tunneld.core.supervise.backoff import Limits
from tunneld.profile import Keepalive, Mosh
from tunneld.shim.agent_streams import AgentError
from tunneld.shim.dedicated_streams import Dial
from tunneld.shim.link import AgentLink
from tunneld.status.snapshot import MoshState, MoshStatus

FIRST_AGENT_PAUSE = 2.0
MAX_AGENT_PAUSE = 300.0
"""Seconds before the agent is started again: the pause doubles with each failure. A port may become free soon, but
Python is seldom installed in the meantime."""

STEADY_AFTER = 60.0
"""Seconds that an agent must have served for the pauses to begin anew: one that keeps ending is started less often."""

NO_SESSION = "waiting for the tunnel"


class Shim:
    """Serves mosh over one session after the other; `status` tells how that goes."""

    def __init__(
        self, mosh: Mosh, *, dial: Dial, keepalive: Keepalive, limits: Limits, log: FilteringBoundLogger
    ) -> None:
        """`dial` opens one more SSH connection to the same relay; `limits` are the profile's [backoff]."""
        self._mosh = mosh
        self._dial = dial
        self._keepalive = keepalive
        self.limits = limits  # may be changed; counts from the next start of the agent
        self._log = log
        self._state: MoshState = "starting"
        self._reason = NO_SESSION
        self._logged = ""
        self._ready_since = 0.0
        self._link: AgentLink | None = None

    async def run(self, connection: asyncssh.SSHClientConnection) -> None:
        """Serve mosh over this session until cancelled or until the connection has ended.

        A fault of the agent raises nothing: it is logged once and shown by `status`, and the agent is started again.
        """
        try:
            await self._run(connection)
        finally:
            self._state, self._reason = "starting", NO_SESSION

    def status(self) -> MoshStatus:
        """Whether mosh is available, and why not; with the counters of both ends and the streams while it is."""
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
            carriers=link.streams.status(),
        )

    async def _run(self, connection: asyncssh.SSHClientConnection) -> None:
        pause = FIRST_AGENT_PAUSE
        self._reason = ""
        while not connection.is_closed():
            try:
                await self._serve(connection)
            except (AgentError, asyncssh.Error) as error:
                if connection.is_closed():
                    break
                pause = FIRST_AGENT_PAUSE if self._was_steady() else pause
                self._unavailable(str(error), pause)
            finally:
                self._link = None
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_AGENT_PAUSE)

    async def _serve(self, connection: asyncssh.SSHClientConnection) -> None:
        self._link = AgentLink(
            self._mosh,
            await self._resolve(),
            keepalive=self._keepalive,
            limits=self.limits,
            dial=self._dial,
            log=self._log,
        )
        await self._link.run(connection, ready=self._ready)

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
        # At level info only once in a row: a tunnel that flaps must not fill a journal.
        say = self._log.debug if self._logged == "ready" else self._log.info
        say("mosh_ready", ports=str(self._mosh.ports), bind=self._mosh.bind)
        self._state, self._reason, self._logged = "ready", "", "ready"
        self._ready_since = asyncio.get_running_loop().time()

    def _was_steady(self) -> bool:
        return self._state == "ready" and asyncio.get_running_loop().time() - self._ready_since > STEADY_AFTER

    def _unavailable(self, reason: str, pause: float) -> None:
        if reason != self._logged:
            self._log.warning("mosh_unavailable", reason=reason, retry_in=pause)
        self._state, self._reason, self._logged = "unavailable", reason, reason
