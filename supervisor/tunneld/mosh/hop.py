"""The way through a jump host as words for ssh, so that one login there serves the way and a command beside it.

ssh makes the hop of `-J` itself, by running another ssh as its ProxyCommand. We say that command in its place, with one
addition: it shares its connection (ControlMaster). Where people share connections already, theirs is used, and nothing
in ssh's words changes.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

PATIENCE = 5.0
"""Seconds for ssh to say what it is configured for, which takes it five milliseconds."""

CHOICE = re.compile(r"\s*proxy(jump|command)\s*[\s=]\s*(.*?)\s*", re.I | re.S)

PLACE = re.compile(r"(?:\[([^\]]*)\]|([^\[\]:]*))(?::(\d+))?")

NONE = "none"
SHARED = ("true", "yes", "auto")
ASKED_FOR = ("ask", "autoask")

ALONE = (
    *("-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "ClearAllForwardings=yes"),
    *("-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no"),
    *("-o", "ControlMaster=no", "-o", "ProxyCommand=false"),  # through the connection that is there, or not at all
)


class Hop(NamedTuple):
    """The first machine on the way and those behind it, each as words for ssh. `host` is where the first one is.

    `theirs`: the person's own ssh_config shares its connection. `asks`: it asks them each time, so we do not.
    """

    target: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]
    host: str
    config: tuple[str, ...]
    theirs: bool
    asks: bool


def find(destination: str, options: Sequence[str], said: Callable[[list[str]], dict[str, str]]) -> Hop | None:
    """The jump host on the way to `destination`; None where there is none, or not one of ssh's own kind.

    `said` answers for `ssh -G` with these words (see `configuration`).
    """
    jumps = _jumps(destination, options, said)
    if not jumps or any("%" in jump for jump in jumps):  # ssh has more to say about a `%r` than we know
        return None
    target, *others = map(_target, jumps)
    config = _config(options)
    settings = said([*config, *target])
    master = settings.get("controlmaster", "no")
    path = settings.get("controlpath", NONE)
    return Hop(
        target,
        tuple(others),
        settings.get("hostname", ""),
        config,
        theirs=path != NONE and (master in (*SHARED, *ASKED_FOR) or os.path.exists(path)),
        asks=path != NONE and master in ASKED_FOR,
    )


def configuration(words: list[str]) -> dict[str, str]:
    """What `ssh -G` says of these words, by keyword in small letters; nothing where it says nothing."""
    try:
        done = subprocess.run(
            ["ssh", "-G", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return {keyword: value for keyword, _, value in (line.partition(" ") for line in reversed(lines))}


def through(hop: Hop, options: Sequence[str], socket: str, *, beside: bool = False) -> list[str]:
    """`options` for an ssh to the destination whose first hop is a connection that is shared at `socket`.

    `beside`: nobody could answer a question of it.
    """
    if hop.theirs:
        return list(options)
    quiet = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"] if beside else []
    shares = ["-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o", f"ControlPath={_literal(socket)}", *quiet]
    command = _hop_command(hop, hop.target, shares)
    for target in hop.others:
        command = _hop_command(hop, target, ["-o", f"ProxyCommand={_literal(command)}", *quiet])
    return ["-o", f"ProxyCommand={command}", *_without_jump(options)]


def command_there(hop: Hop, socket: str, words: str) -> list[str]:
    """A command line that runs `words` on the jump host, through the connection that is shared at `socket`."""
    shared = [] if hop.theirs else ["-o", f"ControlPath={_literal(socket)}"]
    return ["ssh", *ALONE, *shared, *hop.config, *hop.target, words]


def _jumps(destination: str, options: Sequence[str], said: Callable[[list[str]], dict[str, str]]) -> list[str]:
    """What ProxyJump says."""
    for flag, value in pairwise(options):
        found = CHOICE.fullmatch(value) if flag == "-o" else None
        if found and found[1].lower() == "command":
            return []
        if found or flag == "-J":
            return _split(found[2] if found else value)
    return _split(said([*options, "--", destination]).get("proxyjump", NONE))


def _split(jumps: str) -> list[str]:
    return [] if jumps.lower() == NONE else [jump.strip() for jump in jumps.split(",")]


def _target(jump: str) -> tuple[str, ...]:
    """[USER@]HOST[:PORT] or a URI, as words at the end of ssh's line; ssh:// would take no IPv6 address."""
    if "://" in jump:
        return ("--", jump)
    user, at, place = jump.rpartition("@")
    found = PLACE.fullmatch(place)
    host, port = (found[1] or found[2], found[3]) if found else (place, None)
    return (*(("-l", user) if at else ()), *(("-p", port) if port else ()), "--", host)


def _config(options: Sequence[str]) -> tuple[str, ...]:
    """`-F FILE`, the one option that ssh passes on to a hop."""
    return next((("-F", file) for flag, file in pairwise(options) if flag == "-F"), ())


def _without_jump(options: Sequence[str]) -> list[str]:
    """ssh refuses a `-J` beside a ProxyCommand."""
    kept = list(options)
    while "-J" in kept:
        del kept[(place := kept.index("-J")) : place + 2]
    return kept


def _hop_command(hop: Hop, target: tuple[str, ...], options: list[str]) -> str:
    """As ssh itself would say it (ssh.c); `%h` and `%p` are the next machine's."""
    return shlex.join(["ssh", *map(_literal, hop.config), *options, "-W", "[%h]:%p", *map(_literal, target)])


def _literal(word: str) -> str:
    """Where ssh looks for `%`."""
    return word.replace("%", "%%")
