"""`tunneld mosh DEST`: a mosh session to every machine that `ssh DEST` reaches."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from tunneld.core.destination import parse_port, split_host_port
from tunneld.errors import UnavailableError, UsageError
from tunneld.mosh.command_line import PREDICTIONS, Order

FAMILY_FLAGS = {"all": (), "inet": ("-4",), "inet6": ("-6",)}
"""Values of mosh's `--family`, and ssh's options for them."""

NO_AGENT = (
    "mosh cannot forward an SSH agent (nor X11): the session outlives the SSH connection that would carry it; "
    "start what needs the agent with `ssh -A`"
)

STUN_PORT = 3478
"""The usual port of a STUN server (RFC 8489, section 18.6)."""

FORWARDING = re.compile(r"\s*forward(agent|x11|x11trusted)[\s=]+(.*?)\s*", re.I)
"""An option of ssh_config(5) that forwards an agent or X11, and its value."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunneld mosh [options] DEST [-- COMMAND ...]\n       tunneld mosh --paths [--json]"
    parser.add_argument(
        "destination", nargs="*", metavar="DEST", help="as for ssh: a Host of ssh_config, USER@HOST, ssh://..."
    )
    _add_mosh(parser.add_argument_group("as for mosh"))
    _add_ssh(parser.add_argument_group("as for ssh"))
    paths = parser.add_argument_group("paths")
    paths.add_argument(
        "--stun", action="append", default=[], metavar="HOST[:PORT]", help="ask this STUN server for our public address"
    )
    paths.add_argument(
        "--relay-ports", metavar="PORT[:PORT2]", help="UDP ports that our agent on a jump host may use (default: any)"
    )
    paths.add_argument("--no-udp", action="store_true", help="send everything through the SSH connections")
    paths.add_argument(
        "--paths", action="store_true", help="show which path each of your running sessions uses, and why"
    )
    paths.add_argument("--json", action="store_true", help="with --paths: one line of JSON for each session")


