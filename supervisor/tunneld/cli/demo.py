"""`tunneld demo`: a tunnel with mosh through it, its link cut and mended, on this machine alone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import pwd
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tunneld.errors import UnavailableError

if TYPE_CHECKING:
    from tunneld.demo.interruption import Interruption
    from tunneld.demo.stage import Stage

PACKAGES = {"mosh": "mosh", "mosh-server": "mosh", "mosh-client": "mosh", "ssh": "openssh-client"}  # Debian's
PAUSE = 1.5  # seconds before the next thing happens, where somebody is reading
COLOURS = {"plain": "", "typed": "1", "good": "32", "bad": "31"}  # ECMA-48, SGR

OPENING = """\
A relay, a host behind it and a person, all on this machine; nothing of it is left behind.
The numbers are seconds since the start.
"""
NEXT = """
What to do next, on a host of yours (README.md says what the relay needs):
  1. write ~/.config/tunneld/profiles/NAME.toml, like the profile above
  2. tunneld profile check NAME
  3. tunneld run NAME"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "It takes about 15 seconds, needs mosh and ssh, and leaves nothing behind; Ctrl-C ends it at any time."
    )


def run(args: argparse.Namespace) -> int:
    """0 when every step was seen, 128 + the signal's number when it was interrupted.

    Raises:
        UnavailableError: mosh or ssh is missing.
        TunneldError: a step failed.
    """
    _require()
    from tunneld.demo.interruption import Interruption
    from tunneld.demo.leftover import leftovers, private_folder
    from tunneld.demo.story import DemoError

    with Interruption() as interruption:
        try:
            with private_folder() as folder:
                page = asyncio.run(_play(folder, interruption))
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):  # the terminal may be what has gone
                print("\ninterrupted: everything is ended and removed", file=sys.stderr)
            return 128 + interruption.signal
        if left := leftovers(folder):
            raise DemoError(f"the demo is over, but there is still {', '.join(left)}")
    page.say("all", "every process has ended, and the folder is gone", "good")
    print(NEXT)
    return 0


def _require() -> None:
    missing = [program for program in PACKAGES if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[program] for program in missing))
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise UnavailableError(
            f"the demo needs {', '.join(missing)}: install with `{sudo}apt-get install {packages}` "
            "(on Debian and Ubuntu), then start it again"
        )
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise UnavailableError(f"ssh runs only for users in the passwd database: {os.geteuid()} is not there") from None


async def _play(folder: Path, interruption: Interruption) -> Page:
    from tunneld.demo.stage import set_up
    from tunneld.demo.story import Story

    interruption.start()
    page = Page()
    print(OPENING)
    async with set_up(folder) as stage:
        _introduce(page, stage)
        await page.pause()
        await Story(stage, say=page.say, pause=page.pause).play()
    return page


def _introduce(page: Page, stage: Stage) -> None:
    page.say("relay", f"an SSH server on {stage.relay.settings.address}, with keys made on the spot")
    page.say("host", f"another on {stage.host.settings.address}, which the person reaches through the tunnel alone")
    page.say("link", "between them, a TCP link that can be cut")
    page.say("profile", f"{stage.profile.file}, which is all that the host's owner writes:\n")
    print("\n".join(f"    {line}".rstrip() for line in stage.text.splitlines()), end="\n\n", flush=True)


class Page:
    """Lines: when, who, what. In colour on a terminal, unless NO_COLOR is set (no-color.org)."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._start = self._now()
        self._is_read = sys.stdout.isatty()
        self._colours = self._is_read and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"

    def say(self, who: str, what: str, mood: str = "plain", *, at: float | None = None) -> None:
        """`at` on the loop's clock; now, if left out."""
        seconds = (self._now() if at is None else at) - self._start
        colour = COLOURS[mood] if self._colours else ""
        print(f"{seconds:5.1f}  {who:<8}", f"\x1b[{colour}m{what}\x1b[0m" if colour else what, flush=True)

    async def pause(self) -> None:
        """Give a person on a terminal time to read."""
        await asyncio.sleep(PAUSE if self._is_read else 0)
