"""A canary's visit over SSH: the relay connects to where a forward listens, and we watch both ends of the way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import asyncssh

from tunneld.core.supervise.canary import Finding, Step, Verdict, Visit, judge, step_timeout
from tunneld.profile import ForwardAddress, TcpAddress, UnixAddress
from tunneld.ssh.connect.alive import hear_from
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.remote.canary_caller import CallerChannel, CallerProgram

LOOPBACK = {4: "127.0.0.1", 6: "::1"}

NO_WAY = (
    "the relay lets us try nothing from its side: that takes AllowTcpForwarding yes, and a permitopen for this port "
    "where there is one, or else Python 3.9 and the right to run it"
)


async def look(connection: asyncssh.SSHClientConnection, opened: OpenForward) -> Finding:
    """Try a remote forward once, which takes two round trips, and half a minute at worst."""
    own, *others = ways_in(opened.listening)
    finding = await _look_at(connection, opened, own)
    for address in others if finding.verdict is Verdict.BROKEN else []:
        other = await _look_at(connection, opened, address)
        if other.verdict in (Verdict.PASSES, Verdict.TARGET):
            only = f"the relay listens at {address} only: see GatewayPorts in its sshd_config"
            return replace(other, text=f"{other.text}; {only}" if other.text else only)
    return finding


def ways_in(listening: ForwardAddress) -> list[ForwardAddress]:
    """Where to connect on the relay: for a wildcard loopback, for a public address loopback in the second place."""
    if isinstance(listening, UnixAddress):
        return [listening]
    try:
        host = ip_address(listening.host)
    except ValueError:
        return [listening]  # a name, which the relay knows
    loopback = TcpAddress(LOOPBACK[host.version], listening.port)
    if host.is_unspecified:
        return [loopback]
    return [listening] if host.is_loopback else [listening, loopback]


async def _look_at(connection: asyncssh.SSHClientConnection, opened: OpenForward, address: ForwardAddress) -> Finding:
    """By the first way that the relay lets us go; each that it does not is a line in its log, once."""
    for way in (CallerProgram,) if opened.takes_program else (CallerChannel, CallerProgram):
        visit = WatchedVisit(address)
        finding = await _visit(connection, opened, visit, way(visit))
        if Step.FORBIDDEN not in visit.steps or Step.ARRIVED in visit.steps or connection.is_closed():
            return finding
        opened.takes_program = True
    return Finding(Verdict.UNKNOWN, f"{NO_WAY} ({visit.why})" if visit.why else NO_WAY, is_final=True)


class WatchedVisit(Visit):
    """A visit that can be waited for."""

    def __init__(self, address: ForwardAddress) -> None:
        self._clock = asyncio.get_running_loop().time
        self.address = address
        self.news = asyncio.Event()
        self.began = self.moved = self._clock()
        super().__init__(address.host if isinstance(address, TcpAddress) else None, self._note)

    def _note(self) -> None:
        self.moved = self._clock()
        self.news.set()


async def _visit(
    connection: asyncssh.SSHClientConnection,
    opened: OpenForward,
    visit: WatchedVisit,
    caller: CallerChannel | CallerProgram,
) -> Finding:
    with opened.visited_by(visit):
        # A task of the connection's: asyncssh loses a channel whose opening is cancelled.
        connection.create_task(caller.call(connection, visit.address))
        try:
            waited = await _waited(connection, visit)
            finding = judge(visit.steps, visit.why, waited=waited, speaks_first=opened.speaks_first)
        except SessionError as error:
            return Finding(Verdict.UNKNOWN, str(error))
        finally:
            caller.leave()
    opened.speaks_first = opened.speaks_first or Step.SPOKE in visit.steps
    if finding is None or connection.is_closed():
        return Finding(Verdict.UNKNOWN, "the connection ended meanwhile")
    return replace(finding, rtt=visit.moved - visit.began) if finding.verdict is Verdict.PASSES else finding


async def _waited(connection: asyncssh.SSHClientConnection, visit: WatchedVisit) -> bool:
    """Until the visit shows something (False), or has waited for its next step as long as it may (True).

    Raises:
        SessionError: the relay answers nothing else either.
    """
    while judge(visit.steps, waited=False) is None:
        steps = set(visit.steps)
        visit.news.clear()
        try:
            async with asyncio.timeout(step_timeout(steps)):
                await visit.news.wait()
        except TimeoutError:
            if Step.ARRIVED not in steps:
                await hear_from(connection)  # whose answer comes behind all that the relay has sent before
            if visit.steps == steps:
                return True
    return False
