"""What all commands share: exit codes, messages, and that nothing is imported too early."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.isolated import TUNNELD
from tunneld import __version__
from tunneld.cli import COMMANDS, main
from tunneld.errors import BusyError, TunneldError, UnavailableError

EXAMPLE = Path(__file__).parents[2] / "profiles" / "pi-home.toml"
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], None]:
    """Put a body in the place of `tunneld status`."""

    def replace(body: Callable[[], int]) -> None:
        module = ModuleType("tunneld.cli.status")
        module.__dict__.update(add=lambda parser: None, run=lambda args: body())
        monkeypatch.setitem(sys.modules, "tunneld.cli.status", module)

    return replace


def failing(error: BaseException) -> Callable[[], int]:
    def body() -> int:
        raise error

    return body


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["stauts"], ["profile", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    """Help must not wait for SSH, validation and logging to load."""
    script = (
        "import sys; from tunneld.cli import main; main(sys.argv[1:]);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "tunneld" in loaded
    assert not loaded & {"asyncssh", "pydantic", "structlog", "tenacity", "asyncio", "cryptography", "pystemd"}


def test_help_names_every_command(capsys: Captured) -> None:
    """The table is what the user reads."""
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and text in out for name, text in COMMANDS.items())


def test_version(capsys: Captured) -> None:
    """It goes to stdout, for scripts."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tunneld {__version__}\n"


