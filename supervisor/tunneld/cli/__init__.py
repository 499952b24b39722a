"""The command line: `tunneld COMMAND ...`. Each command is a module, which is imported only when it is chosen.

A command lives in `tunneld/cli/NAME.py`, has a row in COMMANDS, and offers two functions:

    def add(parser: argparse.ArgumentParser) -> None    # adds the command's arguments to a parser of its own
    def run(args: argparse.Namespace) -> int            # does the work, and returns the exit code

`run` prints its results on stdout. It raises TunneldError for what the user should know, and main() prints the text of
that error on stderr.

Tested in tests/cli/test_main.py.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from tunneld import __version__
from tunneld.cli.arguments import Parser, unknown
from tunneld.core.printable import one_line
from tunneld.errors import ProfileError, TunneldError, UnavailableError, UsageError

# The help texts live here, so that `tunneld --help` imports no command.
COMMANDS = {
    "run": "keep the tunnels of one or more profiles up, in the foreground",
    "status": "show how the running tunnels are",
    "enable": "make a profile a systemd service, which starts at boot",
    "disable": "stop the systemd service of a profile, and remove it",
    "demo": "show a tunnel, and mosh through it, on this machine alone",
    "mosh": "open a mosh session to any host that ssh reaches",
    "profile": "check or print profiles",
}

# For these commands, the words after `--` are a program to run; they come as `args.command_line`.
RUNS_A_PROGRAM = {"mosh"}

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
READER_GONE = 141  # 128 + SIGPIPE, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. An error becomes text on stderr, never a traceback."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError as error:
        return READER_GONE if _reader_is_gone() else _report(error)
    except OSError as error:
        return _report(_no_room(error) or error)
    except Exception as error:
        return _report(error)
    finally:
        _discard_unwritten()


def _run(argv: list[str]) -> int:
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser = _parser(chosen)
    end = argv.index("--") if chosen in RUNS_A_PROGRAM and "--" in argv else len(argv)
    try:
        args, unread = parser.parse_known_args(argv[:end], argparse.Namespace(command_line=argv[end + 1 :]))
    except SystemExit as leaving:  # --help and --version
        return int(leaving.code or 0)
    if unread:
        asked = f"{parser.prog} {args.command}" if args.command else parser.prog
        raise UsageError(f"unrecognized arguments: {' '.join(unread)} (see `{asked} --help`)")
    if args.command is None:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    return int(import_module(f"tunneld.cli.{args.command}").run(args))


def _parser(chosen: str | None) -> Parser:
    """The parser of all commands. Only the chosen command has its arguments, since only its module is imported."""
    if chosen is not None and chosen not in COMMANDS:
        raise UsageError(unknown("command", chosen, COMMANDS))
    parser = Parser(prog="tunneld", description="Keep reverse SSH tunnels up, and use mosh through them.")
    parser.add_argument("--version", action="version", version=f"tunneld {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == chosen:
            import_module(f"tunneld.cli.{name}").add(command)
    return parser


def _report(error: Exception) -> int:
    """Print on stderr what went wrong, and return the exit code for it."""
    if os.environ.get("TUNNELD_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    expected = _expected(error)
    if not expected:
        _say(
            f"tunneld: a fault in tunneld {__version__}: {type(error).__name__}: {one_line(str(error))}; "
            "please report this line (with TUNNELD_DEBUG=1 in the environment, tunneld shows where it happened)"
        )
        return TunneldError.exit_code
    for each in expected:
        # The problems of a profile begin with the file and the line, where editors look for them.
        _say(str(each) if isinstance(each, ProfileError) else f"tunneld: {each}")
    return expected[0].exit_code


def _expected(error: Exception) -> list[TunneldError]:
    """The errors that are for the user: this one, or all errors of a task group. A mixed group is a fault of ours."""
    if isinstance(error, TunneldError):
        return [error]
    if not isinstance(error, ExceptionGroup):
        return []
    parts = [_expected(part) for part in error.exceptions]
    return [each for part in parts for each in part] if all(parts) else []


def _say(text: str) -> None:
    if "JOURNAL_STREAM" in os.environ and sys.stderr is not None:
        from tunneld.systemd.journal import is_journal

        text = f"<3>{text}" if is_journal(sys.stderr) else text  # an error's priority (sd-daemon(3))
    with contextlib.suppress(OSError):  # a full disk: then only the exit code tells
        print(text, file=sys.stderr)


def _no_room(error: OSError) -> UnavailableError | None:
    """The error for the user where the output found no room; None where `error` is about something else."""
    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    return UnavailableError(f"cannot write the output: {error.strerror}; make room, or write it elsewhere")


def _discard_unwritten() -> None:
    """Drop what a stream does not take (a full disk). At exit Python would try again, and choose its own exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _reader_is_gone() -> bool:
    """Whether nobody reads our stdout any more. If so, Python has nothing to flush into it at exit."""
    import select

    try:
        stdout = sys.stdout.fileno()
        poll = select.poll()
        poll.register(stdout, 0)
        if not any(events & select.POLLERR for _, events in poll.poll(0)):
            return False
    except (AttributeError, OSError, ValueError):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
    return True
