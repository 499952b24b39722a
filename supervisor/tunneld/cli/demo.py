"""`tunneld demo`: a tunnel and mosh through it, while the link between them is cut and mended; all on this machine."""

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
PAUSE = 1.5  # seconds before the next step, on a terminal, where somebody is reading
COLOURS = {"plain": "", "typed": "1", "good": "32", "bad": "31"}  # parameters of SGR (ECMA-48)

OPENING = """\
A relay, a host that keeps a tunnel to it, and a person who uses the tunnel: all on this machine.
Nothing of it is left behind. The numbers are seconds since the start.
"""
NEXT = """
What to do next, on a host of your own (README.md says what the relay needs):
  1. write ~/.config/tunneld/profiles/NAME.toml, like the profile above
  2. tunneld profile check NAME
  3. tunneld run NAME"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The demo takes about 15 seconds. It needs mosh and ssh, and leaves nothing behind. Ctrl-C ends it at any time."
    )


def run(args: argparse.Namespace) -> int:
    """Play the demo. Return 0 when each step was seen, and 128 + the signal's number when a signal ended it.

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
                print("\ninterrupted: every process has ended, and the folder is gone", file=sys.stderr)
            return 128 + interruption.signal
        if left := leftovers(folder):
            raise DemoError(f"the demo is over, but this is still there: {', '.join(left)}")
    page.say("all", "every process has ended, and the folder is gone", "good")
    print(NEXT)
    return 0


def _require() -> None:
    missing = [program for program in PACKAGES if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[program] for program in missing))
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise UnavailableError(
            f"the demo needs {', '.join(missing)}: install it with `{sudo}apt-get install {packages}` "
            "(on Debian and Ubuntu), then run `tunneld demo` again"
        )
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise UnavailableError(
            f"ssh runs only for users in the passwd database, and user {os.geteuid()} is not there"
        ) from None


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
    page.say(
        "host", f"another SSH server, on {stage.host.settings.address}; the person reaches it only through the tunnel"
    )
    page.say("link", "the TCP link between host and relay; the demo can cut it")
    page.say("profile", f"{stage.profile.file}; this is all that the owner of the host writes:\n")
    print("\n".join(f"    {line}".rstrip() for line in stage.text.splitlines()), end="\n\n", flush=True)


class Page:
    """Prints lines: when, who, what. They are in colour on a terminal, unless NO_COLOR is set (no-color.org)."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._start = self._now()
        self._is_read = sys.stdout.isatty()
        self._colours = self._is_read and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"

    def say(self, who: str, what: str, mood: str = "plain", *, at: float | None = None) -> None:
        """Print a line. `at` is a time of the event loop's clock; without it, the time is now."""
        seconds = (self._now() if at is None else at) - self._start
        colour = COLOURS[mood] if self._colours else ""
        print(f"{seconds:5.1f}  {who:<8}", f"\x1b[{colour}m{what}\x1b[0m" if colour else what, flush=True)

    async def pause(self) -> None:
        """Give a person on a terminal time to read."""
        await asyncio.sleep(PAUSE if self._is_read else 0)
