"""The house's rooms: who may import whom, and what the shipped half may use at all."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oldest import oldest_python

SOURCE = Path(__file__).parents[1] / "supervisor"
PACKAGE = SOURCE / "tunneld"

# Imports run one way. A room may import the rooms of its row, and itself.
LEAVES = {"errors", "profile", "status", "log"}
LOWER = {"ssh", "shim", "net", "systemd", "core"}
ROWS: dict[str, set[str]] = {
    "cli": {"mosh", "demo", "daemon", "tunnel", *LOWER, *LEAVES},
    "demo": {"tunnel", *LOWER, *LEAVES},
    "daemon": {"tunnel", *LOWER, *LEAVES},
    "tunnel": {*LOWER, *LEAVES},
    "shim": {"ssh", "core", *LEAVES},
    "ssh": {"core", *LEAVES},
    "net": {"core", *LEAVES},
    "systemd": {"core", *LEAVES},
    "status": {"core", "errors", "profile"},
    "log": {"errors", "systemd"},
    "profile": {"errors"},
    "errors": set(),
    "mosh": {"core", "door", "errors", "guard", "pairing", "ssh"},
    "agent": {"core", "door"},
    "far": {"core", "door", "guard", "mosh_server", "pairing"},
    "meeting": {"core"},
    "mosh_server": set(),
    "door": set(),
    "guard": set(),
    "pairing": {"addresses", "core", "mosh_server"},
    "addresses": set(),
    "claim": set(),
    "core": set(),
}
# Files beside the rooms that belong to one.
ROOM_OF = {
    "__main__": "cli",
    "answer": "daemon",
    "report": "daemon",
    "runtime": "daemon",
    "threads": "daemon",
    "session": "tunnel",
    "canary": "tunnel",
    "forwards": "tunnel",
    "bundle": "tunnel",
    "beside": "tunnel",
    "interrupt": "tunnel",
    "timing": "tunnel",
    "words": "status",
}

# What core may use: nothing that waits, reads a clock, throws dice, or knows a machine.
CORE_MAY_IMPORT = {
    *("__future__", "abc", "bisect", "collections", "contextlib", "dataclasses", "enum", "functools", "hashlib"),
    *("heapq", "hmac", "ipaddress", "itertools", "json", "math", "operator", "struct", "typing", "zlib"),
}
# What runs on the relay touches that machine, but costs it memory and time: asyncio alone would double both.
SENT_MAY_IMPORT = {
    *CORE_MAY_IMPORT,
    *("errno", "fcntl", "io", "os", "pwd", "re", "secrets", "select", "selectors", "signal", "socket", "stat"),
    *("sys", "time"),
}

# What `tunneld mosh` does without: libraries and asyncio take longer to import than the rest of it altogether.
SLOW = ("asyncio", "asyncssh", "pydantic", "structlog", "tenacity", "cryptography")
NOT_EVERYWHERE = ("pystemd", "spwd", "ossaudiodev")
LINUX = {
    *("pidfd_open", "sched_getaffinity", "eventfd", "memfd_create", "pipe2", "posix_fadvise", "setns", "unshare"),
    *("AF_NETLINK", "AF_PACKET", "SO_BINDTODEVICE", "SO_PEERCRED", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "IP_MTU_DISCOVER"),
}

SENT_NAMES = ("addresses", "agent", "claim", "door", "far", "meeting", "mosh_server", "pairing")
SENT = [PACKAGE / f"{name}.py" for name in SENT_NAMES]
SHIPPED = [*sorted((PACKAGE / "core").rglob("*.py")), *SENT]
EVERYTHING = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    """`tunneld.core.stream.frame`; a package's own file has the package's name."""
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room in which a module of ours lives; empty for the package itself, which holds its version alone."""
    first = module.split(".")[1] if "." in module else ""
    return ROOM_OF.get(first, first)


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Each import in a file, wherever it stands, lazy and type-checking ones included: its line and full module."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, name) for name in imported_from(node, file))


def imported_from(node: ast.ImportFrom, file: Path) -> list[str]:
    """`from tunneld import log` imports tunneld.log; `from tunneld.log import x` imports tunneld.log as well."""
    base = node.module or ""
    if node.level:
        package = module_of(file).split(".") if file.name == "__init__.py" else module_of(file).split(".")[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names] if base == "tunneld" else [base]


def test_every_file_has_a_room() -> None:
    """A new file beside the rooms is put into one, in the table above."""
    homeless = {module_of(file) for file in EVERYTHING if room_of(module_of(file)) not in {"", *ROWS}}
    assert not homeless


@pytest.mark.parametrize("file", EVERYTHING, ids=module_of)
def test_imports_run_one_way(file: Path) -> None:
    """cli, daemon, tunnel, the rooms below, core: never upwards."""
    room = room_of(module_of(file))
    allowed = {room, "", *ROWS.get(room, set())}
    wrong = [
        f"{file.relative_to(SOURCE)}:{line}: {room or 'tunneld'} must not import {name}"
        for line, name in imports_of(file)
        if name.split(".")[0] == "tunneld" and room_of(name) not in allowed and name != "tunneld.__version__"
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", SHIPPED, ids=module_of)
def test_what_is_shipped_uses_little(file: Path) -> None:
    """core has no clock, no sockets and no chance in it; what is sent has the standard library's small parts alone."""
    allowed = SENT_MAY_IMPORT if file in SENT else CORE_MAY_IMPORT
    assert allowed <= sys.stdlib_module_names
    wrong = [
        f"{file.relative_to(SOURCE)}:{line}: {name}"
        for line, name in imports_of(file)
        if name.split(".")[0] not in {"tunneld", *allowed}
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_imported_behind_our_back() -> None:
    """The walk above sees import statements; the shipped half has no other way to import."""
    for file in SHIPPED:
        names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
        assert not names & {"__import__", "import_module"}, file


def test_python_3_9_knows_all_that_is_shipped() -> None:
    """vermin looks for syntax and library calls that came later."""
    command = [
        sys.executable,
        "-c",
        "from vermin import main; main()",
        "-t=3.9-",
        "--no-tips",
        "--violations",
        *map(str, SHIPPED),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_python_3_9_imports_all_that_is_shipped() -> None:
    """A real Python 3.9 is the better judge, where there is one."""
    script = "import sys, importlib; sys.path.insert(0, sys.argv[1]); [*map(importlib.import_module, sys.argv[2:])]"
    command = [oldest_python(), "-I", "-B", "-W", "error", "-c", script, str(SOURCE), *map(module_of, SHIPPED)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_profiles_are_read_without_pydantic_in_memory() -> None:
    """The values outlive the validation: importing the package must not import the library."""
    script = "import sys, tunneld.profile; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_mosh_session_imports_nothing_slow_and_nothing_of_linux() -> None:
    """`tunneld mosh` runs on macOS as well, and a person waits for it: what others need is out of its reach."""
    script = (
        "import os, socket, sys\n"
        f"blocked = {[*SLOW, *NOT_EVERYWHERE]!r}\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"
        "for home, name in [(os, name) for name in dir(os)] + [(socket, name) for name in dir(socket)]:\n"
        f"    if name in {LINUX!r}: delattr(home, name)\n"
        "sys.platform = 'darwin'\n"
        "import tunneld.cli\n"
        "tunneld.cli._parser('mosh').parse_args(['mosh', 'x'])\n"
        "import tunneld.mosh.mosh_session, tunneld.cli.mosh_paths\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
