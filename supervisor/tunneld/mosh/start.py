"""The start of a session: ssh is on its way before the rest of the program is even imported."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tunneld.errors import UnavailableError
from tunneld.mosh import command_line, paths_socket, terminal
from tunneld.mosh.command_line import Order
from tunneld.mosh.jump_host import NONE, ConfigQuery
from tunneld.mosh.jump_route import JumpRoute
from tunneld.mosh.preconnect import Preconnect, has_shell, is_direct
from tunneld.mosh.ssh_process import SshProcess
from tunneld.shipped import pack

FIRST = "first"
"""The first stream's name, at both ends."""


class Started(NamedTuple):
    """`environment` is mosh-client's, but for what comes from the far side; `far` the command that runs there;
    `settings` are what ssh_config says; `way` is the one through a jump host, if there is one; `dial` our connection
    to the first machine on it, where ssh would just make one; `restore` makes the terminal what it was before ssh."""

    order: Order
    line: SshProcess
    environment: dict[str, str]
    far: str
    settings: dict[str, str]
    way: JumpRoute | None
    dial: Preconnect | None
    restore: Callable[[], None]


def start(order: Order) -> Started:
    """Start ssh, and with it the far agent.

    Raises:
        UnavailableError: mosh-client cannot run here, or there is no ssh.
    """
    restore = terminal.saved()
    asking = _ask(order)
    counting = terminal.ColorCount(order.client)
    environment = {**os.environ, **terminal.charset(os.environ)}
    far = pack.mosh_agent_command(command_line.serve(order, colors=counting.colors(), environment=os.environ))
    settings = asking.settings()
    way = _way(order, settings)
    dial = _dial(way.first if way else settings)
    try:
        line = first_line(order, far, way, dial.options if dial else ())
    except OSError as error:  # what is to run there may be longer than this system allows
        if way:
            way.close()
        if dial:
            dial.close()
        raise _no_ssh(error) from None
    return Started(order, line, environment, far, settings, way, dial, restore)


def first_line(order: Order, far: str, way: JumpRoute | None, connects: Sequence[str]) -> SshProcess:
    """The one ssh that may ask the person; `connects` are options for the connection to the first machine."""
    if way:
        order, connects = order._replace(ssh=way.options(FIRST, first=connects)), ()
    return SshProcess(FIRST, command_line.ssh_command(order, far, connects), on_terminal=True)


def beside(order: Order, way: JumpRoute | None, name: str) -> Order:
    """The order for a stream that joins later, by a way that a jump host's agent can come by as well."""
    return order._replace(ssh=way.options(name, beside=True)) if way else order


def _ask(order: Order) -> ConfigQuery:
    try:
        return ConfigQuery([*order.ssh, "--", order.destination])
    except OSError as error:
        raise _no_ssh(error) from None


def _no_ssh(error: OSError) -> UnavailableError:
    hint = "; install OpenSSH's client" if isinstance(error, FileNotFoundError) else ""
    return UnavailableError(f"ssh cannot be run: {error.strerror}{hint}")


def _way(order: Order, settings: Mapping[str, str]) -> JumpRoute | None:
    if not order.udp or settings.get("proxyjump", NONE) == NONE:
        return None
    return JumpRoute(order.ssh, settings)


def _dial(settings: Mapping[str, str]) -> Preconnect | None:
    with contextlib.suppress(OSError):
        return Preconnect(settings, paths_socket.prepare()) if is_direct(settings) and has_shell(os.environ) else None
    return None
