"""The jump host on the way to DEST, and ssh's options that let several programs share one login there.

ssh makes the hop of `-J` itself: it runs another ssh as its ProxyCommand. We give it that command ourselves, with one
addition: the connection to the jump host is shared (ControlMaster), so that our agent starts there without a second
login. Where a person's ssh_config shares that connection already, theirs is used, and ssh's options stay as they are.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from tunneld.core.destination import parse_destination
from tunneld.mosh.command_line import FORWARDS_NOTHING, ONE_PURPOSE, UNATTENDED, without_touch

CONFIG_TIMEOUT = 5.0
"""Seconds for `ssh -G` to say what ssh is configured for, which takes it five milliseconds."""

NONE = "none"
"""ssh_config's word for a setting that is switched off."""

SHARED = ("true", "yes", "auto")
ASKED_FOR = ("ask", "autoask")
"""Values of ControlMaster that share a connection, and those with which ssh asks the person at each use."""

SHARED_ONLY = (*FORWARDS_NOTHING, *ONE_PURPOSE, "-o", "BatchMode=yes", "-o", "ProxyCommand=false")
"""ssh's options for a command that goes through the shared connection, and fails where there is none."""


class JumpHost(NamedTuple):
    """The first machine on the way (`target`) and the `others` behind it, each as words at the end of ssh's line.

    `settings` are what `ssh -G` says of each of them, and `config` is the person's `-F FILE`. `theirs`: the person's
    own ssh_config shares the connection. `asks`: ssh asks the person at each use of that connection, so our agent does
    not use it.
    """

    target: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]
    settings: tuple[Mapping[str, str], ...]
    config: tuple[str, ...]
    theirs: bool
    asks: bool

    @property
    def host(self) -> str:
        """The host name or address of the first machine."""
        return self.settings[0].get("hostname", "")


def find_jump_host(
    options: Sequence[str], destined: Mapping[str, str], query: Callable[[list[str]], dict[str, str]]
) -> JumpHost | None:
    """The jump host that ssh would go through with these options.

    None where ssh goes through no jump host, and where we cannot read its name: then ssh makes the hop itself, or says
    itself what is wrong.

    Args:
        destined: what `ssh -G` says of DEST.
        query: asks `ssh -G` about other words (see `configuration`).
    """
    jumps = destined.get("proxyjump", NONE).split(",")
    if jumps[0].strip().lower() == NONE or any("%" in jump for jump in jumps):  # only ssh knows what `%r` stands for
        return None
    try:
        target, *others = map(_target, jumps)
    except ValueError:
        return None
    config = _config(options)
    settings = [query([*config, *each]) for each in (target, *others)]
    first = settings[0]
    master, path = first.get("controlmaster", "no"), first.get("controlpath", NONE)
    may_exist = "%" in path or os.path.exists(path)  # older versions of ssh print the path with its `%` as written
    return JumpHost(
        target,
        tuple(others),
        tuple(settings),
        config,
        theirs=path != NONE and (master in (*SHARED, *ASKED_FOR) or may_exist),
        asks=path != NONE and master in ASKED_FOR,
    )


class ConfigQuery:
    """`ssh -G`, which says what ssh_config makes of a command line; it runs while the caller does something else."""

    def __init__(self, words: Sequence[str]) -> None:
        """
        Raises:
            OSError: there is no ssh.
        """
        self._process = subprocess.Popen(
            ["ssh", "-T", "-G", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def settings(self) -> dict[str, str]:
        """Each keyword, in small letters, with its first value; empty where ssh gives no answer."""
        with self._process as process:
            try:
                output, _ = process.communicate(timeout=CONFIG_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                return {}
        lines = output.decode("utf-8", "replace").splitlines()
        return {keyword: value for keyword, _, value in (line.partition(" ") for line in reversed(lines))}


def configuration(words: list[str]) -> dict[str, str]:
    """The settings that `ssh -G` gives for these words, waited for; empty where there is no ssh."""
    try:
        return ConfigQuery(words).settings()
    except OSError:
        return {}


def through(
    jump_host: JumpHost,
    options: Sequence[str],
    socket: str,
    *,
    unattended: bool = False,
    first: Sequence[str] = (),
) -> list[str]:
    """`options` changed for an ssh to DEST that shares its connection to the first jump host at `socket`.

    Args:
        unattended: nobody could answer a question of this ssh.
        first: more options for the connection to the first jump host.
    """
    if jump_host.theirs:
        return list(options)
    quiet = [[*UNATTENDED, *without_touch(each)] if unattended else [] for each in jump_host.settings]
    shares = ["-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o", f"ControlPath={_literal(socket)}", *quiet[0]]
    shares += map(_literal, first)
    command = _hop_command(jump_host, jump_host.target, shares)
    for target, its_quiet in zip(jump_host.others, quiet[1:], strict=True):
        command = _hop_command(jump_host, target, ["-o", f"ProxyCommand={_literal(command)}", *its_quiet])
    return ["-o", f"ProxyCommand={command}", *_without_jump(options)]


def command_there(jump_host: JumpHost, socket: str, command: str) -> list[str]:
    """A command line that runs `command` on the jump host, through the connection that is shared at `socket`."""
    shared = [] if jump_host.theirs else ["-o", f"ControlPath={_literal(socket)}"]
    return ["ssh", *SHARED_ONLY, *shared, *jump_host.config, *jump_host.target, command]


def _target(jump: str) -> tuple[str, ...]:
    """A jump host as words at the end of ssh's line. They are no `ssh://` URI, since ssh takes no IPv6 address in one.

    Raises:
        ValueError: this is not [USER@]HOST[:PORT], also as an `ssh://` URI.
    """
    user, host, port = parse_destination(jump)
    return (*(("-l", user) if user else ()), *(("-p", str(port)) if port else ()), "--", host)


def _config(options: Sequence[str]) -> tuple[str, ...]:
    """`-F FILE`, the one option that ssh passes on to a jump host's ssh."""
    return next((("-F", file) for flag, file in pairwise(options) if flag == "-F"), ())


def _without_jump(options: Sequence[str]) -> list[str]:
    """The options without `-J`, which ssh refuses beside a ProxyCommand."""
    kept = list(options)
    while "-J" in kept:
        del kept[(place := kept.index("-J")) : place + 2]
    return kept


def _hop_command(jump_host: JumpHost, target: tuple[str, ...], options: list[str]) -> str:
    """The ProxyCommand that ssh itself would run for this hop (ssh.c); ssh puts the next machine into `%h` and `%p`."""
    config = map(_literal, jump_host.config)
    return shlex.join(["ssh", *config, *options, "-W", "[%h]:%p", *map(_literal, target)])


def _literal(word: str) -> str:
    """The word for a place where ssh replaces what begins with `%`."""
    return word.replace("%", "%%")
