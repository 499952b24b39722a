"""Forwards on a connection: a listener on one side, and a pipe to the other side for each connection that arrives.

What is removed is gone: closing a forward frees its port at once and closes the connections that run through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import Protocol

import asyncssh
from asyncssh.packet import PacketDecodeError
from structlog.typing import FilteringBoundLogger

from tunneld.core.supervise.canary import Finding, Step, Visit
from tunneld.profile import Address, Direction, Forward, TcpAddress, UnixAddress
from tunneld.ssh.connect.client import client_of, why_ended
from tunneld.ssh.connect.failure import classify, safe
from tunneld.ssh.forward.listen import listen_here
from tunneld.ssh.forward.pipe import End
from tunneld.ssh.forward.refusal import refused_there

# Connections through one forward at the same time. Each takes a file descriptor here, and a process usually may have
# 1,024 of them: half for one forward leaves room for the others and for the tunnel itself.
MOST_CONNECTIONS = 512
# Seconds for a target to answer: without it a target behind a silent firewall holds its peer for two minutes.
TARGET_TIMEOUT = 10.0


class _Listener(Protocol):
    """What asyncssh's listeners and ours have in common."""

    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


class _Here(End):
    """The end of a pipe that is on this host; notes that something was said on it."""

    def __init__(self, opened: OpenForward) -> None:
        super().__init__(ended=lambda: opened.left(self))
        self._opened = opened

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        self._opened.heard = True
        super().data_received(data, datatype)


class OpenForward:
    """A forward that listens. Its counters only rise, but for `connections`; a canary's visits are not among them."""

    def __init__(self, forward: Forward, log: FilteringBoundLogger) -> None:
        self.forward = forward
        self.listening: Address = forward.listen
        self.total = 0  # connections that arrived
        self.failed = 0  # of those: their target did not answer
        self.refused = 0  # of those: there were too many at once
        self.target_error: str | None = None
        self.heard = False  # something from a target since a canary has asked last
        self.speaks_first = False  # the target has been heard to, by a canary
        self.takes_program = False  # to visit it, since the relay opens no channel to it for us
        self.finding: Finding | None = None  # the canary's last
        self._log = log.bind(listen=str(forward.listen))
        self._running: set[End] = set()
        self._listener: _Listener | None = None
        self._closed = False
        self._crowded = False
        self._visit: Visit | None = None  # that is under way
        self._visitor: End | None = None

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._running) - (self._visitor in self._running)

    def listens(self, listener: _Listener, listening: Address) -> None:
        self._listener, self.listening = listener, listening

    async def close(self) -> None:
        """Stop listening, close what runs. Returns when the port is free."""
        self._closed = True
        for end in tuple(self._running):
            end.abort()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
            await listener.wait_closed()

    @contextlib.contextmanager
    def visited_by(self, visit: Visit) -> Iterator[None]:
        """The next connection from the visit's origin is the canary's, and is closed at the end of this.

        If another one came from there, that may have been it, and the first one somebody's: the relay closes its own.
        """
        self._visit = visit
        try:
            yield
        finally:
            visitor, self._visit, self._visitor = self._visitor, None, None
            if visitor is not None and not visit.is_mixed_up:
                visitor.close()

    def visit_of(self, origin: str | None) -> Visit | None:
        """The visit whose connection has just arrived from `origin`, if it may be one."""
        visit = self._visit
        if visit is None or not _same_place(origin, visit.origin):
            return None
        if Step.ARRIVED in visit.steps:
            visit.is_mixed_up = True
            return None
        visit.saw(Step.ARRIVED)
        return visit

    def admit(self, visit: Visit | None = None) -> End | None:
        """An end for a connection that has arrived; None where it must be turned away."""
        self.total += visit is None
        if self._closed:
            return None
        if len(self._running) >= MOST_CONNECTIONS:
            self._turn_away(visit)
            return None
        if visit is None:
            end: End = _Here(self)
        else:
            end = self._visitor = End(ended=lambda: self.left(end))
        self._running.add(end)
        return end

    def left(self, end: End) -> None:
        self._running.discard(end)

    def target_failed(self, reason: str, visit: Visit | None = None) -> None:
        """Count it, unless it is a canary's; log the first failure, or a new reason, of a row of them."""
        if visit is None:
            self.failed += 1
        else:
            visit.saw(Step.FAILED, reason)
        if self.target_error != reason:
            self._log.warning("target_failed", to=str(self.forward.to or ""), reason=reason)
        self.target_error = reason

    def target_answered(self, visit: Visit | None = None) -> None:
        if visit is not None:
            visit.saw(Step.ACCEPTED)
        if self.target_error is not None:
            self._log.info("target_answers", to=str(self.forward.to or ""), failed=self.failed)
        self.target_error = None

    def _turn_away(self, visit: Visit | None) -> None:
        if visit is not None:
            visit.saw(Step.FORBIDDEN, f"{MOST_CONNECTIONS} connections run through it, and more are turned away")
            return
        self.refused += 1
        if not self._crowded:
            self._log.warning("connections_refused", limit=MOST_CONNECTIONS)
        self._crowded = True


