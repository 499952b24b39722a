"""The person's terminal: whether mosh-client can work on it, and how to repair it when mosh-client was killed.

That a killed mosh-client leaves a usable terminal is tested in tests/mosh/test_mosh_session.py.
"""

from __future__ import annotations

import contextlib
import locale
import os
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping

from tunneld.errors import UnavailableError
from tunneld.shipped.start_mosh_server import COMMON_LOCALES

COUNT_TIMEOUT = 5.0
"""Seconds for mosh-client to count the terminal's colours, which takes milliseconds."""

DECIDING = ("LC_ALL", "LC_CTYPE", "LANG")
"""Variables that decide the character set; the first one that is set wins (locale(7))."""

AS_MOSH_LEAVES_IT = (
    "\033[?1l\033[0m\033[?25h"  # usual cursor keys, no colours, a visible cursor
    "\033[?1003l\033[?1002l\033[?1001l\033[?1000l\033[?1015l\033[?1006l\033[?1005l"  # no reports of the mouse's moves
    "\033[?2004l\033[?1049l"  # no marks around pasted text, the normal screen
)
"""The control sequences that mosh-client writes when it ends (its Display::close)."""


def saved() -> Callable[[], None]:
    """A function that gives this terminal its present settings back, and does nothing where there is no terminal."""
    try:
        fd = sys.stdin.fileno()
        settings = termios.tcgetattr(fd)
    except (AttributeError, OSError, ValueError, termios.error):
        return lambda: None

    def restore() -> None:
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, settings)
            os.write(sys.stdout.fileno(), AS_MOSH_LEAVES_IT.encode())

    return restore


def charset(environment: Mapping[str, str]) -> dict[str, str]:
    """What mosh-client needs in addition to this environment to find a UTF-8 locale: mostly nothing.

    Raises:
        UnavailableError: this terminal does not speak UTF-8.
    """
    try:
        locale.setlocale(locale.LC_ALL, "")
    except locale.Error:
        return _stand_in(environment)
    codeset = locale.nl_langinfo(locale.CODESET)
    if not _is_utf8(codeset):
        raise _no_utf8(environment, f"the character set is {codeset}")
    return {}


def _is_utf8(charset: str) -> bool:
    return charset.upper().replace("-", "").endswith("UTF8")


def _stand_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Another UTF-8 locale for one that is not installed here: its name still tells what the terminal understands."""
    name, value = _asked_for(environment)
    if _is_utf8(value):
        for other in COMMON_LOCALES:
            with contextlib.suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, other)
                return {"LC_ALL": other}
    raise _no_utf8(environment, f"{name}={value} is not installed here")


def _asked_for(environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable that decides the character set, and its value."""
    return next(((name, environment[name]) for name in DECIDING if environment.get(name)), ("LANG", ""))


def _no_utf8(environment: Mapping[str, str], why: str) -> UnavailableError:
    name, value = _asked_for(environment)
    have = f" ({name}={value})" if value and value not in why else ""
    return UnavailableError(
        f"mosh-client needs a UTF-8 locale, and {why}{have}: set {name} to one that `locale -a` lists, "
        f"such as {COMMON_LOCALES[0]}"
    )


class ColorCount:
    """mosh-client, which counts this terminal's colours while the caller does something else."""

    def __init__(self, client: str) -> None:
        """
        Raises:
            UnavailableError: mosh-client is not installed, or does not start.
        """
        self._client = client
        try:
            self._process = subprocess.Popen(
                (client, "-c"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError:
            raise UnavailableError(
                f"{client} is not installed here: install mosh (`apt install mosh`, `dnf install mosh`, "
                "`brew install mosh`)"
            ) from None
        except OSError as error:
            raise UnavailableError(f"{client} cannot be run: {error.strerror}") from None

    def colors(self) -> int:
        """How many colours there are, once they are counted; 0 where mosh-client does not say.

        Raises:
            UnavailableError: mosh-client cannot work on this terminal.
        """
        with self._process as process:
            try:
                output, errors = process.communicate(timeout=COUNT_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = "", "it does not answer"
        if process.returncode != 0:
            words = " ".join((errors or output).split()) or f"exit status {process.returncode}"
            raise UnavailableError(f"{self._client} cannot work on this terminal: {words}")
        digits = output.strip()
        return int(digits) if digits.isdigit() else 0
