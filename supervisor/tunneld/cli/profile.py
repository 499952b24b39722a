"""`tunneld profile`: check profiles, print one with its defaults, print their schema."""

from __future__ import annotations

import argparse
import json

from tunneld import profile
from tunneld.errors import Problem, ProfileError, UsageError


def add(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    check = actions.add_parser("check", help="list the mistakes in profiles; the exit code is 78 if there are any")
    check.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a profile's name, or the path of its file; without it, every profile in the profile folders",
    )
    show = actions.add_parser("show", help="print a profile as TOML, with all defaults")
    show.add_argument("name", metavar="NAME", help="a profile's name, or the path of its file")
    actions.add_parser("schema", help="print the JSON Schema of profiles, which editors can use")


def run(args: argparse.Namespace) -> int:
    if args.action == "check":
        _check(args.names or _every_name())
    elif args.action == "show":
        print(profile.as_toml(profile.load(args.name)), end="")
    else:
        print(json.dumps(profile.schema(), indent=2))
    return 0


def _every_name() -> list[str]:
    files = profile.profile_files()
    if not files:
        raise UsageError(f"there are no profiles in {' nor in '.join(map(str, profile.profile_folders()))}")
    return list(map(str, files))


def _check(names: list[str]) -> None:
    """Print a line for each good profile, and report the problems of all others at once.

    Raises:
        ProfileError: those problems.
    """
    good: list[profile.Profile] = []
    problems: list[Problem] = []
    for name in names:
        try:
            good.append(profile.load(name))
        except ProfileError as error:
            problems += error.problems
    conflicts = profile.conflicts(good)
    in_conflict = {problem.file for problem in conflicts}
    for each in good:
        if each.file not in in_conflict:
            print(f"{each.name}: ok ({each.file})")
    if problems or conflicts:
        raise ProfileError((*problems, *conflicts))
