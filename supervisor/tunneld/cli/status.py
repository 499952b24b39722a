"""`tunneld status [NAME]`: what the running daemons say about their tunnels, and what to do about it."""

from __future__ import annotations

import argparse
import os
import socket
import stat
from pathlib import Path

from tunneld import runtime
from tunneld.cli.words import describe
from tunneld.core.lifecycle import State
from tunneld.errors import RightsError, UnavailableError
from tunneld.status import TunnelStatus, from_json, to_json

# Seconds for a daemon's answer, which takes milliseconds.
PATIENCE = 5.0

# Bytes of an answer at most; a tunnel with a thousand forwards says 200 KB.
LONGEST = 1 << 22

NOT_UP = 1


class NotRunningError(UnavailableError):
    """No daemon holds this tunnel."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not running; start it with `tunneld run {name}`")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a profile's name (all that run, if left out)")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each tunnel")


def run(args: argparse.Namespace) -> int:
    """0 when every tunnel asked for is up, 1 when one is not.

    Raises:
        UnavailableError: it does not run, or nothing does.
        RightsError: it runs as somebody else.
    """
    found = [ask(_find(args.name))] if args.name else _all()
    for status in found:
        print(to_json(status) if args.json else describe(status))
    return 0 if all(status.state is State.UP for status in found) else NOT_UP


def ask(path: Path) -> TunnelStatus:
    """The status that the daemon at this socket gives.

    Raises:
        NotRunningError: nobody listens there.
        UnavailableError: what is answered is no status.
        RightsError: we may not ask.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(PATIENCE)
            asking.connect(str(path))
            return from_json(_everything(asking))
    except PermissionError:
        raise RightsError(_not_ours(path.parent)) from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunningError(path.stem) from None
    except (OSError, ValueError) as error:
        raise UnavailableError(f"the daemon of {path.stem} gives no usable answer: {error}") from None


def running_status(name: str) -> TunnelStatus | None:
    """The status of this tunnel; None when no daemon holds it."""
    try:
        return ask(_find(name))
    except NotRunningError:
        return None


def _everything(asking: socket.socket) -> bytes:
    answer = bytearray()
    while len(answer) < LONGEST and (part := asking.recv(65536)):
        answer += part
    return bytes(answer)


def _find(name: str) -> Path:
    """The socket of this tunnel; a profile's path names it as well."""
    name = Path(name).name.removesuffix(".toml")
    for folder in runtime.directories():
        path = folder / f"{name}.sock"
        if path in _sockets(folder, path.name):
            return path
    hidden = [folder for folder in runtime.directories() if _is_hidden(folder)]
    raise RightsError(_not_ours(hidden[0])) if hidden else NotRunningError(name)


def _sockets(folder: Path, pattern: str = "*.sock") -> list[Path]:
    return [] if _is_hidden(folder) else sorted(folder.glob(pattern))


def _is_hidden(folder: Path) -> bool:
    """Whether there may be tunnels in it that we are not to see."""
    return folder.exists() and not os.access(folder, os.R_OK | os.X_OK)


def _not_ours(folder: Path) -> str:
    group = f", or as a member of the group {folder.group()}" if folder.stat().st_mode & stat.S_IXGRP else ""
    return f"the tunnels in {folder} are the user {folder.owner()}'s: ask as root{group}"


def _all() -> list[TunnelStatus]:
    """Every tunnel that runs; sockets of daemons that were killed are passed over."""
    folders = runtime.directories()
    paths = [path for folder in folders for path in _sockets(folder)]
    found = []
    for path in paths:
        try:
            found.append(ask(path))
        except NotRunningError:
            continue
    if not found and (hidden := list(filter(_is_hidden, folders))):
        raise RightsError(_not_ours(hidden[0]))
    if not found:
        looked = " and ".join(map(str, folders))
        raise UnavailableError(f"no tunnel is running (looked in {looked}); start one with `tunneld run NAME`")
    return found
