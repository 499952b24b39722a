"""Starting mosh-server on the loopback, and putting into words why it does not start."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

SHELL = "/bin/sh"

PATIENCE = 15.0
"""Seconds for mosh-server, or what stands before it, to say its key: it takes 10 ms."""

MAX_WORDS = 64 * 1024
"""Bytes to read of what it says."""

MAX_ARGUMENTS = 256
MAX_LOCALE = 32

ELSEWHERE = (
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/opt/local/bin",
    "/usr/pkg/bin",
    "~/.nix-profile/bin",
    "~/.local/bin",
)
"""Where package managers put mosh-server; what sshd starts without a login shell seldom looks there (Homebrew's)."""

LAST_RESORT = ("C.UTF-8", "en_US.UTF-8")
"""Character types that most machines have, for one that has neither a UTF-8 locale of its own nor the client's."""

COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python puts into LC_CTYPE where it finds the C locale (PEP 538); mosh-server shall see what sshd gave us."""

IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT)
"""Signals that Python ignores, or the far agent: that must not be so in somebody's shell."""

FOUND = re.compile(rb"^MOSH CONNECT (\d{1,5}) ([A-Za-z0-9+/]{22})\s*$", re.M)
DETACHED = re.compile(rb"mosh-server detached, pid = (\d{1,10})\]")
LOCALE_NAME = re.compile(r"LANG(UAGE)?|LC_[A-Z]{1,20}")
PORTS = re.compile(r"\d{1,5}(:\d{1,5})?")


class Refused(Exception):
    """mosh-server does not run; `code` is for programs, the text a sentence for whoever wanted it."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Request(NamedTuple):
    """What the client wants: `server` is a shell's words, `command` what runs in the terminal (None: a login shell)."""

    family: int
    command: Sequence[str] | None
    colors: int
    locale: dict[str, str]
    ports: str | None
    server: str


class Running(NamedTuple):
    """`pid` is None where mosh-server did not say it."""

    port: int
    key: str
    pid: int | None


def read(body: dict[str, Any]) -> Request:
    """The request in a SERVE.

    Raises:
        Refused: it makes no sense.
    """
    request = Request(
        family=body.get("family", 4),
        command=body.get("command"),
        colors=body.get("colors", 256),
        locale=body.get("locale", {}),
        ports=body.get("ports"),
        server=body.get("server", "mosh-server"),
    )
    if not (
        request.family in (4, 6)
        and (request.command is None or (_are_words(request.command) and 0 < len(request.command) <= MAX_ARGUMENTS))
        and type(request.colors) is int
        and isinstance(request.locale, dict)
        and len(request.locale) <= MAX_LOCALE
        and _are_words([*request.locale.values()])
        and all(map(LOCALE_NAME.fullmatch, request.locale))
        and (request.ports is None or (_are_words([request.ports]) and PORTS.fullmatch(request.ports)))
        and _are_words([request.server])
    ):
        raise Refused("bad-request", "the request for mosh-server makes no sense")
    return request


def start(request: Request, host: str) -> Running:
    """Start it, bound to `host`; it leaves our process tree by itself.

    Raises:
        Refused: it could not be started.
    """
    server = _find(request.server)
    try:
        return _start(request, server, host, request.locale)
    except Refused as refused:
        if refused.code != "no-utf8":
            raise
        for charset in LAST_RESORT:
            with contextlib.suppress(Refused):
                return _start(request, server, host, {"LC_CTYPE": charset})
        raise


def _start(request: Request, server: str, host: str, locale: dict[str, str]) -> Running:
    arguments = ["new", "-i", host, "-c", str(request.colors)]
    for name, value in locale.items():
        arguments += ["-l", f"{name}={value}"]
    if request.ports:
        arguments += ["-p", request.ports]
    if request.command:
        arguments += ["--", *request.command]
    pid, said = _run([SHELL, "-c", f'{server} "$@"', SHELL, *arguments])
    connect, detached = FOUND.search(said), DETACHED.search(said)
    if connect:
        return Running(int(connect[1]), connect[2].decode(), int(detached[1]) if detached else None)
    raise _refusal(request.server, said.decode("utf-8", "replace"), _status(pid))


def _run(command: list[str]) -> tuple[int, bytes]:
    """Its process, and what it said until it had said enough or left."""
    ours, theirs = os.pipe()
    pid = os.posix_spawn(
        command[0],
        command,
        _environment(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, theirs, 1),
            (os.POSIX_SPAWN_DUP2, theirs, 2),
        ],
        setsigdef=IGNORED,
    )
    os.close(theirs)
    end = time.monotonic() + PATIENCE
    said = b""
    while len(said) < MAX_WORDS and not (FOUND.search(said) and DETACHED.search(said)):
        if not select.select([ours], [], [], max(0.0, end - time.monotonic()))[0]:
            break
        data = os.read(ours, 4096)
        said += data
        if not data:
            break
    os.close(ours)
    return pid, said


def _status(pid: int) -> int | None:
    """How it ended; None if it had to be ended."""
    for _ in range(100):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _environment() -> dict[str, str]:
    """Ours, as it was before Python looked at it."""
    environment = dict(os.environ)
    if environment.get("LC_CTYPE") in COERCED:
        try:
            with open("/proc/self/environ", "rb") as file:
                was_there = any(line.startswith(b"LC_CTYPE=") for line in file.read().split(b"\0"))
        except OSError:
            was_there = False  # the client's own locale is tried anyway
        if not was_there:
            del environment["LC_CTYPE"]
    return environment


def _find(server: str) -> str:
    """A bare word that PATH does not know is looked for where package managers put it."""
    if not re.fullmatch(r"[\w.+-]+", server):
        return server
    for folder in os.get_exec_path():
        if os.access(f"{folder}/{server}", os.X_OK):
            return server
    for folder in map(os.path.expanduser, ELSEWHERE):
        if os.access(f"{folder}/{server}", os.X_OK):
            return "'" + f"{folder}/{server}".replace("'", "'\\''") + "'"
    return server


def _refusal(server: str, said: str, status: int | None) -> Refused:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if status is None:
        return Refused("mosh-server", f"{server} said nothing for {PATIENCE:g} seconds there")
    if status == 127 or status == 126:
        return Refused("no-mosh-server", f"{server} cannot be run there: install mosh on that machine")
    if "UTF-8 native locale" in said:
        return Refused(
            "no-utf8", "that machine has no UTF-8 locale, which mosh-server needs: generate one there (C.UTF-8 will do)"
        )
    return Refused("mosh-server", f"{server} there: {lines[-1][:200] if lines else f'exit status {status}'}")


def _are_words(values: object) -> bool:
    """Strings that may be an argument of a program: no zero bytes, no lone surrogates, none endless."""
    return isinstance(values, list) and all(
        isinstance(value, str) and len(value) <= 4096 and "\0" not in value and value.isprintable() for value in values
    )
