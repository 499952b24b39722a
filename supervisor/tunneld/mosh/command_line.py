"""The command lines that `tunneld mosh` makes of a person's order: those of ssh, mosh-server and mosh-client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LOCALE = (
    *("LANG", "LANGUAGE", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY", "LC_MESSAGES"),
    *("LC_PAPER", "LC_NAME", "LC_ADDRESS", "LC_TELEPHONE", "LC_MEASUREMENT", "LC_IDENTIFICATION", "LC_ALL"),
)
"""Environment variables that mosh-server gets from here, the same as from the `mosh` script."""

PREDICTIONS = ("adaptive", "always", "never", "experimental")
"""Values of mosh's `--predict`: when mosh-client shows what is typed before the far side has answered."""

FORWARDS_NOTHING = ("-T", "-a", "-x", "-o", "ClearAllForwardings=yes")
"""ssh opens no terminal and no forward: its connection may be replaced at any time, and there may be two at once."""

ONE_PURPOSE = (
    # ssh uses a master of the user's, and becomes none itself: a master stays until its last client has ended.
    *("-o", "ControlMaster=no"),
    *("-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no", "-o", "EscapeChar=none"),
)
"""ssh ignores settings of ssh_config that are meant for people who work in ssh itself."""

UNATTENDED = (
    *("-o", "BatchMode=yes"),  # mosh-client has the terminal: nobody could answer ssh's questions
    *("-o", "ConnectTimeout=10", "-o", "ConnectionAttempts=1"),  # tunneld itself tries again
    *("-o", "LogLevel=ERROR"),  # tunneld wants to know why a login failed, whatever ssh_config says
)
"""ssh's options at each machine on the way, for every connection that is made while the session already runs."""

UNATTENDED_AT_DEST = (*UNATTENDED, "-o", "ControlPath=none")
"""The same at DEST, where each of these connections needs a TCP connection of its own."""


class Order(NamedTuple):
    """What a person wants.

    `ssh` are options for ssh, `ports` is mosh-server's `-p`, and `stun` are (host, port) pairs of STUN servers.
    `relay_ports` are the first and the last UDP port that our agent on a jump host may use; (0, 0) stands for any.
    `overwrites` and `initialises` are mosh's `--predict-overwrite` and the opposite of its `--no-init`.
    """

    destination: str
    command: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    ports: str | None = None
    server: str = "mosh-server"
    client: str = "mosh-client"
    prediction: str | None = None
    overwrites: bool = False
    initialises: bool = True
    udp: bool = True
    stun: tuple[tuple[str, int], ...] = ()
    relay_ports: tuple[int, int] = (0, 0)

    @property
    def host(self) -> str:
        """DEST in messages to people: without the user and without `ssh://`."""
        return self.destination.removeprefix("ssh://").rpartition("@")[2]


def ssh_command(order: Order, command: str, also: Sequence[str] = (), *, unattended: bool = False) -> list[str]:
    """ssh's whole command line, which runs `command` on DEST.

    ssh takes the first of several values of an option, so ours come before the person's. `unattended`: the connection
    is made while the session runs, so ssh must not ask anything.
    """
    quiet = UNATTENDED_AT_DEST if unattended else ()
    return ["ssh", *FORWARDS_NOTHING, *ONE_PURPOSE, *quiet, *also, *order.ssh, "--", order.destination, command]


def without_touch(settings: Mapping[str, str]) -> tuple[str, ...]:
    """ssh's options that leave out security keys (`sk-` key types); `settings` is what `ssh -G` says.

    While a session runs, a security key would blink and nobody would know why, or it would take a touch that was meant
    for something else. BatchMode alone does not keep ssh from using one.
    """
    kinds = settings.get("pubkeyacceptedalgorithms", settings.get("pubkeyacceptedkeytypes", ""))
    kept = ",".join(kind for kind in kinds.split(",") if "sk-" not in kind)
    if kept == kinds:
        return ()
    return "-o", f"PubkeyAcceptedKeyTypes={kept}" if kept else "PubkeyAuthentication=no"


def agent_request(order: Order, *, colors: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """What our agent on DEST is asked to start. Every user of DEST can read it, as they can mosh-server's arguments."""
    return {
        "server": order.server,
        "command": list(order.command) or None,
        "colors": colors,
        "locale": {name: environment[name] for name in LOCALE if name in environment},
        "ports": order.ports,
        "udp": order.udp,
    }


def client_command(order: Order, address: str, port: int) -> list[str]:
    """mosh-client's command line; the words behind `-#` are for people who look at a list of processes."""
    return [order.client, "-#", f"tunneld mosh {order.destination} |", address, str(port)]


def client_environment(order: Order, key: str, environment: Mapping[str, str]) -> dict[str, str]:
    """mosh-client's environment: `environment`, the session's key, and what the order says."""
    made = {**environment, "MOSH_KEY": key}
    if order.prediction:
        made["MOSH_PREDICTION_DISPLAY"] = order.prediction
    if order.overwrites:
        made["MOSH_PREDICTION_OVERWRITE"] = "yes"
    if not order.initialises:
        made["MOSH_NO_TERM_INIT"] = "1"
    return made
