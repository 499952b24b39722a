"""`tunneld run NAME...`: hold the tunnels in the foreground, until a signal."""

from __future__ import annotations

import argparse
import os
import resource
from typing import TYPE_CHECKING

from tunneld.errors import Problem, ProfileError, TunneldError, UsageError

if TYPE_CHECKING:
    from tunneld.profile import Profile

# Each connection through a forward takes a file descriptor, each flow of mosh as well; a shell's usual 1,024 are few.
DESCRIPTORS = 16384

FORMATS = ("console", "logfmt", "json")  # of tunneld.log, which takes 50 ms to import and is not needed for --help


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="a profile's name, or the path of its file")
    parser.add_argument(
        "--all", action="store_true", help="every profile that a name can reach; wrong ones are left out"
    )
    parser.add_argument(
        "--log-format", choices=FORMATS, help="how log lines look (console on a terminal, logfmt elsewhere)"
    )


def run(args: argparse.Namespace) -> int:
    """The daemon's exit code. What ends it is the service's status as well, where there is one.

    Raises:
        UsageError: neither a name nor --all.
        ProfileError: every problem of every profile; with --all, when none can run.
        BusyError: one of them runs already.
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
    """As far as we may without asking anybody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if resource.RLIM_INFINITY != soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _chosen(args: argparse.Namespace) -> tuple[tuple[Profile, ...], tuple[Problem, ...]]:
    from tunneld.profile import load_all

    if bool(args.names) == args.all:
        raise UsageError("name the profiles to run, or write --all (see `tunneld run --help`)")
    return _all() if args.all else (load_all(list(dict.fromkeys(args.names))), ())


def _all() -> tuple[tuple[Profile, ...], tuple[Problem, ...]]:
    """The profiles that can run beside each other, and what is wrong with the rest, which must not keep them down."""
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
        problems = [Problem(profile_folders()[-1], 1, "", "holds no profile: write one, as NAME.toml")]
    if not profiles:
        raise ProfileError(tuple(problems))
    return tuple(profiles), tuple(problems)
