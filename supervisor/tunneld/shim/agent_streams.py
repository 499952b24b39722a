"""The streams to the agent on the relay: each is a program over SSH, and a carrier that reads and writes its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncssh

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import StreamCarrier
from tunneld.core.stream.endpoint import EndpointEvent, Outlet
from tunneld.core.stream.names import CONTROL_STREAM
from tunneld.errors import TunneldError
from tunneld.shipped import pack
from tunneld.ssh.remote import remote
from tunneld.status.snapshot import CarrierStatus

START_TIMEOUT = 15.0
"""Seconds until the far side must have started Python and greeted: as long as a login may take."""


class AgentError(TunneldError):
    """The agent could not be started, or it ended; the text says why mosh is not available."""


class AgentStreams:
    """The streams that are open, by name, and their carriers at the outlet."""

    def __init__(self, outlet: Outlet, apply: Callable[[list[EndpointEvent]], None]) -> None:
        """`apply` carries out what the outlet asks for when bytes came in."""
        self._outlet = outlet
        self._apply = apply
        self._now = asyncio.get_running_loop().time
        self._programs: dict[str, remote.RemoteProgram] = {}
        self._faults: dict[str, str] = {}

    async def open(
        self,
        connection: asyncssh.SSHClientConnection,
        name: str,
        program: bytes,
        *,
        lost: Callable[[], None] = lambda: None,
    ) -> remote.RemoteProgram:
        """Start a program on the relay and wait until it has greeted; `lost` is called when it has ended.

        Raises:
            AgentError: the relay does not run it, or it ended, or it did not greet within START_TIMEOUT.
        """
        carrier = StreamCarrier(name, self._now(), dedicated=name != CONTROL_STREAM)
        settled = asyncio.Event()

        def take(data: bytes) -> None:
            self._receive(name, data)
            if carrier.greeted:
                settled.set()

        def end() -> None:
            settled.set()
            lost()

        started = remote.RemoteProgram(take, end)
        self._outlet.attach(carrier)
        self._programs[name] = started
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await remote.start(connection, program, started)
                await settled.wait()
            if not carrier.greeted or started.ended.is_set():
                raise AgentError(self._why_not_started(started, carrier))
        except TimeoutError:
            self.drop(name)
            raise AgentError(f"the relay did not start our agent within {START_TIMEOUT:g} s{_said(carrier)}") from None
        except asyncssh.ChannelOpenError as error:
            self.drop(name)
            raise AgentError(
                f"the relay runs no commands for us ({one_line(error.reason, LONGEST_QUOTE) or 'refused'})"
            ) from None
        except BaseException:
            self.drop(name)
            raise
        return started

    def flush(self) -> None:
        """Write what the carriers have for their streams."""
        now = self._now()
        for name, program in list(self._programs.items()):
            carrier = self._outlet.carriers[name]
            if carrier.is_choked:
                self._faults[name] = "it asks for more than it reads"
                self.drop(name)
            # The far side speaks first: until then its Python may still be reading the agent's source text.
            elif carrier.greeted and not program.is_full and (data := carrier.outgoing(now)):
                program.write(data)

    def drop(self, name: str) -> None:
        """Close a stream; one that is not open does no harm."""
        self._outlet.detach(name)
        program = self._programs.pop(name, None)
        if program:
            program.close()

    def drop_all(self) -> None:
        """Close every stream."""
        for name in list(self._programs):
            self.drop(name)

    def status(self) -> tuple[CarrierStatus, ...]:
        """How each stream is doing."""
        now = self._now()
        return tuple(
            CarrierStatus(
                name=carrier.name,
                rtt=carrier.rtt,
                stalled=carrier.is_late(now),
                queued=carrier.queued,
                sent=carrier.sent,
                received=carrier.received,
            )
            for carrier in self._outlet.carriers.values()
        )

    def why_control_ended(self, control: remote.RemoteProgram) -> str:
        """Why the control stream ended after it had greeted, as a clause for the user."""
        if fault := self._faults.pop(CONTROL_STREAM, None):
            return f"the agent on the relay broke the protocol: {fault}"
        return f"the agent on the relay ended{f' (it said: {control.last_words})' if control.last_words else ''}"

    def _receive(self, name: str, data: bytes) -> None:
        if name not in self._outlet.carriers:
            return
        try:
            self._apply(self._outlet.receive(name, data, self._now()))
        except frame.ProtocolError as error:
            self._faults[name] = str(error)
            self._outlet.counts["streams_malformed"] += 1
            self.drop(name)
        self.flush()

    def _why_not_started(self, program: remote.RemoteProgram, carrier: StreamCarrier) -> str:
        if fault := self._faults.pop(carrier.name, None):
            return f"the agent on the relay broke the protocol: {fault}"
        if program.exit_status == pack.NO_PYTHON:
            return "the relay has no python3; install Python 3.9 or newer there"
        said = f" (it said: {program.last_words})" if program.last_words else _said(carrier)
        status = "" if program.exit_status is None else f" with exit status {program.exit_status}"
        return f"the relay did not start our agent: the command ended{status}{said}"


def _said(carrier: StreamCarrier) -> str:
    """What came on standard output in the agent's place, fit to be shown."""
    text = one_line(carrier.noise.decode("utf-8", "replace"), LONGEST_QUOTE)
    return f" (it said: {text})" if text else ""
