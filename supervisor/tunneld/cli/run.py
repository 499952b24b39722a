"""`tunneld run NAME...`: hold the tunnels in the foreground, until a signal."""

from __future__ import annotations

import argparse
import os

FORMATS = ("console", "logfmt", "json")  # of tunneld.log, which takes 50 ms to import and is not needed for --help


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="a profile's name, or the path of its file")
    parser.add_argument(
        "--log-format", choices=FORMATS, help="how log lines look (console on a terminal, logfmt elsewhere)"
    )


def run(args: argparse.Namespace) -> int:
    """The daemon's exit code.

    Raises:
        ProfileError: every problem of every profile.
        BusyError: one of them runs already.
    """
    import asyncio

    from tunneld import log
    from tunneld.daemon import Daemon
    from tunneld.profile import load_all

    profiles = load_all(list(dict.fromkeys(args.names)))
    log.configure(args.log_format, debug=os.environ.get("TUNNELD_DEBUG") == "1")

    async def serve() -> int:
        return await Daemon(profiles, log=log.logger()).run()

    return asyncio.run(serve())
