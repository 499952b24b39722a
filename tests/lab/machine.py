"""A place where programs run: this machine, or one of the lab's hosts.

When the machine is closed, each program that was started here is ended by its process id.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

GRACE = 3.0  # seconds between SIGTERM and SIGKILL


class Machine:
    """This machine. `lab.net.Host` is the same, inside a network namespace."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory  # for this machine's own files
        directory.mkdir(parents=True, exist_ok=True)
        self._started: list[subprocess.Popen[bytes]] = []

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs `argv` on this machine, and kills it when the test process dies."""
        return ["setpriv", "--pdeathsig", "KILL", *map(str, argv)]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Our environment without what would bring the tester's desktop or ssh-agent into the lab, and `extra`."""
        leaks = ("SSH_AUTH_SOCK", "SSH_CONNECTION", "SSH_TTY", "TMUX", "DISPLAY", "LC_ALL", "LANGUAGE")
        kept = {name: value for name, value in os.environ.items() if name not in leaks}
        return kept | {"LANG": "C.UTF-8", "TERM": "xterm"} | dict(extra or {})

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program. The process id is that of the program itself, since each wrapper execs the next."""
        process = subprocess.Popen(
            self.command(argv), stdin=stdin, stdout=stdout, stderr=stderr, env=self.environment(env)
        )
        self._started.append(process)
        return process

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        timeout: float = 30,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and capture its output.

        Raises:
            AssertionError: with `check`, the program failed; the text has its output.
        """
        done = subprocess.run(
            self.command(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=self.environment(env),
        )
        if check and done.returncode:
            raise AssertionError(f"{list(map(str, argv))} ended {done.returncode}: {done.stdout}{done.stderr}")
        return done

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that are created inside the block belong to this machine's network. Never await in it."""
        yield

    def listener(self, kind: socket.SocketKind, *, port: int = 0, address: str = "0.0.0.0") -> socket.socket:
        """A bound socket of this machine; a stream socket listens. Other programs find the port busy."""
        with self.entered():
            made = socket.socket(socket.AF_INET, kind)
        if kind is socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        if kind is socket.SOCK_STREAM:
            made.listen()
        return made

    def close(self) -> None:
        for process in reversed(self._started):
            end(process)
        self._started.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, after `GRACE` seconds SIGKILL, and wait for the program's end."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            # A pipe whose reader has ended cannot be flushed; its data is not needed.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
