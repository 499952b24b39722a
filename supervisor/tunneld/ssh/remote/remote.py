"""A program on the far side of an SSH connection, its standard streams as callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncssh
from asyncssh.packet import PacketDecodeError

from tunneld.shipped.pack import command

MAX_ERRORS = 4096
"""Bytes of standard error that are kept: the last lines say why the program ended."""

MAX_BUFFERED = 64 * 1024
"""Bytes that wait in the channel for a peer that does not read, before `is_full`."""


class RemoteProgram(asyncssh.SSHClientSession[bytes]):
    """Bytes from standard output go to `received`; `lost` is called and `ended` set once the channel is gone."""

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._errors = b""
        self.exit_status: int | None = None
        self.ended = asyncio.Event()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._errors = (self._errors + data)[-MAX_ERRORS:]
        else:
            self._received(data)

    def eof_received(self) -> bool:
        return False

    def exit_status_received(self, status: int) -> None:
        self.exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self._lost()

    @property
    def is_full(self) -> bool:
        return self._channel is not None and self._channel.get_write_buffer_size() > MAX_BUFFERED

    @property
    def last_words(self) -> str:
        """The last line on standard error, fit to be shown."""
        lines = self._errors.decode("utf-8", "replace").strip().splitlines()
        return "".join(c if c.isprintable() else "?" for c in lines[-1])[:200] if lines else ""

    def write(self, data: bytes) -> None:
        """Queue bytes for standard input; what comes after the end is dropped."""
        if self._channel and not self._channel.is_closing():
            self._channel.write(data)

    def close(self) -> None:
        """Hear no more from it, and end its input, at which it leaves and the far side closes the channel.

        Closing the channel ourselves could cost the connection: sshd keeps asking a closed channel whose program lives
        on for signs of life, no client may answer there, and after ClientAliveCountMax it ends the whole connection.
        """
        self._received = lambda _: None
        self.connection_lost(None)  # for us it has ended, though a program that does not leave may hold its channel
        if self._channel and not self._channel.is_closing():
            self._channel.write_eof()
            self._channel.resume_reading()  # which has not begun when the start was cancelled; the end comes that way


async def start(connection: asyncssh.SSHClientConnection, program: bytes, remote: RemoteProgram) -> None:
    """Run a program made by `tunneld.shipped.pack` on the far side.

    Raises:
        asyncssh.ChannelOpenError: the far side runs no commands for us, or answers what cannot be read.
    """
    try:
        await connection.create_session(lambda: remote, command(program), encoding=None)
    except PacketDecodeError as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, f"its answer cannot be read: {error}") from error
    except OSError as error:  # what ended the connection; asyncssh passes it on to whoever waits for an answer
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the connection is lost") from error
    remote.write(program)
