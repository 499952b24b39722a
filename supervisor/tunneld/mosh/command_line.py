"""The command lines of `tunneld mosh`: what a person ordered, as words for ssh, mosh-server and mosh-client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LOCALE = (
    *("LANG", "LANGUAGE", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY", "LC_MESSAGES"),
    *("LC_PAPER", "LC_NAME", "LC_ADDRESS", "LC_TELEPHONE", "LC_MEASUREMENT", "LC_IDENTIFICATION", "LC_ALL"),
)
"""Variables that mosh-server is told, as the `mosh` script tells them."""

PREDICTIONS = ("adaptive", "always", "never", "experimental")

FORWARDS_NOTHING = ("-T", "-a", "-x", "-o", "ClearAllForwardings=yes")
"""No terminal there, and nothing beside the stream: it may be rebuilt at any time, and twice at once."""

IS_ITSELF = (
    *("-o", "ControlMaster=no"),  # it uses a master of the user's, and is none, which would wait for its guests' ends
    *("-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no", "-o", "EscapeChar=none"),
)
"""What ssh_config may say for people who work in ssh itself."""

QUIET = (
    *("-o", "BatchMode=yes"),  # the terminal is mosh-client's: nobody could answer
    *("-o", "ConnectTimeout=10", "-o", "ConnectionAttempts=1"),  # we are the ones who try again
    *("-o", "LogLevel=ERROR"),  # we are the ones who want to know why not
)
"""How later connections are made, beside the running session, at each machine on the way."""

BESIDE = (*QUIET, "-o", "ControlPath=none")
"""And at DEST: a TCP connection of its own."""


class Order(NamedTuple):
    """What a person wants. `ssh` are options for ssh, `ports` is mosh-server's `-p`, `stun` are (host, port) pairs.

    `relay_ports` are the first and the last one that our agent on a jump host may use, (0, 0) any.
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
        """DEST for people: without user, scheme and port."""
        return self.destination.removeprefix("ssh://").rpartition("@")[2]


def ssh_command(order: Order, far_command: str, also: Sequence[str] = (), *, beside: bool = False) -> list[str]:
    """ssh's whole command line. ssh takes the first of several values of an option, so ours come first."""
    later = BESIDE if beside else ()
    return ["ssh", *FORWARDS_NOTHING, *IS_ITSELF, *later, *also, *order.ssh, "--", order.destination, far_command]


def without_touch(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Options that leave out security keys, given what `ssh -G` says: one would blink beside the running session for
    nobody, or get a touch that was meant for something else. BatchMode does not mind them."""
    kinds = settings.get("pubkeyacceptedalgorithms", settings.get("pubkeyacceptedkeytypes", ""))
    kept = ",".join(kind for kind in kinds.split(",") if "sk-" not in kind)
    if kept == kinds:
        return ()
    return "-o", f"PubkeyAcceptedKeyTypes={kept}" if kept else "PubkeyAuthentication=no"


def serve(order: Order, *, colors: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """What the far agent is asked for. Everybody on that machine can read it, as they can mosh-server's arguments."""
    return {
        "server": order.server,
        "command": list(order.command) or None,
        "colors": colors,
        "locale": {name: environment[name] for name in LOCALE if name in environment},
        "ports": order.ports,
        "udp": order.udp,
    }


def client_command(order: Order, address: str, port: int) -> list[str]:
    """mosh-client's command line; `-#` is for those who look at a list of processes."""
    return [order.client, "-#", f"tunneld mosh {order.destination} |", address, str(port)]


def client_environment(order: Order, key: str, environment: Mapping[str, str]) -> dict[str, str]:
    """mosh-client's environment: ours, and what the order says."""
    made = {**environment, "MOSH_KEY": key}
    if order.prediction:
        made["MOSH_PREDICTION_DISPLAY"] = order.prediction
    if order.overwrites:
        made["MOSH_PREDICTION_OVERWRITE"] = "yes"
    if not order.initialises:
        made["MOSH_NO_TERM_INIT"] = "1"
    return made
