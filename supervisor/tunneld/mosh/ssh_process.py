"""One ssh process: the two ends of its stream, and what it says on its standard error."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Sequence

MAX_STDERR = 16 * 1024
"""Bytes of ssh's standard error that are kept for messages: the last ones."""

TERMINATE_TIMEOUT = 1.0
"""Seconds for ssh to end after SIGTERM, before it is killed."""


class SshProcess:
    """`name` is its stream's; `errors` is a file descriptor of its standard error, which does not block.

    `on_terminal`: ssh may ask the person on the terminal, and the person sees ssh's words as long as `is_shown`. Any
    other ssh has no terminal at all, so that it can neither ask nor write there: the terminal is mosh-client's.
    """

    def __init__(self, name: str, argv: Sequence[str], *, on_terminal: bool = False) -> None:
        """
        Raises:
            OSError: the program cannot be started.
        """
        self.name = name
        self.is_shown = on_terminal
        self._said: deque[bytes] = deque()
        self.errors, stderr = _stderr(on_terminal)
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=not on_terminal,
            )
        except OSError:
            os.close(self.errors)
            raise
        finally:
            os.close(stderr)
        os.set_blocking(self.errors, False)

    def ends(self) -> tuple[int, int]:
        """File descriptors that read from and write to the program on DEST; the caller has to close them."""
        assert self.process.stdin
        assert self.process.stdout
        ends = os.dup(self.process.stdout.fileno()), os.dup(self.process.stdin.fileno())
        self.process.stdout.close()
        self.process.stdin.close()
        return ends

    def read_errors(self) -> bool:
        """Take some of what ssh says; False once nothing more can come."""
        try:
            words = os.read(self.errors, 4096)
        except BlockingIOError:
            return True
        except OSError:  # on Linux: the other end of a pty is closed
            words = b""
        if words:
            self._said.append(words)
            while sum(map(len, self._said)) > MAX_STDERR:
                self._said.popleft()
            if self.is_shown and sys.stderr is not None:
                sys.stderr.buffer.write(words)
                sys.stderr.flush()
        return bool(words)

    def drain(self) -> None:
        """Take all that ssh has said so far."""
        with contextlib.suppress(OSError, ValueError):
            while select.select([self.errors], [], [], 0)[0] and self.read_errors():
                pass

    @property
    def said(self) -> str:
        """The last MAX_STDERR bytes that were taken of ssh's standard error."""
        return b"".join(self._said).decode("utf-8", "replace").replace("\r\n", "\n")

    def end(self, patience: float = 0.0) -> int:
        """End ssh if it has not ended by itself within `patience` seconds; gives its exit status."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.terminate()
        try:
            return self.process.wait(TERMINATE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        """Stop listening to what ssh says."""
        with contextlib.suppress(OSError):
            os.close(self.errors)


def _stderr(on_terminal: bool) -> tuple[int, int]:
    """Our end and ssh's end of its standard error.

    Where ours is a terminal it is a pty: ssh tells only a terminal that a security key waits for a touch.
    """
    if on_terminal and sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(OSError):
            return os.openpty()
    return os.pipe()
