"""The relay's side of a canary's visit: a connection that the relay makes for us, in one of two ways.

sshd itself connects a channel; that needs `AllowTcpForwarding yes`, and a `permitopen` that covers the port, if there
are any. Or a program of ours connects; that needs Python on the relay, and the right to run it.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import asyncssh
from asyncssh.packet import PacketDecodeError

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.core.supervise.canary import Step, Visit
from tunneld.profile import ForwardAddress, UnixAddress
from tunneld.ssh.remote.remote import RemoteProgram, start

# Bytes that are kept of an unfinished line: the relay's shell may write anything beside our program's short lines.
LONGEST_PROGRAM_LINE = 256

# How a refused connection is told: sshd says "Connection refused", asyncssh tells the number of ENOENT or ECONNREFUSED.
# sshd gives no reason for Unix sockets.
_NOBODY_LISTENS = re.compile(r"refused|\[Errno (2|111)\]", re.IGNORECASE)

_MARK = b"tunneld-canary "
_STEPS = {step.name.encode(): step for step in (Step.TRIED, Step.REFUSED, Step.OPENED, Step.SPOKE, Step.ENDED)}
_PROGRAM = """
import select, socket, sys
def say(step):
    print("tunneld-canary " + step, flush=True)
say("TRIED")
there = socket.socket({family})
there.settimeout({seconds})
try:
    there.connect({address!r})
except (ConnectionRefusedError, FileNotFoundError):
    say("REFUSED")
    sys.exit()
except OSError as error:
    sys.exit(str(error))
say("OPENED")
ready = select.select([there, sys.stdin], [], [], {seconds})[0]
if there in ready:
    say("SPOKE" if there.recv(1) else "ENDED")
"""
# Seconds after which the program leaves by itself, if nobody closes its input: longer than any visit.
_PROGRAM_LIMIT = 60


class CallerChannel(asyncssh.SSHTCPSession[bytes]):
    """The relay's side of a visit as a channel. Used once."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._channel: Any = None
        self._left = False

    async def call(self, connection: asyncssh.SSHClientConnection, address: ForwardAddress) -> None:
        """Have the relay connect, and note what comes of it in the visit. Nothing is raised."""
        self._visit.saw(Step.TRIED)
        try:
            if isinstance(address, UnixAddress):
                await connection.create_unix_connection(self._session, address.path, encoding=None)
            else:
                await connection.create_connection(self._session, address.host, address.port, encoding=None)
        except asyncssh.ChannelOpenError as error:
            nobody = error.code == asyncssh.OPEN_CONNECT_FAILED and _NOBODY_LISTENS.search(error.reason)
            self._visit.saw(Step.REFUSED if nobody else Step.FORBIDDEN, one_line(error.reason, LONGEST_QUOTE))
        except PacketDecodeError as error:
            self._visit.saw(Step.FORBIDDEN, one_line(str(error), LONGEST_QUOTE))

    def leave(self) -> None:
        """Close the relay's side, now or as soon as it has opened."""
        self._left = True
        if self._channel is not None:
            self._channel.abort()

    def _session(self) -> Any:
        return self  # also for a Unix socket: asyncssh calls both kinds of session alike

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def session_started(self) -> None:
        self._visit.saw(Step.OPENED)
        if self._left:
            self._channel.abort()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._visit.saw(Step.SPOKE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._visit.saw(Step.ENDED)


class CallerProgram:
    """The relay's side of a visit as a program that the relay runs for us. Used once."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._remote = RemoteProgram(self._received, self._ended)
        self._line = b""  # as far as it has come
        self._left = False

    async def call(self, connection: asyncssh.SSHClientConnection, address: ForwardAddress) -> None:
        """Have the relay connect, and note what comes of it in the visit. Nothing is raised."""
        try:
            await start(connection, program(address), self._remote)
        except asyncssh.ChannelOpenError as error:
            self._visit.saw(Step.FORBIDDEN, one_line(error.reason, LONGEST_QUOTE))
        if self._left:
            self._remote.close()

    def leave(self) -> None:
        """Close the relay's side, now or as soon as it has opened."""
        self._left = True
        self._remote.close()

    def _received(self, data: bytes) -> None:
        *lines, unfinished = (self._line + data).split(b"\n")
        self._line = unfinished[-LONGEST_PROGRAM_LINE:]
        for line in lines:
            if line.startswith(_MARK) and (step := _STEPS.get(line.removeprefix(_MARK))):
                self._visit.saw(step)

    def _ended(self) -> None:
        if self._visit.steps & {Step.OPENED, Step.REFUSED}:
            self._visit.saw(Step.ENDED)
        else:
            self._visit.saw(Step.FORBIDDEN, self._remote.last_words)


def program(address: ForwardAddress) -> bytes:
    """A program for the relay that connects to `address` there, and tells how that goes until its input ends."""
    if isinstance(address, UnixAddress):
        return _packed("socket.AF_UNIX", address.path)
    family = "socket.AF_INET6" if ":" in address.host else "socket.AF_INET"
    return _packed(family, (address.host, address.port))


def _packed(family: str, address: object) -> bytes:
    return zlib.compress(_PROGRAM.format(family=family, address=address, seconds=_PROGRAM_LIMIT).encode())