def test_the_module_is_the_command() -> None:
    """`python -m tunneld` works where scripts are not on PATH, and hands the exit code on."""
    done = subprocess.run([sys.executable, "-m", "tunneld", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tunneld {__version__}\n"
    assert subprocess.run([sys.executable, "-m", "tunneld", "nope"], capture_output=True).returncode == 64


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stauts"], "tunneld: unknown command 'stauts': did you mean 'status'?"),
        (["xyzzy"], "tunneld: unknown command 'xyzzy': write one of run, status, enable, disable, demo, mosh, profile"),
        (["--nope"], "tunneld: unrecognized arguments: --nope (see `tunneld --help`)"),
        (["--vers"], "tunneld: unrecognized arguments: --vers (see `tunneld --help`)"),
        (["status", "--jsn"], "tunneld: unrecognized arguments: --jsn (see `tunneld status --help`)"),
        (
            ["profile", "show"],
            "tunneld: the following arguments are required: NAME (see `tunneld profile show --help`)",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(words: list[str], said: str, capsys: Captured) -> None:
    """It names the nearest right word, or where to look. The exit code is 64."""
    assert main(words) == 64
    assert capsys.readouterr() == ("", f"{said}\n")


def test_no_command_shows_the_help(capsys: Captured) -> None:
    """It goes to stderr, with exit code 64: nothing was done."""
    assert main([]) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: tunneld")


def test_the_exit_code_is_the_commands(command: Callable[[Callable[[], int]], None]) -> None:
    """The shell sees what run() returns."""
    command(lambda: 3)
    assert main(["status"]) == 3


@pytest.mark.parametrize(
    ("words", "arguments", "command_line"),
    [
        (["mosh", "pi", "--", "vi", "--help"], ["pi"], ["vi", "--help"]),
        (["mosh", "pi"], ["pi"], []),
        (["status", "--", "pi"], ["pi"], []),
    ],
)
def test_what_follows_two_dashes_is_a_programs(
    words: list[str], arguments: list[str], command_line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only for commands that run a program; with the others, two dashes end the options, as everywhere."""
    seen: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> int:
        seen.append(args)
        return 0

    module = ModuleType("a command")
    module.__dict__.update(add=lambda parser: parser.add_argument("given", nargs="*"), run=run)
    monkeypatch.setitem(sys.modules, f"tunneld.cli.{words[0]}", module)
    assert main(words) == 0
    assert (seen[0].given, seen[0].command_line) == (arguments, command_line)


@pytest.mark.parametrize("error", [UnavailableError("no daemon"), BusyError("held"), TunneldError("odd")])
def test_an_error_is_said_in_its_own_words(
    command: Callable[[Callable[[], int]], None], error: TunneldError, capsys: Captured
) -> None:
    """They go to stderr, and the exit code is that of the error's class."""
    command(failing(error))
    assert main(["status"]) == error.exit_code
    assert capsys.readouterr() == ("", f"tunneld: {error}\n")


def test_errors_of_a_task_group_are_said_one_by_one(
    command: Callable[[Callable[[], int]], None], capsys: Captured
) -> None:
    """A group that holds only expected errors is no fault of ours, however deep it is nested."""
    command(failing(ExceptionGroup("", [ExceptionGroup("", [BusyError("one")]), UnavailableError("two")])))
    assert main(["status"]) == BusyError.exit_code
    assert capsys.readouterr().err == "tunneld: one\ntunneld: two\n"


@pytest.mark.parametrize("error", [KeyError("a\nb"), ExceptionGroup("mixed", [BusyError("one"), KeyError("two")])])
def test_a_fault_of_ours_is_one_line(
    command: Callable[[Callable[[], int]], None],
    error: Exception,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no traceback unless somebody asks for it. The line is what to report; the exit code is 70."""
    monkeypatch.delenv("TUNNELD_DEBUG", raising=False)
    command(failing(error))
    assert main(["status"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tunneld: a fault in tunneld {__version__}: {type(error).__name__}: ")
    assert "please report" in line


def test_debugging_shows_the_traceback(
    command: Callable[[Callable[[], int]], None], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TUNNELD_DEBUG=1 is for those who look for the fault."""
    monkeypatch.setenv("TUNNELD_DEBUG", "1")
    command(failing(KeyError("x")))
    assert main(["status"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interrupt_is_quiet(command: Callable[[Callable[[], int]], None], capsys: Captured) -> None:
    """Ctrl-C ends with 130, as shells expect."""
    command(failing(KeyboardInterrupt()))
    assert main(["status"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words", [["profile", "schema"], ["profile", "check", str(EXAMPLE)]])
def test_a_reader_that_went_away_is_no_error(words: list[str]) -> None:
    """`tunneld profile schema | head -1` is quiet, and only its exit code tells. Short output waits until the end."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [*TUNNELD, *words]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=buffered)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_broken_pipe_elsewhere_is_a_fault(command: Callable[[Callable[[], int]], None], capsys: Captured) -> None:
    """Only our own stdout may break without a message."""
    command(failing(BrokenPipeError("some socket")))
    assert main(["status"]) == 70
    assert "BrokenPipeError" in capsys.readouterr().err


def test_a_closed_stdout_is_no_error() -> None:
    """`tunneld ... >&-`, as some init scripts have it."""
    script = f'exec "{sys.executable}" -m tunneld profile schema >&-'
    done = subprocess.run(["/bin/sh", "-c", script], stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_output_is_told_in_a_sentence() -> None:
    """No disk for it: the exit code and the line on stderr are ours, and Python says nothing at exit."""
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "tunneld", "profile", "schema"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    said = "tunneld: cannot write the output: No space left on device; make room, or write it elsewhere\n"
    assert (done.returncode, done.stderr) == (69, said)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_what_the_frame_calls(name: str) -> None:
    """Each row of the table has its module, with add(parser) and run(args), and a help of its own."""
    pytest.importorskip(f"tunneld.cli.{name}", exc_type=ModuleNotFoundError)
    from importlib import import_module

    module = import_module(f"tunneld.cli.{name}")
    module.add(argparse.ArgumentParser())
    assert callable(module.run)
    assert main([name, "--help"]) == 0


def test_a_full_disk_under_stderr_does_not_change_the_exit_code() -> None:
    """The message is lost, but the exit code still tells how the command ended."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*TUNNELD, "status", "nobody"], stderr=full, check=False)
    assert done.returncode == 69
