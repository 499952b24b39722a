"""`tunneld run NAME...`: keep tunnels up in the foreground, until a signal ends the process.

What it then does is tested in tests/daemon/test_daemon.py and test_daemon_notifies.py.
"""

from __future__ import annotations

import argparse
import os
import resource
from typing import TYPE_CHECKING

from tunneld.errors import Problem, ProfileError, TunneldError, UsageError

if TYPE_CHECKING:
    from tunneld.profile import Profile

# Each connection through a forward takes a file descriptor, and so does each flow of mosh. A shell allows 1,024.
DESCRIPTORS = 16384

# What tunneld.log.configure() takes. The list is not in that module, which takes 50 ms to import: too long for --help.
LOG_FORMATS = ("console", "logfmt", "json")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="a profile's name, or the path of its file")
    parser.add_argument(
        "--all",
        action="store_true",
        help="run every profile in the profile folders; a profile with mistakes is left out",
    )
    parser.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        help="how log lines look; without it: console on a terminal, logfmt elsewhere",
    )


def run(args: argparse.Namespace) -> int:
    """Run the daemon, and return its exit code. An error also becomes the status text of the systemd service.

    Raises:
        UsageError: the command line has neither a name nor --all, or both.
        ProfileError: every problem of every profile. With --all, only when no profile can run.
        BusyError: another daemon runs one of the tunnels already.
    """
    from tunneld.systemd.notify import NotifySocket

    try:
        return _serve(args)
    except TunneldError as error:
        NotifySocket().status(str(error))
        raise


def _serve(args: argparse.Namespace) -> int:
    import asyncio

    from tunneld import log
    from tunneld.daemon.daemon import Daemon
    from tunneld.daemon.threads import Threads
    from tunneld.profile import profile_files

    profiles, rejected = _chosen(args)
    _raise_descriptor_limit()
    log.configure(args.log_format, debug=os.environ.get("TUNNELD_DEBUG") == "1")
    for problem in rejected:
        log.logger().error("profile_rejected", problem=str(problem))

    async def serve() -> int:
        asyncio.get_running_loop().set_default_executor(Threads())
        found = profile_files if args.all else tuple
        return await Daemon(profiles, log=log.logger(), rejected=rejected, found=found).run()

    return asyncio.run(serve())


def _raise_descriptor_limit() -> None:
    """Raise the soft limit as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _chosen(args: argparse.Namespace) -> tuple[tuple[Profile, ...], tuple[Problem, ...]]:
    from tunneld.profile import load_all

    if bool(args.names) == args.all:
        raise UsageError(
            "name the profiles to run, or write --all, and not both: `tunneld run NAME` or `tunneld run --all`"
        )
    return _all_that_can_run() if args.all else (load_all(list(dict.fromkeys(args.names))), ())


def _all_that_can_run() -> tuple[tuple[Profile, ...], tuple[Problem, ...]]:
    """The profiles that can run side by side, and the problems of the others, which must not keep them down."""
    from tunneld.profile import conflicts, load, profile_files, profile_folders

    profiles: list[Profile] = []
    problems: list[Problem] = []
    for file in profile_files():
        try:
            profile = load(str(file))
            problems += (clashes := conflicts([*profiles, profile]))
            profiles += [] if clashes else [profile]
        except ProfileError as error:
            problems += error.problems
    if not profiles and not problems:
        problems = [
            Problem(profile_folders()[-1], 1, "", "this folder holds no profile: write one there, as NAME.toml")
        ]
    if not profiles:
        raise ProfileError(tuple(problems))
    return tuple(profiles), tuple(problems)
