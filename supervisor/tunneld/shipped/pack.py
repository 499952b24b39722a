"""Packs our programs for a machine where nothing of ours is installed. This file alone of its folder stays here.

The command line carries a one-liner, which reads the source text from standard input, or holds it where it is short:
nothing is written to the far disk, and any login shell passes the command on unchanged (it holds no `$`, `!`, backslash
or backquote).
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
"""Exit status of a shell that finds no `python3`."""

NO_JOIN_SOCKET = 69
"""Exit status of a rejoin program whose far agent has ended (EX_UNAVAILABLE of sysexits.h)."""

OTHER_MACHINE = 68
"""Exit status of a rejoin program that finds itself on another machine (EX_NOHOST): one name may stand for several."""

_BEGINNING = """
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

_FIRST = "shipped.start_mosh_server"
"""The module that is a far agent's first stage."""

_EARLY = tuple(f"core.stream.{name}" for name in ("flow", "frame", "queue", "window", "carrier", "choice"))
"""Modules of the second stage that come with the first. A TCP connection that was idle sends some 14 kB and waits; when
it has sent so much with the command, it sends twice that, all the rest, at once when the far side takes input."""

_FIRST_STAGE = """
stage = sys.modules["tunneld.shipped.start_mosh_server"]
running = stage.begin(stage.Wanted(**{wanted!r}))
# The rest is under way: time for what it needs.
exec(zlib.decompress(early))
import {imports}
secret, rest = stage.rest(running)
exec(zlib.decompress(rest))
sys.modules["tunneld.shipped.mosh_agent"].main(secret, running)
"""

_LATER = (
    "bisect, collections, contextlib, errno, fcntl, hashlib, hmac, heapq, ipaddress, math, re, selectors, signal, "
    "socket, stat"
)
"""What the rest of the second stage imports of the standard library and its early modules do not."""

_JOIN = """
import os, socket, sys
door = socket.socket(socket.AF_UNIX)
try:
    door.connect({path!r})
except OSError:
    sys.exit({status})
socket.send_fds(door, [{words}], [0, 1])
# From here on this process only has to stay until the agent, or the session, ends: the smallest program does.
os.dup2(door.fileno(), 0)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.execvp("cat", ["cat"])
"""


@cache
def ingress_agent_program() -> bytes:
    """The agent as a program text, compressed."""
    return _packed(
        f"{_BEGINNING}{_modules('shipped.ingress_agent')}\nsys.modules['tunneld.shipped.ingress_agent'].main()"
    )


def mosh_agent_command(wanted: Mapping[str, Any]) -> str:
    """The command line of a far agent's first stage, with the arguments of mosh_server.Wanted, which are plain data.

    Any user there may read it: nothing secret is in it.
    """
    stage = _packed(_BEGINNING + _module(_FIRST) + _FIRST_STAGE.format(wanted=dict(wanted), imports=_LATER))
    text = b64encode(stage + _packed("\n".join(map(_module, _EARLY)))).decode()
    return _one_liner(
        f"z=zlib.decompressobj();first=z.decompress(binascii.a2b_base64('{text}'));early=z.unused_data;exec(first)"
    )


def mosh_agent_program(secret: bytes) -> bytes:
    """The secret, and the second stage with its length before it, for standard input; frames may follow at once."""
    rest = _packed(_modules("shipped.mosh_agent", without={_FIRST, *_EARLY}))
    return secret + len(rest).to_bytes(4, "big") + rest


def jump_agent_program(*arguments: object) -> bytes:
    """The agent for a jump host as a program text, compressed, with its `main` called so."""
    return _program("shipped.jump_agent", *arguments)


def join_program(path: str, name: str) -> bytes:
    """A program that passes its standard streams to the agent behind `path`, as the stream `name`."""
    return _packed(_JOIN.format(path=path, words=repr(name.encode()), status=NO_JOIN_SOCKET))


