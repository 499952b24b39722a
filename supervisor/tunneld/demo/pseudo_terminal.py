"""A program on a pseudo terminal. The demo types there and reads the screen, as a person would."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from tunneld.errors import TunneldError

SCREEN_ROWS, SCREEN_COLUMNS = 24, 80
MAX_SCREEN_TAIL = 300  # characters from the end of the screen that an error repeats
HANGUP_GRACE = 1.0  # seconds for the program to end after its terminal was closed, before it is killed

# A session's leader without a controlling terminal gets the first terminal that it opens (setsid(2)).
WITH_TERMINAL = 'exec 0<>"$0" 1>&0 2>&0; exec "$@"'

CONTROL_SEQUENCE = re.compile(
    rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC, for example a title; it ends with BEL or ST
    rb"|\x1b\[[0-?]*[ -/]*(?:[@-~]|$)"  # CSI
    rb"|\x1b[ -/]*(?:[0-~]|$)"  # any other escape
    rb"|[\x00-\x09\x0b-\x1f\x7f]"
)


class NotShownError(TunneldError):
    """The terminal did not show what we waited for."""


class _Screen(asyncio.Protocol):
    """All that the program has shown so far; `news` is set at each change, and at the end."""

    def __init__(self) -> None:
        self.shown = bytearray()
        self.has_ended = False
        self.news = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.shown += data
        self.news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.has_ended = True
        self.news.set()


class Terminal:
    """Runs `command` on a pseudo terminal for as long as the context lasts."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = dict(environment)
        self._screen = _Screen()

    async def __aenter__(self) -> Self:
        self._keyboard, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", SCREEN_ROWS, SCREEN_COLUMNS, 0, 0))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", WITH_TERMINAL, os.ttyname(theirs), *self._command),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=self._environment,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._keyboard)
            raise
        finally:
            os.close(theirs)
        output: IO[bytes] = os.fdopen(os.dup(self._keyboard), "rb", buffering=0)
        self._reading, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self._screen, output)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.close()
        os.close(self._keyboard)  # which hangs up
        try:
            async with asyncio.timeout(HANGUP_GRACE):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    def type(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    async def shows(self, pattern: str, *, within: float, since: int = 0) -> re.Match[str]:
        """Wait for text that matches `pattern` and stands after the first `since` bytes; at most `within` seconds.

        Raises:
            NotShownError: no such text came, or the program has ended.
        """
        try:
            async with asyncio.timeout(within):
                while not (match := re.search(pattern, self._text(since))):
                    if self._screen.has_ended:
                        raise NotShownError(f"it ended; {self._last_words()}")
                    self._screen.news.clear()
                    await self._screen.news.wait()
                return match
        except TimeoutError:
            raise NotShownError(f"it did not show {pattern!r} within {within:g} s; {self._last_words()}") from None

    async def echo(self, key: str, *, within: float) -> float:
        """Press a key, and return the seconds until it is shown. The key before must have been a different one.

        Raises:
            NotShownError: the key was not shown.
        """
        place, pressed = len(self._screen.shown), asyncio.get_running_loop().time()
        self.type(key)
        await self.shows(re.escape(key), within=within, since=place)
        return asyncio.get_running_loop().time() - pressed

    async def ended(self, *, within: float) -> int:
        """Wait for the program's own end, and return its exit status.

        Raises:
            NotShownError: the program did not end.
        """
        try:
            async with asyncio.timeout(within):
                return await self._process.wait()
        except TimeoutError:
            raise NotShownError(f"it did not end within {within:g} s; {self._last_words()}") from None

    def _text(self, since: int = 0) -> str:
        return CONTROL_SEQUENCE.sub(b"", bytes(self._screen.shown[since:])).decode(errors="replace")

    def _last_words(self) -> str:
        words = " ".join(self._text().split())[-MAX_SCREEN_TAIL:]
        return f"its last words: {words}" if words else "it showed nothing"