def _add_mosh(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-p", dest="ports", metavar="PORT[:PORT2]", help="mosh-server's UDP port, on DEST's loopback")
    group.add_argument("--predict", choices=PREDICTIONS, metavar="WHEN", help=f"local echo: {', '.join(PREDICTIONS)}")
    group.add_argument("-a", dest="predict", action="store_const", const="always", help="--predict=always")
    group.add_argument("-n", dest="predict", action="store_const", const="never", help="--predict=never")
    group.add_argument("--predict-overwrite", action="store_true", help="predictions overwrite instead of inserting")
    group.add_argument("--no-init", action="store_true", help="do not send the terminal's initialization string")
    group.add_argument("--server", default="mosh-server", metavar="COMMAND", help="how to run mosh-server there")
    group.add_argument("--client", default="mosh-client", metavar="PATH", help="mosh-client here")
    group.add_argument("--family", choices=FAMILY_FLAGS, default="all", metavar="FAMILY", help="inet, inet6 or all")
    group.add_argument("-4", dest="family", action="store_const", const="inet", help="let ssh use IPv4 only")
    group.add_argument("-6", dest="family", action="store_const", const="inet6", help="let ssh use IPv6 only")


def _add_ssh(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-P", "--ssh-port", metavar="PORT", help="ssh's port (ssh's own -p is mosh-server's port here)")
    group.add_argument("-l", dest="login", metavar="USER", help="the user to log in as")
    group.add_argument("-i", dest="identity", action="append", default=[], metavar="FILE", help="a private key")
    group.add_argument(
        "-J", dest="jump", metavar="HOST", help="jump hosts on the way: [USER@]HOST[:PORT], with commas between several"
    )
    group.add_argument("-F", dest="config", metavar="FILE", help="use this ssh_config")
    group.add_argument(
        "--ssh-option", action="append", default=[], metavar="OPTION", help="ssh's -o: `Compression=yes`, for example"
    )
    for flags in (("-A", "--forward-agent"), ("-X",), ("-Y",)):
        group.add_argument(*flags, action=RefuseForwarding, nargs=0, help=argparse.SUPPRESS)


class RefuseForwarding(argparse.Action):
    """An option that people know from ssh and that mosh cannot have."""

    def __call__(self, *arguments: Any) -> NoReturn:
        raise UsageError(NO_AGENT)


def run(args: argparse.Namespace) -> int:
    """Run the session, or show the paths of those that run; gives the exit status, mosh-client's own for a session.

    Raises:
        UsageError: the arguments contradict each other, or make no sense.
        UnavailableError: a program is missing here or on DEST, or no session runs whose paths could be shown.
    """
    if args.paths:
        from tunneld.cli.mosh_paths import show

        return show(args)
    order = order_of(args, os.environ.get("MOSH_PREDICTION_DISPLAY"))
    from tunneld.mosh.signal_pipe import Signals
    from tunneld.mosh.start import start

    with Signals() as signals:  # from here on a signal must not end us: there is something to clean up
        try:
            started = start(order)
        except UnavailableError:
            if (status := signals.status()) is None:
                raise
            return status  # the program that could not run may have been ended by the same signal
        from tunneld.mosh.mosh_session import MoshSession  # half of all imports: ssh connects meanwhile

        return MoshSession(started, signals).run()


def order_of(args: argparse.Namespace, prediction: str | None = None) -> Order:
    """The order that the command line gives. `prediction` is the environment's MOSH_PREDICTION_DISPLAY.

    Raises:
        UsageError: the command line or `prediction` makes no sense.
    """
    words = [*args.destination, *args.command_line]
    if not words:
        raise UsageError("where to? `tunneld mosh DEST`, with whatever you would give to ssh as DEST")
    if args.json:
        raise UsageError("--json goes with --paths")
    destination, *command = words
    if not destination or destination.startswith("-"):
        raise UsageError(f"{destination!r} is no destination")
    for option in args.ssh_option:
        _check_option(option)
    if args.predict is None and prediction and prediction not in PREDICTIONS:
        raise UsageError(f"MOSH_PREDICTION_DISPLAY={prediction}: there are {', '.join(PREDICTIONS)}")
    return Order(
        destination=destination,
        command=tuple(command),
        ssh=_ssh_options(args),
        ports=_ports(args.ports) if args.ports is not None else None,
        server=args.server,
        client=args.client,
        prediction=args.predict,
        overwrites=args.predict_overwrite,
        initialises=not args.no_init,
        udp=not args.no_udp,
        stun=tuple(map(_stun, args.stun)),
        relay_ports=_relay_ports(args.relay_ports) if args.relay_ports is not None else (0, 0),
    )


def _ssh_options(args: argparse.Namespace) -> tuple[str, ...]:
    single = {"-F": args.config, "-p": args.ssh_port, "-l": args.login, "-J": args.jump}
    words = [*FAMILY_FLAGS[args.family]]
    for flag, value in single.items():
        words += [flag, value] if value is not None else []
    return (*words, *_each("-i", args.identity), *_each("-o", args.ssh_option))


def _each(flag: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (flag, value)]


def _check_option(option: str) -> None:
    found = FORWARDING.fullmatch(option)
    if found and found[2].lower() != "no":
        raise UsageError(NO_AGENT)


def _ports(text: str) -> str:
    """mosh's own -p: one port, 0 for any, or a range."""
    try:
        _port_range(text, lowest=0)
    except ValueError:
        raise UsageError(
            f"-p {text}: write a port or a range such as 60001:60010, the lower port first, none above 65535 "
            "(ssh's port is -P here)"
        ) from None
    return text


def _relay_ports(text: str) -> tuple[int, int]:
    """The first and the last port of the range."""
    try:
        return _port_range(text.replace("-", ":"))
    except ValueError:
        raise UsageError(
            f"--relay-ports {text}: write a port or a range such as 60011:60020, the lower port first, none above 65535"
        ) from None


def _port_range(text: str, *, lowest: int = 1) -> tuple[int, int]:
    """`PORT` (from `lowest`) or `PORT:PORT2` (both from 1).

    Raises:
        ValueError: this is neither.
    """
    low, colon, high = text.partition(":")
    if not colon:
        return (port := parse_port(low, lowest=lowest)), port
    first, last = parse_port(low), parse_port(high)
    if first > last:
        raise ValueError(f"{first} is above {last}")
    return first, last


def _stun(text: str) -> tuple[str, int]:
    """`HOST`, `HOST:PORT` or `[IPV6]:PORT`."""
    try:
        host, port = split_host_port(text)
        if not host:
            raise ValueError("no host")
        return host, STUN_PORT if port is None else parse_port(port)
    except ValueError:
        raise UsageError(f"--stun {text}: write HOST, HOST:PORT or [IPV6]:PORT, with a port from 1 to 65535") from None
