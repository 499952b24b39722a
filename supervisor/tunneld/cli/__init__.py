"""The command line: `tunneld COMMAND ...`, one module per command, and nothing imported before it is chosen.

A command lives in `tunneld/cli/NAME.py`, has a row in COMMANDS, and offers two functions:

    def add(parser: argparse.ArgumentParser) -> None    # its arguments, on a parser that is its own
    def run(args: argparse.Namespace) -> int            # does it; the result is the exit code

`run` prints results on stdout and raises TunneldError for what the user should know; main() says it on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from tunneld import __version__
from tunneld.cli.arguments import Parser, unknown
from tunneld.errors import ProfileError, TunneldError, UsageError

# The help texts live here, so that `tunneld --help` imports no command.
COMMANDS = {
    "run": "hold the tunnels of these profiles, in the foreground",
    "status": "say how the tunnels are doing",
    "enable": "make a profile a systemd service that starts at boot",
    "disable": "stop such a service, and remove it",
    "demo": "run a tunnel with mosh through it, on this machine alone",
    "mosh": "mosh to whatever ssh reaches, over the best path there is",
    "profile": "check, show and describe profiles",
}

# What follows `--` is a program's, and comes as `args.command_line`.
RUNS_A_PROGRAM = {"mosh"}

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
READER_GONE = 141  # 128 + SIGPIPE, as shells report it
FAULT = 70  # EX_SOFTWARE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and answer its exit code; errors become text on stderr, never a traceback."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError as error:
        return READER_GONE if _reader_is_gone() else _report(error)
    except Exception as error:
        return _report(error)
    finally:
        _forget_unsaid()


def _run(argv: list[str]) -> int:
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser = _parser(chosen)
    end = argv.index("--") if chosen in RUNS_A_PROGRAM and "--" in argv else len(argv)
    try:
        args = parser.parse_args(argv[:end], argparse.Namespace(command_line=argv[end + 1 :]))
    except SystemExit as leaving:  # --help and --version
        return int(leaving.code or 0)
    if args.command is None:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    return int(import_module(f"tunneld.cli.{args.command}").run(args))


def _parser(chosen: str | None) -> Parser:
    """The parser of everything, with the arguments of the chosen command only."""
    if chosen is not None and chosen not in COMMANDS:
        raise UsageError(unknown("command", chosen, COMMANDS))
    parser = Parser(prog="tunneld", description="Keeps reverse SSH tunnels up, and lets mosh cross them.")
    parser.add_argument("--version", action="version", version=f"tunneld {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name == chosen:
            import_module(f"tunneld.cli.{name}").add(command)
    return parser


def _report(error: Exception) -> int:
    """Say on stderr what went wrong; the exit code that goes with it."""
    if os.environ.get("TUNNELD_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    expected = _expected(error)
    if not expected:
        _say(
            f"tunneld: a fault in tunneld {__version__}: {type(error).__name__}: {_one_line(error)}; "
            "please report this line (TUNNELD_DEBUG=1 shows where it happened)"
        )
        return FAULT
    for each in expected:
        # A profile's problems name their file and line first, where editors look for them.
        _say(str(each) if isinstance(each, ProfileError) else f"tunneld: {each}")
    return expected[0].exit_code


def _expected(error: Exception) -> list[TunneldError]:
    """The errors meant for the user: this one, or those of a task group that failed with nothing else."""
    if isinstance(error, TunneldError):
        return [error]
    if not isinstance(error, ExceptionGroup):
        return []
    parts = [_expected(part) for part in error.exceptions]
    return [each for part in parts for each in part] if all(parts) else []


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _say(text: str) -> None:
    if "JOURNAL_STREAM" in os.environ and sys.stderr is not None:
        from tunneld.systemd.journal import is_journal

        text = f"<3>{text}" if is_journal(sys.stderr) else text  # an error's priority (sd-daemon(3))
    with contextlib.suppress(OSError):  # a full disk: the exit code has to do
        print(text, file=sys.stderr)


def _forget_unsaid() -> None:
    """Drop what stderr does not take (a full disk): Python would try again at exit, and fail with a code of its own."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _reader_is_gone() -> bool:
    """Whether nobody reads our stdout any more; if so, nothing is flushed into it at exit either."""
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
