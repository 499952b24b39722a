"""A line to the far machine: one ssh process, the stream through it, and what it says on its standard error."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Sequence

MAX_WORDS = 16 * 1024
"""Bytes to keep of what ssh says, for error texts."""


class SshProcess:
    """`said` are ssh's last words; the person sees them for as long as `is_shown`.

    An ssh `on_terminal` may ask there for a password. One that is not has no terminal at all, so that it can neither
    ask nor write: the terminal is mosh-client's by then.
    """

    def __init__(self, name: str, argv: Sequence[str], *, on_terminal: bool = False) -> None:
        self.name = name
        self.is_shown = on_terminal
        self._said: deque[bytes] = deque()
        self.errors, theirs = _stderr(on_terminal)
        try:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=theirs,
                start_new_session=not on_terminal,
            )
        except OSError:
            os.close(self.errors)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(self.errors, False)

    def ends(self) -> tuple[int, int]:
        """File descriptors to read from and to write to the far program; the caller's from now on."""
        assert self.process.stdin
        assert self.process.stdout
        ends = os.dup(self.process.stdout.fileno()), os.dup(self.process.stdin.fileno())
        self.process.stdout.close()
        self.process.stdin.close()
        return ends

    def read_errors(self) -> bool:
        """Take what ssh says; False once it says no more."""
        try:
            words = os.read(self.errors, 4096)
        except BlockingIOError:
            return True
        except OSError:  # a pty without a far end (Linux)
            words = b""
        if words:
            self._said.append(words)
            while sum(map(len, self._said)) > MAX_WORDS:
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
        return b"".join(self._said).decode("utf-8", "replace").replace("\r\n", "\n")

    def end(self, patience: float = 0.0) -> int:
        """End ssh if it does not end by itself, and give its exit status."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.terminate()
        try:
            return self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.errors)


def _stderr(on_terminal: bool) -> tuple[int, int]:
    """A pty where ours is a terminal: ssh tells of a security key that waits for a touch on terminals alone."""
    if on_terminal and sys.stderr is not None and sys.stderr.isatty():
        with contextlib.suppress(OSError):
            return os.openpty()
    return os.pipe()
