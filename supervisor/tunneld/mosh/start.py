"""The start of a session: ssh is on its way before the rest of the program is imported."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tunneld.core.stream.names import FIRST_STREAM
from tunneld.errors import UnavailableError
from tunneld.mosh import command_line, paths_socket, terminal
from tunneld.mosh.command_line import Order
from tunneld.mosh.jump_host import NONE, ConfigQuery
from tunneld.mosh.jump_route import JumpRoute
from tunneld.mosh.preconnect import Preconnect, has_shell, is_direct
from tunneld.mosh.ssh_process import SshProcess
from tunneld.shipped import pack


class Started(NamedTuple):
    """A session whose ssh is connecting.

    `environment` is mosh-client's, as far as this machine decides it. `agent_command` is what ssh runs on DEST.
    `settings` is what `ssh -G` says of DEST. `route` leads through a jump host, if there is one. `preconnect` is our
    connection to the first machine on the way, where ssh would make a plain TCP connection. `restore` makes the
    terminal what it was before ssh.
    """

    order: Order
    ssh: SshProcess
    environment: dict[str, str]
    agent_command: str
    settings: dict[str, str]
    route: JumpRoute | None
    preconnect: Preconnect | None
    restore: Callable[[], None]


def start(order: Order) -> Started:
    """Start ssh, which starts our agent on DEST.

    Raises:
        UnavailableError: mosh-client cannot run here, or there is no ssh.
    """
    restore = terminal.saved()
    query = _query(order)
    counting = terminal.ColorCount(order.client)
    environment = {**os.environ, **terminal.charset(os.environ)}
    request = command_line.agent_request(order, colors=counting.colors(), environment=os.environ)
    agent_command = pack.mosh_agent_command(request)
    settings = query.settings()
    route = _route(order, settings)
    preconnect = _preconnect(route.first_settings if route else settings)
    try:
        ssh = first_ssh(order, agent_command, route, preconnect.options if preconnect else ())
    except OSError as error:  # the command line may also be longer than this system allows
        if route:
            route.close()
        if preconnect:
            preconnect.close()
        raise _no_ssh(error) from None
    return Started(order, ssh, environment, agent_command, settings, route, preconnect, restore)


def first_ssh(order: Order, agent_command: str, route: JumpRoute | None, connects: Sequence[str]) -> SshProcess:
    """The one ssh that may ask the person; `connects` are options for its connection to the first machine."""
    if route:
        order, connects = order._replace(ssh=route.options(FIRST_STREAM, first=connects)), ()
    return SshProcess(FIRST_STREAM, command_line.ssh_command(order, agent_command, connects), on_terminal=True)


def later_order(order: Order, route: JumpRoute | None, name: str) -> Order:
    """The order for the ssh of a later stream; on a route, our agent on the jump host can use its login as well."""
    return order._replace(ssh=route.options(name, unattended=True)) if route else order


def _query(order: Order) -> ConfigQuery:
    try:
        return ConfigQuery([*order.ssh, "--", order.destination])
    except OSError as error:
        raise _no_ssh(error) from None


def _no_ssh(error: OSError) -> UnavailableError:
    hint = "; install OpenSSH's client" if isinstance(error, FileNotFoundError) else ""
    return UnavailableError(f"ssh cannot be run: {error.strerror}{hint}")


def _route(order: Order, settings: Mapping[str, str]) -> JumpRoute | None:
    if not order.udp or settings.get("proxyjump", NONE) == NONE:
        return None
    return JumpRoute(order.ssh, settings)


def _preconnect(settings: Mapping[str, str]) -> Preconnect | None:
    with contextlib.suppress(OSError):
        return Preconnect(settings, paths_socket.prepare()) if is_direct(settings) and has_shell(os.environ) else None
    return None
