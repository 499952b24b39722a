"""A program that an SSH client has asked our own server to run: through /bin/sh, on raw pipes or on a real terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping
from functools import partial
from typing import Any

import asyncssh

from tunneld.demo.stdio import Input, Output, close_all

SHELL = "/bin/sh"
# A session's leader without a terminal gets the first one that it opens (setsid(2)): so the shell opens its own.
ON_TERMINAL = 'exec 0<>"$SSH_TTY" 1>&0 2>&0; exec "$0" "$@"'


class ServerProgram(asyncssh.SSHServerSession[bytes]):
    """One session channel. When the channel ends before the program, its whole process group is killed."""

    def __init__(
        self, environment: Mapping[str, str], *, folder: str, allowed: bool, running: set[ServerProgram]
    ) -> None:
        self._environment = dict(environment)
        self._folder = folder
        self._allowed = allowed
        self._running = running
        self._channel: Any = None
        self._size: tuple[int, int, int, int] | None = None  # columns, rows, and both in pixels; None without terminal
        self._process: subprocess.Popen[bytes] | None = None
        self._watched = -1
        self._input: Input | None = None
        self._outputs: list[Output] = []
        self._terminal = -1
        self.gone = asyncio.Event()

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        self._environment["TERM"] = term_type or "dumb"
        self._size = term_size
        return True

    def shell_requested(self) -> bool:
        return self._start([SHELL])

    def exec_requested(self, command: str) -> bool:
        return self._start([SHELL, "-c", command])

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if self._input is not None:
            self._input.write(data)

    def eof_received(self) -> bool:
        if self._input is not None and self._size is None:
            self._input.finish()
        return True

    def pause_writing(self) -> None:
        for output in self._outputs:
            output.pause()

    def resume_writing(self) -> None:
        for output in self._outputs:
            output.resume()

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        if self._terminal >= 0:
            _set_size(self._terminal, (width, height, pixwidth, pixheight))

    def signal_received(self, signal: str) -> None:
        number = getattr(globals()["signal"], f"SIG{signal}", None)
        if number is not None:
            self._kill(number)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: hang up, and make sure."""
        self._kill(signal.SIGHUP)
        self._kill(signal.SIGKILL)
        self._close()

    def _start(self, command: list[str]) -> bool:
        if not self._allowed:
            return False
        self._environment.update(self._channel.get_environment())
        try:
            self._process = self._on_pipes(command) if self._size is None else self._on_terminal(command)
        except OSError:
            self._close()
            return False
        self._running.add(self)
        self._watched = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(self._watched, self._exited)
        return True

    def _on_pipes(self, command: list[str]) -> subprocess.Popen[bytes]:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        ours_error, theirs_error = os.pipe()
        self._attach(ours_in, [(ours_out, None), (ours_error, asyncssh.EXTENDED_DATA_STDERR)])
        return self._spawn(command, theirs_in, theirs_out, theirs_error)

    def _on_terminal(self, command: list[str]) -> subprocess.Popen[bytes]:
        ours, theirs = os.openpty()
        self._environment["SSH_TTY"] = os.ttyname(theirs)
        assert self._size is not None
        _set_size(ours, self._size)
        self._terminal = ours
        self._attach(os.dup(ours), [(ours, None)])
        return self._spawn([SHELL, "-c", ON_TERMINAL, *command], theirs, theirs, theirs)

    def _attach(self, into: int, out: list[tuple[int, int | None]]) -> None:
        self._input = Input(into, pause=self._channel.pause_reading, resume=self._channel.resume_reading)
        self._outputs = [
            Output(descriptor, write=partial(self._send, kind), ended=self._report) for descriptor, kind in out
        ]

    def _spawn(self, command: list[str], *theirs: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command,
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
            )
        finally:
            close_all(*set(theirs))

    def _send(self, kind: int | None, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the channel is closing
            self._channel.write(data, kind)

    def _exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._watched)
        os.close(self._watched)
        assert self._process is not None
        self._process.wait()
        self._running.discard(self)
        self._terminal = -1
        self.gone.set()
        if self._size is not None:  # as with sshd, a terminal's session ends with its first program
            for output in self._outputs:
                output.drain()
                output.close()
        self._report()

    def _report(self) -> None:
        """Tell how the program ended, once it has and everything that it wrote is on its way."""
        if self._process is None or self._process.returncode is None or not all(each.closed for each in self._outputs):
            return
        status = self._process.returncode
        if status < 0:
            self._channel.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            self._channel.exit(status)

    def _kill(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:  # else the number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _close(self) -> None:
        self._terminal = -1
        if self._input is not None:
            self._input.close()
        for output in self._outputs:
            output.close()


def _set_size(terminal: int, size: tuple[int, int, int, int]) -> None:
    columns, rows, width, height = size
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, width, height))