def rejoin_program(path: str, name: str, host: str) -> bytes:
    """The same for a far agent on `host`, which also hears how this SSH session came. Exits with NO_DOOR when it has
    ended."""
    words = f"{name.encode()!r} + b'\\0' + os.environb.get(b'SSH_CONNECTION', b'')"
    status = f"{NO_JOIN_SOCKET} if os.uname().nodename == {host!r} else {OTHER_MACHINE}"
    return _packed(_JOIN.format(path=path, words=words, status=status))


def end_predecessor_program(*arguments: object) -> bytes:
    """tunneld.shipped.end_predecessor as a program text, compressed, with its `main` called so."""
    return _program("shipped.end_predecessor", *arguments)


@cache
def shipped(name: str) -> tuple[str, ...]:
    """A module of ours and all that it imports, each after those that it needs.

    Names are dotted and start below the package: `core.stream.frame`. Only imports at a module's top level count; an
    import inside a function would fail on the far side (tests/test_house.py forbids them).
    """
    order: list[str] = []
    for needed in _imports(ast.parse(_source(name))):
        order += [each for each in shipped(needed) if each not in order]
    return (*order, name)


def command(program: bytes) -> str:
    """The command line that reads `program` from standard input and runs it. Not a byte more is read, so that what the
    program itself shall read may follow at once."""
    return _one_liner(f"exec(zlib.decompress(io.BufferedReader(io.FileIO(0,closefd=0),1).read({len(program)})))")


def whole_command(program: bytes) -> str:
    """The same with `program` in it, which saves waiting until the far side has accepted the command."""
    return _one_liner(f"exec(zlib.decompress(binascii.a2b_base64('{b64encode(program).decode()}')))")


def _one_liner(python: str) -> str:
    """`-I` and `-S`: neither the far user's environment nor their site packages have a say in what runs."""
    oldest = ", ".join(map(str, OLDEST_PYTHON))
    one_liner = (
        "import binascii,io,sys,zlib;"
        f"sys.version_info>=({oldest}) or sys.exit("
        f"'tunneld needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer here, and found '+sys.version.split()[0]);"
        f"{python}"
    )
    return f'exec python3 -ISc "{one_liner}"'


def _program(name: str, *arguments: object) -> bytes:
    return _packed(f"{_BEGINNING}{_modules(name)}\nsys.modules['tunneld.{name}'].main{arguments!r}")


def _modules(name: str, *, without: Container[str] = ()) -> str:
    """The text that makes this module of ours, and those that it needs."""
    return "\n".join(map(_module, (each for each in shipped(name) if each not in without)))


def _module(name: str) -> str:
    return f"module({'tunneld.' + name!r}, {_for_machines(_source(name))!r})"


def _imports(tree: ast.Module) -> Iterator[str]:
    """The modules of ours that a module imports, in the order of its import statements."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tunneld":
            origin = node.module.partition(".")[2]
            members = [f"{origin}.{alias.name}" for alias in node.names]
            yield from dict.fromkeys(member if _file(member).is_file() else origin for member in members)


def _file(name: str) -> Traversable:
    *packages, module = name.split(".")
    return files("tunneld").joinpath(*packages, f"{module}.py")


def _source(name: str) -> str:
    return _file(name).read_text("utf-8")


def _for_machines(source: str) -> str:
    """The same program without docstrings and whole lines of comment: two thirds of a module, and each 14 kB cost a
    round trip at the start. Every statement stays on its line, so that a traceback names the right one."""
    lines = source.splitlines(keepends=True)
    for start, end, statement in [*_docstrings(ast.parse(source)), *_comments(source)]:
        lines[start - 1 : end] = [f"{statement}\n", *["\n"] * (end - start)]
    return "".join(lines)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, int, str]]:
    """First and last line of each string that is a statement, and what stands in its place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            # A docstring may be all that a body has. At the top level nothing may stand before `from __future__`.
            idle = " " * node.col_offset + "0" if node.col_offset else ""
            yield node.lineno, node.end_lineno or node.lineno, idle


def _comments(source: str) -> Iterator[tuple[int, int, str]]:
    """The same of each line that is nothing but a comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            yield token.start[0], token.start[0], ""


def _packed(program: str) -> bytes:
    return zlib.compress(program.encode(), 9)
