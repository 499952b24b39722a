"""What a bench prints: the environment, then tables; or all of it as one JSON object.

Tested in tests/bench/test_bench.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class Column:
    """`form` is a format specification for numbers. A cell without a value (None) is shown as a dash."""

    title: str
    form: str = ".2f"

    def show(self, cell: Cell) -> str:
        if cell is None:
            return "-"
        return cell if isinstance(cell, str) else format(cell, self.form)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, a cell for each column. `note` says what the reader must know about them."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        shown = [
            [column.title for column in self.columns],
            *([column.show(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows),
        ]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        numeric = [False, *(True for _ in widths[1:])]
        lines = [
            "| "
            + " | ".join(_pad(text, width, right) for text, width, right in zip(row, widths, numeric, strict=True))
            + " |"
            for row in shown
        ]
        ruler = ["-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)]
        lines.insert(1, "|" + "|".join(ruler) + "|")
        note = f"\n{self.note}\n" if self.note else ""
        return f"### {self.title}\n\n" + "\n".join(lines) + "\n" + note


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


@dataclass(frozen=True, slots=True)
class Arguments:
    """`quick`: fewer and shorter runs, which show that the bench works."""

    json: bool
    quick: bool


def begin(description: str, argv: Sequence[str] | None = None) -> Arguments:
    """Read the command line, and clean the environment as `parser` does."""
    return Arguments(**vars(parser(description).parse_args(argv)))


def parser(description: str) -> argparse.ArgumentParser:
    """A parser of the arguments that all benches have; a bench may add more. Also cleans the environment."""
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        # With PYTHONDONTWRITEBYTECODE, each start would compile what an installed package has already compiled.
        del os.environ[name]
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    made.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    return made


def emit(name: str, tables: Sequence[Table], given: Arguments) -> None:
    """Print what was measured."""
    if given.json:
        listed = [asdict(table) | {"columns": [column.title for column in table.columns]} for table in tables]
        print(json.dumps({"bench": name, "quick": given.quick, "environment": environment(), "tables": listed}))
        return
    print(f"## {name}{' (quick)' if given.quick else ''}\n")
    print("\n".join(f"- {what}: {value}" for what, value in environment().items()) + "\n")
    print("\n".join(table.markdown() for table in tables))


def progress(text: str) -> None:
    """Tell a person on standard error how far the bench has come."""
    if sys.stderr.isatty() or os.environ.get("BENCH_PROGRESS"):
        print(text, file=sys.stderr, flush=True)


def environment() -> Mapping[str, str]:
    """The machine and the versions to which the figures belong."""
    return {
        "CPU": f"{_cpu()}, {os.cpu_count()} cores, {_memory()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "OpenSSH": _first_line(["ssh", "-V"]),
        "mosh": _first_line(["mosh-server", "--version"]),
        "socat": next(iter(re.findall(r"socat version (\S+)", _said(["socat", "-V"]))), "not installed"),
        "autossh": _first_line(["autossh", "-V"]),
        "packages": ", ".join(f"{package} {version(package)}" for package in ("asyncssh", "cryptography", "pydantic")),
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    aes = " with AES instructions" if re.search(r"^(?:flags|Features)\s*:.*\baes\b", _cpuinfo(), re.MULTILINE) else ""
    return (found[1] if found else platform.machine()) + aes


def _cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10)
    except FileNotFoundError:
        return ""
    return done.stdout + done.stderr


def _first_line(command: list[str]) -> str:
    return next(iter(_said(command).strip().splitlines()), "not installed")
