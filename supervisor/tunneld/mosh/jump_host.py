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
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tunneld.mosh.command_line import FORWARDS_NOTHING, IS_ITSELF, QUIET, without_touch

PATIENCE = 5.0
"""Seconds for ssh to say what it is configured for, which takes it five milliseconds."""

PLACE = re.compile(r"(?:\[([^\]]*)\]|([^\[\]:]*))(?::(\d+))?")

NONE = "none"
SHARED = ("true", "yes", "auto")
ASKED_FOR = ("ask", "autoask")

ALONE = (*FORWARDS_NOTHING, *IS_ITSELF, "-o", "BatchMode=yes", "-o", "ProxyCommand=false")
"""A command through the connection that is there, or not at all."""


class JumpHost(NamedTuple):
    """The first machine on the way and those behind it, each as words for ssh, and what `ssh -G` says of each of them.

    `theirs`: the person's own ssh_config shares its connection. `asks`: it asks them each time, so we do not.
    """

    target: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]
    settings: tuple[Mapping[str, str], ...]
    config: tuple[str, ...]
    theirs: bool
    asks: bool

    @property
    def host(self) -> str:
        """Where the first one is."""
        return self.settings[0].get("hostname", "")


def find(
    options: Sequence[str], destined: Mapping[str, str], said: Callable[[list[str]], dict[str, str]]
) -> JumpHost | None:
    """The jump host on the way that ssh would take with these options; None where there is none of ssh's own kind.

    `destined` is what `ssh -G` says of the destination, and `said` answers so for other words (see `configuration`).
    """
    jumps = [jump.strip() for jump in destined.get("proxyjump", NONE).split(",")]
    if jumps[0].lower() == NONE or any("%" in jump for jump in jumps):  # ssh knows more of a `%r` than we
        return None
    target, *others = map(_target, jumps)
    config = _config(options)
    settings = [said([*config, *each]) for each in (target, *others)]
    its = settings[0]
    master, path = its.get("controlmaster", "no"), its.get("controlpath", NONE)
    is_there = "%" in path or os.path.exists(path)  # an ssh that is older says it unexpanded
    return JumpHost(
        target,
        tuple(others),
        tuple(settings),
        config,
        theirs=path != NONE and (master in (*SHARED, *ASKED_FOR) or is_there),
        asks=path != NONE and master in ASKED_FOR,
    )


class ConfigQuery:
    """`ssh -G`, which says what ssh_config makes of these words; there is something else to do meanwhile.

    OSError: there is no ssh.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            ["ssh", "-T", "-G", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def settings(self) -> dict[str, str]:
        """By keyword in small letters; nothing where it says nothing."""
        with self._process as process:
            try:
                output, _ = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                return {}
        lines = output.decode("utf-8", "replace").splitlines()
        return {keyword: value for keyword, _, value in (line.partition(" ") for line in reversed(lines))}


def configuration(words: list[str]) -> dict[str, str]:
    """The same, at once."""
    try:
        return ConfigQuery(words).settings()
    except OSError:
        return {}


def through(
    hop: JumpHost, options: Sequence[str], socket: str, *, beside: bool = False, first: Sequence[str] = ()
) -> list[str]:
    """`options` for an ssh to the destination whose first hop is a connection that is shared at `socket`.

    `beside`: nobody could answer a question of it. `first` are more options for that hop.
    """
    if hop.theirs:
        return list(options)
    quiet = [[*QUIET, *without_touch(each)] if beside else [] for each in hop.settings]
    shares = ["-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o", f"ControlPath={_literal(socket)}", *quiet[0]]
    shares += map(_literal, first)
    command = _hop_command(hop, hop.target, shares)
    for target, silent in zip(hop.others, quiet[1:], strict=True):
        command = _hop_command(hop, target, ["-o", f"ProxyCommand={_literal(command)}", *silent])
    return ["-o", f"ProxyCommand={command}", *_without_jump(options)]


def command_there(hop: JumpHost, socket: str, words: str) -> list[str]:
    """A command line that runs `words` on the jump host, through the connection that is shared at `socket`."""
    shared = [] if hop.theirs else ["-o", f"ControlPath={_literal(socket)}"]
    return ["ssh", *ALONE, *shared, *hop.config, *hop.target, words]


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


def _hop_command(hop: JumpHost, target: tuple[str, ...], options: list[str]) -> str:
    """As ssh itself would say it (ssh.c); `%h` and `%p` are the next machine's."""
    return shlex.join(["ssh", *map(_literal, hop.config), *options, "-W", "[%h]:%p", *map(_literal, target)])


def _literal(word: str) -> str:
    """Where ssh looks for `%`."""
    return word.replace("%", "%%")
