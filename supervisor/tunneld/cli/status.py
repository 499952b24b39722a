"""`tunneld status [NAME]`: what the running daemons say about their tunnels, and what the user can do."""

from __future__ import annotations

import argparse
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunneld.cli.services import Services, describe_service, service_line
from tunneld.core.supervise.lifecycle import State
from tunneld.daemon import run_folder
from tunneld.errors import RightsError, UnavailableError
from tunneld.status import json_socket
from tunneld.status.full import describe
from tunneld.status.snapshot import TunnelStatus, from_object, to_json

if TYPE_CHECKING:
    from tunneld.systemd.units import UnitState

# Seconds for a daemon's whole answer, which takes milliseconds.
STATUS_TIMEOUT = 5.0

# Bytes that a daemon's answer may have; that of a tunnel with a thousand forwards has 200 KB.
LONGEST_STATUS_JSON = 1 << 22

NOT_UP = 1  # the exit code when a tunnel is not up


class NotRunningError(UnavailableError):
    """No daemon runs this tunnel."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not running; start it with `tunneld run {name}`")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a profile's name; without it, every tunnel that runs or has a service"
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each tunnel")


def run(args: argparse.Namespace) -> int:
    """Print each tunnel's status, and return 0 when all of them are up, 1 when one is not.

    Raises:
        UnavailableError: the tunnel does not run and has no service, or there is no tunnel at all.
        RightsError: the tunnel runs as another user, and this user may not ask.
    """
    with Services() as services:
        found = [_look(name_of(args.name), services)] if args.name else _all(services)
    for each in found:
        print(each.as_json() if args.json else each.as_text())
    return 0 if all(each.is_up for each in found) else NOT_UP


@dataclass(frozen=True, slots=True)
class FoundTunnel:
    """A tunnel as its daemon describes it, and its service as systemd describes it. One of the two may be missing."""

    name: str
    tunnel: TunnelStatus | None
    service: UnitState | None

    @property
    def is_up(self) -> bool:
        return self.tunnel is not None and self.tunnel.state is State.UP

    def as_text(self) -> str:
        if self.tunnel is None:
            assert self.service is not None
            return describe_service(self.name, self.service)
        head, *rest = describe(self.tunnel).split("\n")
        return "\n".join([head, *([f"  service   {service_line(self.service)}"] if self.service else []), *rest])

    def as_json(self) -> str:
        state = State.FAILED if self.service and self.service.active == "failed" else State.STOPPED
        text = to_json(self.tunnel or TunnelStatus(name=self.name, state=state, since=0, relay=""))
        if self.service is None:
            return text
        return json.dumps(json.loads(text) | {"service": asdict(self.service)}, separators=(",", ":"))


def name_of(given: str) -> str:
    """The name of a profile that is given by its name, or by the path of its file."""
    return Path(given).name.removesuffix(".toml")


def _look(name: str, services: Services) -> FoundTunnel:
    """What the tunnel's daemon and its service say.

    Raises:
        UnavailableError, RightsError: its daemon does not answer, and it has no service that could tell more.
    """
    service = services.of(name)
    try:
        return FoundTunnel(name, ask(_find(name)), service)
    except (NotRunningError, RightsError):
        if service is None:
            raise
        return FoundTunnel(name, None, service)


def ask(path: Path) -> TunnelStatus:
    """The status that the daemon at this socket gives.

    Raises:
        NotRunningError: nobody listens there.
        UnavailableError: what is answered is no status.
        RightsError: we may not ask.
    """
    try:
        return from_object(json_socket.ask(str(path), timeout=STATUS_TIMEOUT, longest=LONGEST_STATUS_JSON))
    except PermissionError:
        raise RightsError(_not_ours(path.parent)) from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunningError(path.stem) from None
    except (OSError, ValueError) as error:
        raise UnavailableError(f"the daemon of {path.stem} gives no usable answer: {error}") from None


def running_status(name: str) -> TunnelStatus | None:
    """The status of this tunnel. None when no daemon runs it, or none that we may ask."""
    try:
        return ask(_find(name))
    except (NotRunningError, RightsError):
        return None


def _find(name: str) -> Path:
    """The status socket of this tunnel.

    Raises:
        NotRunningError: no folder has one.
        RightsError: no folder that we may look into has one, and there is a folder that we may not look into.
    """
    for folder in run_folder.directories():
        path = folder / f"{name}.sock"
        if path in _sockets(folder, path.name):
            return path
    hidden = [folder for folder in run_folder.directories() if _is_hidden(folder)]
    raise RightsError(_not_ours(hidden[0])) if hidden else NotRunningError(name)


def _sockets(folder: Path, pattern: str = "*.sock") -> list[Path]:
    return sorted(folder.glob(pattern)) if _is_open(folder) else []


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK, effective_ids=True)


def _is_hidden(folder: Path) -> bool:
    """Whether there may be tunnels in it that this user cannot see."""
    # os.path: a folder in another user's folder is not there, and no PermissionError.
    return os.path.exists(folder) and not _is_open(folder)


def _not_ours(folder: Path) -> str:
    group = f", or as a member of the group {folder.group()}" if folder.stat().st_mode & stat.S_IXGRP else ""
    return f"the tunnels in {folder} belong to the user {folder.owner()}: run `tunneld status` as root{group}"


def _all(services: Services) -> list[FoundTunnel]:
    """Every tunnel that runs or has a service. The sockets that killed daemons have left are passed over."""
    folders = run_folder.directories()
    names = {path.stem: None for folder in folders for path in _sockets(folder)}
    found = []
    for name in [*names, *sorted(services.names() - set(names))]:
        try:
            found.append(_look(name, services))
        except NotRunningError:
            continue
    if not found and (hidden := list(filter(_is_hidden, folders))):
        raise RightsError(_not_ours(hidden[0]))
    if not found:
        looked = " and ".join(map(str, folders))
        raise UnavailableError(f"no tunnel is running (looked in {looked}); start one with `tunneld run NAME`")
    return found
