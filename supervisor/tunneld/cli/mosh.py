"""`tunneld mosh DEST`: mosh to whatever ssh reaches, over whatever lies between."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from tunneld.errors import UnavailableError, UsageError
from tunneld.mosh.command_line import PREDICTIONS, Order

FAMILIES = {"all": (), "inet": ("-4",), "inet6": ("-6",)}

NO_AGENT = (
    "mosh cannot forward an SSH agent (nor X11): the session outlives the SSH connection that would carry it; "
    "start what needs the agent with `ssh -A`"
)

STUN_PORT = 3478
"""RFC 8489, section 18.6."""

FORWARDED = re.compile(r"\s*forward(agent|x11|x11trusted)[\s=]+(.*?)\s*", re.I)


def add(parser: argparse.ArgumentParser) -> None:
    parser.usage = "tunneld mosh [options] DEST [-- COMMAND ...]\n       tunneld mosh --paths [--json]"
    parser.add_argument(
        "destination", nargs="*", metavar="DEST", help="whatever ssh takes: a Host of ssh_config, USER@HOST, ssh://..."
    )
    _add_mosh(parser.add_argument_group("as for mosh"))
    _add_ssh(parser.add_argument_group("as for ssh"))
    paths = parser.add_argument_group("paths")
    paths.add_argument(
        "--stun", action="append", default=[], metavar="HOST[:PORT]", help="ask this server where the world sees us"
    )
    paths.add_argument(
        "--relay-ports", metavar="PORT[:PORT2]", help="UDP ports for our agent on a jump host; any, if not said"
    )
    paths.add_argument("--no-udp", action="store_true", help="stay inside the SSH connections")
    paths.add_argument("--paths", action="store_true", help="say which way your running sessions take, and why")
    paths.add_argument("--json", action="store_true", help="with --paths: a line of JSON for each session")


def _add_mosh(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-p", dest="ports", metavar="PORT[:PORT2]", help="mosh-server's UDP port, on its loopback")
    group.add_argument("--predict", choices=PREDICTIONS, metavar="WHEN", help=f"local echo: {', '.join(PREDICTIONS)}")
    group.add_argument("-a", dest="predict", action="store_const", const="always", help="--predict=always")
    group.add_argument("-n", dest="predict", action="store_const", const="never", help="--predict=never")
    group.add_argument("--predict-overwrite", action="store_true", help="predictions overwrite instead of inserting")
    group.add_argument("--no-init", action="store_true", help="do not send the terminal's initialization string")
    group.add_argument("--server", default="mosh-server", metavar="COMMAND", help="how to run mosh-server there")
    group.add_argument("--client", default="mosh-client", metavar="PATH", help="mosh-client here")
    group.add_argument("--family", choices=FAMILIES, default="all", metavar="FAMILY", help="inet, inet6 or all")
    group.add_argument("-4", dest="family", action="store_const", const="inet", help="ssh over IPv4 alone")
    group.add_argument("-6", dest="family", action="store_const", const="inet6", help="ssh over IPv6 alone")


def _add_ssh(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-P", "--ssh-port", metavar="PORT", help="ssh's -p, which mosh uses for something else")
    group.add_argument("-l", dest="login", metavar="USER", help="who to log in as")
    group.add_argument("-i", dest="identity", action="append", default=[], metavar="FILE", help="a key")
    group.add_argument("-J", dest="jump", metavar="HOST", help="the way there: [USER@]HOST[:PORT], several with commas")
    group.add_argument("-F", dest="config", metavar="FILE", help="another ssh_config")
    group.add_argument(
        "--ssh-option", action="append", default=[], metavar="OPTION", help="ssh's -o: `Compression=yes`, for example"
    )
    for flags in (("-A", "--forward-agent"), ("-X",), ("-Y",)):
        group.add_argument(*flags, action=Refuse, nargs=0, help=argparse.SUPPRESS)


class Refuse(argparse.Action):
    """An option that people know from ssh, and that cannot be."""

    def __call__(self, *arguments: Any) -> NoReturn:
        raise UsageError(NO_AGENT)


def run(args: argparse.Namespace) -> int:
    """mosh-client's exit status.

    Raises:
        UsageError: the arguments contradict each other, or make no sense.
        UnavailableError: something is missing, here or there.
    """
    if args.paths:
        from tunneld.cli.mosh_paths import show

        return show(args)
    order = order_of(args, os.environ.get("MOSH_PREDICTION_DISPLAY"))
    from tunneld.mosh.signal_pipe import Signals
    from tunneld.mosh.start import start

    with Signals() as signals:  # from here on there is something to clean up
        try:
            started = start(order)
        except UnavailableError:
            if (status := signals.status()) is None:
                raise
            return status  # what did not run may have ended because of the same signal
        from tunneld.mosh.mosh_session import MoshSession  # half of all that is imported: ssh connects meanwhile

        return MoshSession(started, signals).run()


def order_of(args: argparse.Namespace, prediction: str | None = None) -> Order:
    """What the command line asks for. `prediction` is what the environment says.

    Raises:
        UsageError: it makes no sense.
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
    words = [*FAMILIES[args.family]]
    for flag, value in single.items():
        words += [flag, value] if value is not None else []
    return (*words, *_each("-i", args.identity), *_each("-o", args.ssh_option))


def _each(flag: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (flag, value)]


def _check_option(option: str) -> None:
    found = FORWARDED.fullmatch(option)
    if found and found[2].lower() != "no":
        raise UsageError(NO_AGENT)


def _ports(text: str) -> str:
    """mosh's own rules: one port, 0 for any, or a range."""
    found = re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", text)
    if not found:
        raise UsageError(f"-p {text}: a port, or a range such as 60001:60010 (ssh's port is -P here)")
    low, high = int(found[1]), int(found[2] or found[1])
    if high > 65535 or (found[2] and not 0 < low <= high):
        raise UsageError(f"-p {text}: ports go from 1 to 65535, the lower one first")
    return text


def _relay_ports(text: str) -> tuple[int, int]:
    """The first and the last one."""
    found = re.fullmatch(r"(\d{1,5})(?:[:-](\d{1,5}))?", text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < low <= high <= 65535:
        raise UsageError(f"--relay-ports {text}: a port, or a range such as 60011:60020")
    return low, high


def _stun(text: str) -> tuple[str, int]:
    """`HOST`, `HOST:PORT`, `[ADDRESS]:PORT`."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::(\d{1,5}))?", text)
    port = int(found[3] or STUN_PORT) if found else 0
    if not found or not 0 < port <= 65535:
        raise UsageError(f"--stun {text}: HOST, HOST:PORT or [IPV6]:PORT")
    return found[1] or found[2], port
