"""Run a program on the relay, over an SSH connection, with its standard streams as callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncssh
from asyncssh.packet import PacketDecodeError

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.shipped.pack import command

MOST_STDERR = 4096
"""Bytes of standard error that are kept: its last line says why the program ended."""

FULL_CHANNEL = 64 * 1024
"""Bytes that wait in the channel for a relay that does not read; with more, the channel counts as full."""


class RemoteProgram(asyncssh.SSHClientSession[bytes]):
    """One program, and the session channel that it runs in."""

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """
        Args:
            received: is given what the program writes to its standard output.
            lost: is called when the channel is gone, and at `close`.
        """
        self._received = received
        self._lost = lost
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._stderr = b""
        self.exit_status: int | None = None
        self.ended = asyncio.Event()
        """The channel is gone, or `close` was called."""

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._stderr = (self._stderr + data)[-MOST_STDERR:]
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
        """Whether more than FULL_CHANNEL bytes wait to be sent."""
        return self._channel is not None and self._channel.get_write_buffer_size() > FULL_CHANNEL

    @property
    def last_words(self) -> str:
        """The last line of standard error, fit to be shown; empty for none."""
        lines = self._stderr.decode("utf-8", "replace").strip().splitlines()
        return one_line(lines[-1], LONGEST_QUOTE) if lines else ""

    def write(self, data: bytes) -> None:
        """Queue bytes for standard input; they are dropped once the channel is closing."""
        if self._channel and not self._channel.is_closing():
            self._channel.write(data)

    def close(self) -> None:
        """Hear no more from the program, and end its input: then it leaves, and the relay closes the channel.

        If we closed the channel ourselves, that could cost the connection. When the program lives on (a shell that
        hangs in its start-up files), sshd asks for signs of life on the channel that we have closed, where no client
        may answer. After ClientAliveCountMax questions sshd ends the whole connection (measured with OpenSSH 9.2).
        """
        self._received = lambda _: None
        self.connection_lost(None)  # for us it has ended, although a program that does not leave holds its channel
        if self._channel and not self._channel.is_closing():
            self._channel.write_eof()
            self._channel.resume_reading()  # if the start was cancelled, nothing is read yet, not even the end


async def start(connection: asyncssh.SSHClientConnection, program: bytes, remote: RemoteProgram) -> None:
    """Run a program made by `tunneld.shipped.pack` on the relay.

    Args:
        remote: becomes the program's session; not used before.

    Raises:
        asyncssh.ChannelOpenError: the relay runs no commands for us, its answer cannot be read, or the connection
            is lost.
    """
    try:
        await connection.create_session(lambda: remote, command(program), encoding=None)
    except PacketDecodeError as error:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, f"its answer cannot be read: {error}") from error
    except OSError as error:  # it has ended the connection; asyncssh raises it wherever an answer is waited for
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "the connection is lost") from error
    remote.write(program)