async def open_forward(
    connection: asyncssh.SSHClientConnection, forward: Forward, log: FilteringBoundLogger
) -> OpenForward:
    """Listen, on the relay or here, and forward what arrives until closed.

    A peer that connects in the very moment in which the relay starts to listen may be turned away: asyncssh learns of
    its own listener one turn of the event loop after the relay's answer.

    Raises:
        SessionError: FORWARD_BUSY, FORWARD_FORBIDDEN, or what ended the connection.
    """
    opened = OpenForward(forward, log)
    if forward.direction is Direction.REMOTE:
        await _listen_there(connection, opened)
    else:
        opened.listens(*await listen_here(connection, opened))
    return opened


async def _listen_there(connection: asyncssh.SSHClientConnection, opened: OpenForward) -> None:
    client = client_of(connection)
    listen = opened.forward.listen
    async with client.asking:
        client.debug.clear()
        try:
            listener = await _request(connection, opened, listen)
        except (asyncssh.ChannelListenError, asyncssh.Error, OSError) as error:
            if connection.is_closed():
                raise why_ended(connection) from error
            raise refused_there(str(listen), client.debug, client.hop) from error
        except PacketDecodeError as error:
            raise classify(error, client.hop) from error
    if isinstance(listen, TcpAddress):
        listen = TcpAddress(listen.host, listener.get_port())
    opened.listens(_Remote(connection, listener), listen)


async def _request(
    connection: asyncssh.SSHClientConnection, opened: OpenForward, listen: Address
) -> asyncssh.SSHListener:
    async def arrived(host: str | None = None, port: int = 0) -> End:
        return await _to_target(opened, opened.visit_of(host))

    if isinstance(listen, UnixAddress):
        return await connection.create_unix_server(arrived, listen.path, encoding=None)
    return await connection.create_server(arrived, listen.host, listen.port, encoding=None)


async def _to_target(opened: OpenForward, visit: Visit | None = None) -> End:
    """The channel's end of a pipe to the target. asyncssh confirms the channel only when this returns.

    Raises:
        asyncssh.ChannelOpenError: the relay then closes the peer's connection.
    """
    here = opened.admit(visit)
    if here is None:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many connections")
    try:
        async with asyncio.timeout(TARGET_TIMEOUT):
            await _connect(opened.forward.to, here)
        if here.is_closed:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the forward was closed meanwhile")
    except (OSError, ValueError) as error:  # ValueError: a name that no resolver takes
        here.close()
        opened.target_failed(why_no_answer(error), visit)
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the target does not answer") from None
    except BaseException:
        here.abort()
        raise
    opened.target_answered(visit)
    there = End()
    there.join(here)
    return there


def _same_place(origin: str | None, expected: str | None) -> bool:
    """Whether a connection from `origin` may come from `expected`. A name could be any address; so could no origin."""
    if origin is None or expected is None:
        return True
    try:
        one, other = map(ip_address, (origin, expected))
    except ValueError:
        return True
    if isinstance(one, IPv6Address) and one.ipv4_mapped is not None:
        one = one.ipv4_mapped
    return one == other or (one.is_loopback and other.is_loopback)


async def _connect(target: Address | None, end: End) -> None:
    loop = asyncio.get_running_loop()
    if isinstance(target, UnixAddress):
        await loop.create_unix_connection(lambda: end, target.path)
    else:
        assert target is not None
        await loop.create_connection(lambda: end, target.host, target.port)


def why_no_answer(error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number and number > 0:
        return os.strerror(number)  # asyncio's own text repeats the address instead
    if isinstance(error, TimeoutError):
        return f"no answer within {TARGET_TIMEOUT:g} s"
    return safe(getattr(error, "strerror", None) or str(error)) or type(error).__name__


class _Remote:
    """A listener on the relay. Closing one on a connection that is gone has nothing to wait for."""

    def __init__(self, connection: asyncssh.SSHClientConnection, listener: asyncssh.SSHListener) -> None:
        self._connection = connection
        self._listener = listener

    def close(self) -> None:
        if not self._connection.is_closed():
            self._listener.close()

    async def wait_closed(self) -> None:
        """Returns when the relay has said that it no longer listens, or when the connection ends."""
        if not self._connection.is_closed():
            with contextlib.suppress(asyncssh.Error):
                await self._listener.wait_closed()
