"""Packs our programs for machines where nothing of ours is installed. Of this folder, this file alone is never sent.

A command line carries a one-liner of Python. It reads the program's source text from standard input, or holds the text
itself where that is short. Nothing is written to the other machine's disk, and any login shell passes the command on
unchanged: it holds no `$`, `!`, backslash or backquote.
"""

from __future__ import annotations

import ast
import io
import tokenize
import zlib
from base64 import b64encode
from collections.abc import Container, Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

OLDEST_PYTHON = (3, 9)

NO_PYTHON = 127
"""Exit status of a shell that finds no `python3` (POSIX sh, "Exit Status for Commands")."""

NO_JOIN_SOCKET = 69
"""Exit status of a rejoin program that finds no agent behind the join socket: it has ended (EX_UNAVAILABLE of
sysexits.h)."""

OTHER_MACHINE = 68
"""Exit status of a rejoin program that runs on a machine of another name (EX_NOHOST): the name that ssh went to may
stand for several machines."""

_MODULE_MAKER = """
import sys
def module(name, source):
    parent, _, child = name.rpartition(".")
    if parent and parent not in sys.modules:
        module(parent, "")
    made = sys.modules[name] = type(sys)(name)
    made.__path__ = []
    exec(compile(source, "<" + name + ">", "exec", dont_inherit=True, optimize=2), made.__dict__)
    if parent:
        setattr(sys.modules[parent], child, made)
"""
"""Begins a program of several modules: `module` makes one of them from its text, as an import would."""

_FIRST_MODULE = "shipped.start_mosh_server"
"""The module that is the mosh agent's first stage."""

_EARLY_MODULES = tuple(f"core.stream.{name}" for name in ("flow", "frame", "queue", "window", "carrier", "choice"))
"""Modules of the second stage that are sent with the first.

A TCP connection that was idle sends some 14 kB and then waits for an acknowledgement. When it has sent that much with
the command, it may send twice as much in the next flight, as soon as the other machine takes input; that is enough for
the rest."""

_FIRST_STAGE = """
stage = sys.modules["tunneld.shipped.start_mosh_server"]
running = stage.begin(stage.Wanted(**{wanted!r}))
exec(zlib.decompress(early))
import {imports}
secret, rest = stage.rest(running)
exec(zlib.decompress(rest))
sys.modules["tunneld.shipped.mosh_agent"].main(secret, running)
"""
"""Starts mosh-server. While the second stage is under way, this makes the early modules and imports what the rest
needs; then it runs that."""

_LATE_IMPORTS = (
    "bisect, collections, contextlib, errno, fcntl, hashlib, hmac, heapq, ipaddress, math, re, selectors, signal, "
    "socket, stat"
)
"""What the second stage imports of the standard library, except for what the early modules import."""

_JOIN = """
import os, socket, sys
agent = socket.socket(socket.AF_UNIX)
try:
    agent.connect({path!r})
except OSError:
    sys.exit({status})
socket.send_fds(agent, [{words}], [0, 1])
os.dup2(agent.fileno(), 0)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.execvp("cat", ["cat"])
"""
"""Passes its standard streams to an agent. Then it only has to stay until the agent or the SSH session ends, for which
the smallest program will do."""


@cache
def ingress_agent_program() -> bytes:
    """The relay's agent as a compressed program, for `command`."""
    return _program("shipped.ingress_agent")


def mosh_agent_command(wanted: Mapping[str, Any]) -> str:
    """The command line of the mosh agent's first stage. `wanted` are the arguments of start_mosh_server.Wanted.

    Every user of that machine may read a command line, so nothing secret is in it.
    """
    first = _FIRST_STAGE.format(wanted=dict(wanted), imports=_LATE_IMPORTS)
    stage = _compressed(_MODULE_MAKER + _module(_FIRST_MODULE) + first)
    text = b64encode(stage + _compressed("\n".join(map(_module, _EARLY_MODULES)))).decode()
    return _one_liner(
        f"z=zlib.decompressobj();first=z.decompress(binascii.a2b_base64('{text}'));early=z.unused_data;exec(first)"
    )


def mosh_agent_program(secret: bytes) -> bytes:
    """What the first stage reads from standard input: the secret, then the second stage with its length before it. The
    stream's frames may follow at once."""
    rest = _compressed(_modules("shipped.mosh_agent", without={_FIRST_MODULE, *_EARLY_MODULES}))
    return secret + len(rest).to_bytes(4, "big") + rest


def jump_agent_program(*arguments: object) -> bytes:
    """The jump host's agent as a compressed program, for `command`. `arguments` are those of jump_agent.main."""
    return _program("shipped.jump_agent", *arguments)


def join_program(path: str, name: str) -> bytes:
    """A compressed program that passes its standard streams to the agent whose join socket is `path`, as the stream
    `name`."""
    return _compressed(_JOIN.format(path=path, words=repr(name.encode()), status=NO_JOIN_SOCKET))


