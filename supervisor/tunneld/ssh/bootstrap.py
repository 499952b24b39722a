"""Starting our programs on a machine where nothing of ours is installed.

The command line carries a one-liner, which reads the source text from standard input, or holds it where it is short:
nothing is written to the far disk, and any login shell passes the command on unchanged (it holds no `$`, `!`, backslash
or backquote).
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from functools import cache
from importlib.resources import files

SHIPPED = (
    "core.frame",
    "core.credit",
    "core.queue",
    "core.flow",
    "core.carrier",
    "core.choice",
    "core.endpoint",
    "agent",
)
"""The agent's modules under `tunneld`, each after those that it imports."""

OLDEST_PYTHON = (3, 9)

NO_PYTHON = 127
"""Exit status of a shell that finds no `python3`."""

_INSTALL = """
import sys, types
def module(name, source):
    made = sys.modules[name] = types.ModuleType(name)
    made.__path__ = []
    exec(compile(source, "<" + name + ">", "exec", dont_inherit=True, optimize=2), made.__dict__)
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, made)
"""

_JOIN = """
import os, socket
door = socket.socket(socket.AF_UNIX)
door.connect({path!r})
socket.send_fds(door, [{name!r}], [0, 1])
# From here on this process only has to stay until the agent, or the session, ends: the smallest program does.
os.dup2(door.fileno(), 0)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.execvp("cat", ["cat"])
"""


@cache
def agent_program() -> bytes:
    """The agent as a program text, compressed."""
    lines = [_INSTALL, 'module("tunneld", "")', 'module("tunneld.core", "")']
    for name in SHIPPED:
        source = files("tunneld").joinpath(*name.split(".")[:-1], name.split(".")[-1] + ".py").read_text("utf-8")
        lines.append(f"module({'tunneld.' + name!r}, {source!r})")
    lines.append('sys.modules["tunneld.agent"].main()')
    return zlib.compress("\n".join(lines).encode(), 9)


def join_program(path: str, name: str) -> bytes:
    """A program that passes its standard streams to the agent behind `path`, as the stream `name`."""
    return zlib.compress(_JOIN.format(path=path, name=name.encode()).encode(), 9)


def claim_program(*arguments: object) -> bytes:
    """tunneld.claim as a program text, compressed, with its `main` called so."""
    source = files("tunneld").joinpath("claim.py").read_text("utf-8")
    return zlib.compress(f"{source}\nmain{arguments!r}\n".encode(), 9)


def command(program: bytes) -> str:
    """The command line that reads `program` from standard input and runs it."""
    return _one_liner(f"sys.stdin.buffer.read({len(program)})")


def whole_command(program: bytes) -> str:
    """The same with `program` in it, which saves waiting until the far side has accepted the command."""
    return _one_liner(f"binascii.a2b_base64('{b64encode(program).decode()}')")


def _one_liner(program: str) -> str:
    """`-I` and `-S`: neither the far user's environment nor their site packages have a say in what runs."""
    oldest = ", ".join(map(str, OLDEST_PYTHON))
    one_liner = (
        "import binascii,sys,zlib;"
        f"sys.version_info>=({oldest}) or sys.exit("
        f"'tunneld needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer here, and found '+sys.version.split()[0]);"
        f"exec(zlib.decompress({program}))"
    )
    return f'exec python3 -ISc "{one_liner}"'
