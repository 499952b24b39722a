"""A program that an SSH client has asked our own server to run: through /bin/sh, on pipes or on a pseudo terminal.

asyncssh does the channel with its back pressure, and moves a terminal's bytes (`SSHServerProcess.redirect`). We give
the program a controlling terminal, report its status, and end its whole process group when the channel is gone.

Programs on pipes are not redirected, because asyncssh 2.24 does that badly. To a pipe, the end of file overtakes what
a slow program has not read yet: `test_a_program_has_raw_pipes_and_its_own_exit_status` loses bytes. To a stream, a
program that does not read its input ends the whole connection: `test_a_program_may_leave_its_input_unread`. From a
pipe, an end of file after the channel's end is an exception in the event loop: `test_an_interrupt_leaves_nothing`
reads it.

Tested in tests/demo/test_ssh_server.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Mapping
from typing import Final

import asyncssh

BIN_SH: Final = "/bin/sh"

OPEN_TERMINAL: Final = 'exec 0<>"$SSH_TTY" 1>&0 2>&0; exec "$0" "$@"'
"""A session's leader without a terminal gets the first one that it opens (setsid(2)), so the shell opens its own.

The kernel hangs that terminal up when the leader ends. So its output ends with the leader too, as with sshd, even if a
program in the background (mosh-server, for example) still has the terminal open.
"""

PIECE_OF_PIPE: Final = 65536  # bytes: what a Linux pipe holds

CHANNEL_GONE: Final = (OSError, asyncssh.Error)  # what asyncssh raises for whoever reads or waits then

NOT_STARTED: Final = 126  # the exit status of a shell that cannot start a command


class ServerProgram:
    """The program of one session channel; `gone` is set once the program has ended, or could not start."""

    def __init__(
        self, session: asyncssh.SSHServerProcess[bytes], *, environment: Mapping[str, str], folder: str
    ) -> None:
        self._session = session
        self._environment = {**environment, **session.env}
        self._folder = folder
        self.gone = asyncio.Event()

    async def run(self) -> None:
        """Run it to its end, or until the channel closes: then its whole process group is killed."""
        try:
            program = await (self._on_pipes() if self._session.term_type is None else self._on_terminal())
        except OSError:
            self._session.exit(NOT_STARTED)
        else:
            await self._attend(program)
        finally:
            self.gone.set()

    async def _on_pipes(self) -> Process:
        pipe = asyncio.subprocess.PIPE
        return await self._spawn(self._command(), pipe, pipe, pipe)

    async def _on_terminal(self) -> Process:
        ours, theirs = os.openpty()
        self._environment["TERM"] = self._session.term_type or "dumb"
        self._environment["SSH_TTY"] = os.ttyname(theirs)
        # asyncssh sets the terminal's size, now and at each change. A client's end of file is no key on a terminal.
        await self._session.redirect(stdin=ours, stdout=ours, send_eof=False, recv_eof=False)
        try:
            return await self._spawn([BIN_SH, "-c", OPEN_TERMINAL, *self._command()], theirs, theirs, theirs)
        finally:
            os.close(theirs)

    def _command(self) -> list[str]:
        command = self._session.command
        return [BIN_SH] if command is None else [BIN_SH, "-c", command]

    async def _spawn(self, command: list[str], stdin: int, stdout: int, stderr: int) -> Process:
        """Start it in a process group of its own."""
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=self._environment,
            cwd=self._folder,
            start_new_session=True,
        )

    async def _attend(self, program: Process) -> None:
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(self._feed(program))
            ending = tasks.create_task(self._report(program))
            leaving = tasks.create_task(self._session.channel.wait_closed())
            await asyncio.wait([ending, leaving], return_when=asyncio.FIRST_COMPLETED)
            _signal_group(program, signal.SIGHUP)
            _signal_group(program, signal.SIGKILL)
            await program.wait()
            for task in (feeding, ending, leaving):
                task.cancel()

    async def _feed(self, program: Process) -> None:
        """Pass the client's input on. What comes after the program has closed its input is thrown away."""
        if (stdin := program.stdin) is None:
            return
        try:
            while data := await self._read(program):
                with contextlib.suppress(ConnectionError):
                    if not stdin.is_closing():
                        stdin.write(data)
                        await stdin.drain()
        finally:
            stdin.close()

    async def _read(self, program: Process) -> bytes:
        """The next piece of input; empty at its end. Signals of the client come in between, as exceptions."""
        while True:
            try:
                return await self._session.stdin.read(PIECE_OF_PIPE)
            except asyncssh.SignalReceived as received:
                if number := getattr(signal, f"SIG{received.signal}", None):
                    _signal_group(program, number)
            except asyncssh.BreakReceived:
                pass  # there is no serial line
            except CHANNEL_GONE:
                return b""

    async def _report(self, program: Process) -> None:
        """Tell how the program ended, once it has and everything that it wrote is on its way."""
        async with asyncio.TaskGroup() as outputs:
            outputs.create_task(_pass_on(program.stdout, self._session.stdout))
            outputs.create_task(_pass_on(program.stderr, self._session.stderr))
        status = await program.wait()
        if status < 0:
            self._session.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            self._session.exit(status)


async def _pass_on(output: asyncio.StreamReader | None, to: asyncssh.SSHWriter[bytes]) -> None:
    """Until nobody has the other end of the pipe any more, or of the terminal, which asyncssh reads itself."""
    with contextlib.suppress(*CHANNEL_GONE):
        while output is not None and (data := await output.read(PIECE_OF_PIPE)):
            to.write(data)
            await to.drain()
        await to.drain()  # a redirection holds this one until it has ended


def _signal_group(program: Process, number: int) -> None:
    """Signal the program and all that it has started, unless it has ended: its number may be another's by then."""
    if program.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, number)