def rejoin_program(path: str, name: str, host: str) -> bytes:
    """The same for a mosh agent on `host`, which also hears this session's SSH_CONNECTION.

    The program exits with NO_JOIN_SOCKET or OTHER_MACHINE when it finds no agent.
    """
    words = f"{name.encode()!r} + b'\\0' + os.environb.get(b'SSH_CONNECTION', b'')"
    status = f"{NO_JOIN_SOCKET} if os.uname().nodename == {host!r} else {OTHER_MACHINE}"
    return _compressed(_JOIN.format(path=path, words=words, status=status))


def end_predecessor_program(*arguments: object) -> bytes:
    """The takeover as a compressed program, for `whole_command`. `arguments` are those of end_predecessor.main."""
    return _program("shipped.end_predecessor", *arguments)


@cache
def shipped(name: str) -> tuple[str, ...]:
    """A module of ours and all modules of ours that it imports, each after those that it needs.

    Names are dotted and start below the package: `core.stream.frame`. Only imports of the form `from tunneld.x import`
    count, at a module's top level. Any other import of a module of ours would fail on the other machine; a test in
    tests/shipped/test_pack.py finds such imports.
    """
    order: list[str] = []
    for needed in _imports(ast.parse(_source(name))):
        order += [each for each in shipped(needed) if each not in order]
    return (*order, name)


def command(program: bytes) -> str:
    """The command line that reads a compressed program from standard input and runs it.

    Not a byte more is read, so what the program itself reads may follow at once.
    """
    return _one_liner(f"exec(zlib.decompress(io.BufferedReader(io.FileIO(0,closefd=0),1).read({len(program)})))")


def whole_command(program: bytes) -> str:
    """The command line that holds a compressed program and runs it.

    This saves a round trip: standard input waits until the other machine has accepted the command.
    """
    return _one_liner(f"exec(zlib.decompress(binascii.a2b_base64('{b64encode(program).decode()}')))")


def _one_liner(python: str) -> str:
    """The command line for Python code, in which `io`, `sys`, `binascii` and `zlib` are imported.

    With `-I` and `-S`, neither that user's environment nor their site packages can change what runs.
    """
    oldest = ", ".join(map(str, OLDEST_PYTHON))
    one_liner = (
        "import binascii,io,sys,zlib;"
        f"sys.version_info>=({oldest}) or sys.exit("
        f"'tunneld needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer here, and found '+sys.version.split()[0]);"
        f"{python}"
    )
    return f'exec python3 -ISc "{one_liner}"'


def _program(name: str, *arguments: object) -> bytes:
    """A module of ours with all that it needs, whose `main` is called with `arguments`, which are plain data."""
    return _compressed(f"{_MODULE_MAKER}{_modules(name)}\nsys.modules['tunneld.{name}'].main{arguments!r}")


def _modules(name: str, *, without: Container[str] = ()) -> str:
    """The text that makes a module of ours and those that it needs, without the ones that are there already."""
    return "\n".join(map(_module, (each for each in shipped(name) if each not in without)))


@cache
def _module(name: str) -> str:
    """The text that makes one module of ours. It takes milliseconds, and a daemon needs some for each session."""
    return f"module({'tunneld.' + name!r}, {_without_prose(_source(name))!r})"


def _imports(tree: ast.Module) -> Iterator[str]:
    """The modules of ours that a module imports, in the order of its import statements."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tunneld":
            origin = node.module.partition(".")[2]
            members = [f"{origin}.{alias.name}" for alias in node.names]
            yield from (member if _file(member).is_file() else origin for member in members)


def _file(name: str) -> Traversable:
    *packages, module = name.split(".")
    return files("tunneld").joinpath(*packages, f"{module}.py")


def _source(name: str) -> str:
    return _file(name).read_text("utf-8")


def _without_prose(source: str) -> str:
    """The same program without docstrings and lines that are comments. They are two thirds of a module, and every 14 kB
    cost a round trip at the start.

    Every statement stays on its line, so that a traceback names the right one.
    """
    lines = source.splitlines(keepends=True)
    for start, end, statement in [*_docstrings(ast.parse(source)), *_comments(source)]:
        lines[start - 1 : end] = [f"{statement}\n", *["\n"] * (end - start)]
    return "".join(lines)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, int, str]]:
    """First and last line of each string that is a statement, and what takes its place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            # A docstring may be all that a body has; at the top level no statement may precede `from __future__`.
            idle = " " * node.col_offset + "0" if node.col_offset else ""
            yield node.lineno, node.end_lineno or node.lineno, idle


def _comments(source: str) -> Iterator[tuple[int, int, str]]:
    """The same for each line that is nothing but a comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            yield token.start[0], token.start[0], ""


def _compressed(program: str) -> bytes:
    return zlib.compress(program.encode(), 9)
