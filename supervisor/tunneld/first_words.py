"""The first words of a far agent: mosh-server's key, or why there is none, said before the rest of it has arrived."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from tunneld import mosh_server
from tunneld.core import frame

PATIENCE = 15.0
"""Seconds for mosh-server, or what stands before it, to say its key: it takes 10 ms."""

PATIENCE_FOR_PID = 0.2
"""Seconds for it to say its process id, after the key."""

MAX_WORDS = 64 * 1024
"""Bytes to read of what it says."""

LAST_RESORT = ("C.UTF-8", "en_US.UTF-8")
"""Character types that most machines have, for one that has neither a UTF-8 locale of its own nor the client's."""

GREETING = frame.PREAMBLE + frame.message(frame.HELLO, {"versions": [frame.VERSION]}).encode()
"""How a stream begins."""

FOUND = re.compile(rb"^MOSH CONNECT (\d{1,5}) ([A-Za-z0-9+/]{22})\s*$", re.M)
DETACHED = re.compile(rb"mosh-server detached, pid = (\d{1,10})\]")


class Running(NamedTuple):
    """`pid` is None where mosh-server did not say it; `keeper` as of mosh_server.detach."""

    serve: Mapping[str, Any]
    keeper: int
    family: int
    port: int
    pid: int | None


class Refused(Exception):
    """mosh-server does not run; `code` is for programs, the text a sentence for whoever wanted it."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def say(serve: Mapping[str, Any], keeper: int, begun: tuple[int, int]) -> Running:
    """Greet, and say SERVING; `begun` is mosh-server as spawned on ::1. Exits when it cannot be had."""
    family, locales = 6, [{"LC_CTYPE": charset} for charset in LAST_RESORT]
    locale = serve.get("locale") or {}
    while True:
        try:
            port, key, pid = _hear(serve, *begun)
        except Refused as refused:
            if refused.code == "no-utf8" and locales:
                locale = locales.pop(0)
            elif refused.code == "mosh-server" and family == 6 and not _has_ipv6():
                family = 4
            else:
                _say({"error": str(refused), "code": refused.code})
                sys.exit()
            begun = mosh_server.spawn(serve, family, locale)
        else:
            ssh_connection = os.environ.get("SSH_CONNECTION", "")
            _say({"key": key, "pid": pid, "family": family, "ssh_connection": ssh_connection})
            return Running(serve, keeper, family, port, pid)


def program(running: Running) -> bytes:
    """The rest of the agent, from standard input: its length in four bytes, then that many. Not one more is read, since
    frames follow. Exits when the client has thought better of it."""
    source = io.BufferedReader(io.FileIO(0, closefd=False), 1)
    length = int.from_bytes(source.read(4), "big")
    text = source.read(length)
    if not text or len(text) < length:
        if running.pid:
            os.kill(running.pid, signal.SIGTERM)
        sys.exit()
    return text


def _say(body: dict[str, Any]) -> None:
    words = GREETING + frame.message(frame.SERVING, body).encode()
    try:
        while words:
            words = words[os.write(1, words) :]
    except OSError:
        sys.exit()  # nobody listens any more


def _hear(serve: Mapping[str, Any], process: int, pipe: int) -> tuple[int, str, int | None]:
    """The port, the key, and the process that mosh-server has become.

    Raises:
        Refused: it said something else, or nothing.
    """
    end = time.monotonic() + PATIENCE
    said = b""
    connect = detached = None
    while len(said) < MAX_WORDS and not (connect and detached):
        if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            break
        data = os.read(pipe, 4096)
        said += data
        if not data:
            break
        if connect is None and (connect := FOUND.search(said)):
            end = time.monotonic() + PATIENCE_FOR_PID
        detached = DETACHED.search(said)
    os.close(pipe)
    if connect is None:
        raise _refusal(serve.get("server") or "mosh-server", said.decode("utf-8", "replace"), _status(process))
    return int(connect[1]), connect[2].decode(), int(detached[1]) if detached else None


def _status(process: int) -> int | None:
    """How it ended; None if it had to be ended."""
    for _ in range(100):
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def _refusal(server: str, said: str, status: int | None) -> Refused:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if status is None:
        return Refused("mosh-server", f"{server} there does not say its key")
    if status in (126, 127):  # a shell's words for what cannot be run
        return Refused("no-mosh-server", f"{server} cannot be run there: install mosh on that machine")
    if "UTF-8 native locale" in said:
        return Refused(
            "no-utf8", "that machine has no UTF-8 locale, which mosh-server needs: generate one there (C.UTF-8 will do)"
        )
    return Refused("mosh-server", f"{server} there: {lines[-1][:200] if lines else f'exit status {status}'}")


def _has_ipv6() -> bool:
    import socket  # rarely asked, and not needed before

    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind((mosh_server.LOOPBACK[6], 0))
    except OSError:
        return False
    return True
