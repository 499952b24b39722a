"""A canary's visit over SSH. The relay connects to where a forward listens, and we watch both ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import asyncssh

from tunneld.core.supervise.canary import Finding, Step, Verdict, Visit, judge, step_timeout
from tunneld.profile import ForwardAddress, TcpAddress, UnixAddress
from tunneld.shipped.start_mosh_server import LOOPBACK_HOSTS
from tunneld.ssh.connect.alive import wait_for_answer
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.remote.canary_caller import CallerChannel, CallerProgram

ALL_FORBIDDEN = (
    "the relay lets us try nothing from its side: that takes AllowTcpForwarding yes, and a permitopen for this port "
    "where there is one, or else Python 3.9 and the right to run it"
)


async def look(connection: asyncssh.SSHClientConnection, opened: OpenForward) -> Finding:
    """Try a remote forward once. Usually that takes two round trips, and half a minute at worst.

    Nothing is raised but a cancellation: a connection that ends meanwhile leaves the verdict UNKNOWN.
    """
    own, *others = addresses_on_relay(opened.listening)
    finding = await _look_at(connection, opened, own)
    for address in others if finding.verdict is Verdict.BROKEN else []:
        other = await _look_at(connection, opened, address)
        if other.verdict in (Verdict.PASSES, Verdict.TARGET):
            only = f"the relay listens at {address} only: see GatewayPorts in its sshd_config"
            return replace(other, text=f"{other.text}; {only}" if other.text else only)
    return finding


def addresses_on_relay(listening: ForwardAddress) -> list[ForwardAddress]:
    """Where the relay itself reaches a listener, in the order in which to try.

    For a wildcard that is loopback. For a public address loopback comes second: without GatewayPorts sshd listens there
    instead, and does not say so.
    """
    if isinstance(listening, UnixAddress):
        return [listening]
    try:
        host = ip_address(listening.host)
    except ValueError:
        return [listening]  # a name: the relay knows what it means
    loopback = TcpAddress(LOOPBACK_HOSTS[host.version], listening.port)
    if host.is_unspecified:
        return [loopback]
    return [listening] if host.is_loopback else [listening, loopback]


async def _look_at(connection: asyncssh.SSHClientConnection, opened: OpenForward, address: ForwardAddress) -> Finding:
    """Visit in the first of the two ways that the relay allows.

    A refused channel is a line in the relay's log, so we remember the refusal, and ask for no channel again.
    """
    for caller in (CallerProgram,) if opened.takes_program else (CallerChannel, CallerProgram):
        visit = WatchedVisit(address)
        finding = await _visit(connection, opened, visit, caller(visit))
        if Step.FORBIDDEN not in visit.steps or Step.ARRIVED in visit.steps or connection.is_closed():
            return finding
        opened.takes_program = True
    text = f"{ALL_FORBIDDEN} ({visit.why})" if visit.why else ALL_FORBIDDEN
    return Finding(Verdict.UNKNOWN, text, is_final=True)


class WatchedVisit(Visit):
    """A visit whose next step can be waited for. Times are seconds of the event loop's clock."""

    def __init__(self, address: ForwardAddress) -> None:
        self._clock = asyncio.get_running_loop().time
        self.address = address
        self.stepped = asyncio.Event()
        self.began = self.last_step = self._clock()
        super().__init__(address.host if isinstance(address, TcpAddress) else None, self._note)

    def _note(self) -> None:
        self.last_step = self._clock()
        self.stepped.set()


async def _visit(
    connection: asyncssh.SSHClientConnection,
    opened: OpenForward,
    visit: WatchedVisit,
    caller: CallerChannel | CallerProgram,
) -> Finding:
    with opened.visited_by(visit):
        # As a task of the connection's, since asyncssh loses a channel whose opening is cancelled.
        connection.create_task(caller.call(connection, visit.address))
        try:
            waited = await _is_stuck(connection, visit)
            finding = judge(visit.steps, visit.why, waited=waited, speaks_first=opened.speaks_first)
        except SessionError as error:
            return Finding(Verdict.UNKNOWN, str(error))
        finally:
            caller.leave()
    opened.speaks_first = opened.speaks_first or Step.SPOKE in visit.steps
    if finding is None or connection.is_closed():
        return Finding(Verdict.UNKNOWN, "the connection ended meanwhile")
    return replace(finding, rtt=visit.last_step - visit.began) if finding.verdict is Verdict.PASSES else finding


async def _is_stuck(connection: asyncssh.SSHClientConnection, visit: WatchedVisit) -> bool:
    """Wait until the visit shows something (False), or has waited for its next step as long as it may (True).

    Raises:
        SessionError: the relay does not answer anything else either.
    """
    while judge(visit.steps, waited=False) is None:
        steps = set(visit.steps)
        visit.stepped.clear()
        try:
            async with asyncio.timeout(step_timeout(steps)):
                await visit.stepped.wait()
        except TimeoutError:
            if Step.ARRIVED not in steps:
                await wait_for_answer(connection)  # the answer comes behind all that the relay has sent before
            if visit.steps == steps:
                return True
    return False
