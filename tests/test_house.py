"""The house's rooms: who may import whom, and what the shipped half may use at all."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.oldest import oldest_python

SOURCE = Path(__file__).parents[1] / "supervisor"
PACKAGE = SOURCE / "tunneld"

# The floors, from the top down. A room may import rooms of lower floors alone. A new room, or a new file
# at the package's root, gets its place here.
FLOORS: tuple[set[str], ...] = (
    {"__main__"},
    {"cli"},
    {"daemon", "demo"},
    {"tunnel"},
    {"shim"},
    {"mosh", "ssh", "log"},
    {"systemd"},
    {"shipped", "status", "profile", "net"},
    {"core", "errors"},
)
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

SENT = sorted(set((PACKAGE / "shipped").glob("[!_]*.py")) - {PACKAGE / "shipped" / "pack.py"})
SHIPPED = [*sorted((PACKAGE / "core").rglob("*.py")), *SENT]
EVERYTHING = sorted(PACKAGE.rglob("*.py"))
MODULES = [file for file in EVERYTHING if not file.name.startswith("__")]
TESTS = Path(__file__).parent


def module_of(file: Path) -> str:
    """`tunneld.core.stream.frame`; a package's own file has the package's name."""
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room in which a module of ours lives, or the module itself at the root; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Each import in a file, wherever it stands, lazy and type-checking ones included: its line and full module."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, name) for name in imported_from(node, file))


def imported_from(node: ast.ImportFrom, file: Path) -> list[str]:
    """`from tunneld import log` imports tunneld.log, and so does `from tunneld.log import x`."""
    base = node.module or ""
    if node.level:
        package = module_of(file).split(".") if file.name == "__init__.py" else module_of(file).split(".")[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
    members = [f"{base}.{alias.name}" for alias in node.names]
    return [member if is_ours(member) else base for member in members] if base != "tunneld" else members


def is_ours(module: str) -> bool:
    return (SOURCE / module.replace(".", "/")).with_suffix(".py").is_file()


FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def test_every_room_has_a_floor() -> None:
    """A new folder, or a new file at the package's root, is put into the table above."""
    assert {room_of(module_of(file)) for file in EVERYTHING} - {""} == set(FLOOR_OF)


@pytest.mark.parametrize("file", EVERYTHING, ids=module_of)
def test_imports_run_downward(file: Path) -> None:
    """From a room to rooms on lower floors, and never upward, lazy and type-checking imports included."""
    room = room_of(module_of(file))
    lower = {each for each, floor in FLOOR_OF.items() if floor > FLOOR_OF.get(room, -1)}
    allowed = {room, "", *lower}
    wrong = [
        f"{file.relative_to(SOURCE)}:{line}: {room or 'tunneld'} must not import {name}"
        for line, name in imports_of(file)
        if name.split(".")[0] == "tunneld" and room_of(name) not in allowed and name != "tunneld.__version__"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_among_files() -> None:
    """Neither in the package nor in bench/, lazy and type-checking imports included."""
    files = {module_of(file): file for file in EVERYTHING}
    files |= {f"bench.{file.stem}": file for file in (SOURCE.parent / "bench").glob("*.py")}
    needs = {module: {name for _, name in imports_of(file) if name in files} for module, file in files.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_each_name_means_one_thing() -> None:
    """A stranger who reads the name of a file, a class or a constant finds one place for it.

    A leading underscore makes a name its file's own.
    """
    files = Counter(file.stem for file in EVERYTHING if file.name != "__init__.py")
    names = Counter(name for file in EVERYTHING for name in public_names(file))
    assert not {name for counted in (files, names) for name, times in counted.items() if times > 1}


def public_names(file: Path) -> Iterator[str]:
    """The classes and constants that a file defines."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for each in targets if isinstance(each, ast.Name) and is_constant(each.id))


def is_constant(name: str) -> bool:
    """In capitals, and neither private nor a type variable."""
    return name.isupper() and not name.startswith("_") and len(name) > 1


@pytest.mark.parametrize("file", MODULES, ids=module_of)
def test_each_module_says_where_it_is_tested(file: Path) -> None:
    """tests/ mirrors the package. A module without a mirrored file names the place in its docstring."""
    inside = file.relative_to(PACKAGE)
    if (TESTS / inside.parent / f"test_{file.name}").exists():
        return
    named = re.findall(r"tests/[\w/*]+(?:\.py)?", ast.get_docstring(ast.parse(file.read_text())) or "")
    assert named
    assert [place for place in named if not list(TESTS.parent.glob(place))] == []


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
