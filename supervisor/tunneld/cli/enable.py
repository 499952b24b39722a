"""`tunneld enable NAME`: make a valid profile a systemd service, which starts at boot.

Tested in tests/lab/test_systemd_enable.py and test_systemd_boot.py.
"""

from __future__ import annotations

import argparse
import os
import pwd
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunneld.cli.services import FINAL
from tunneld.cli.status import name_of, running_status
from tunneld.core.supervise.lifecycle import State
from tunneld.errors import BusyError, RightsError, TunneldError, UnavailableError, UsageError
from tunneld.status.brief import brief

if TYPE_CHECKING:
    from tunneld.profile import Profile
    from tunneld.status.snapshot import TunnelStatus
    from tunneld.systemd.service import Service
    from tunneld.systemd.units import Units, UnitState

# Seconds to wait for the end of the first dial, once the daemon is ready. On most links it takes less than one.
FIRST_DIAL_LIMIT = 5.0

UNSETTLED = (State.IDLE, State.DIALING)


class NotReadyError(UnavailableError):
    """systemd started the service, but the service did not become ready."""


def add(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help="a profile's name")
    which.add_argument(
        "--all",
        action="store_true",
        help="one service for all profiles of /etc/tunneld/profiles; only root can do that",
    )
    parser.epilog = (
        "If you are root, the service belongs to the system, and runs as a user of its own. If not, it belongs to you, "
        "and runs as you. Enable it again after an upgrade of tunneld, and when a profile names another key: "
        "only what differs is changed."
    )


def run(args: argparse.Namespace) -> int:
    """Install and start the service. Return 0 once its daemon is ready, whether or not the relay lets it in.

    Raises:
        ProfileError: what is wrong with the profile.
        UsageError: the service would not find the profile.
        UnavailableError: there is no D-Bus, or no extra `systemd`, or the service did not become ready.
        RightsError: only root can do this.
        BusyError: something else runs the tunnel.
    """
    from tunneld.systemd import exec_start, visibility
    from tunneld.systemd.service import Service, scope_of
    from tunneld.systemd.units import Units

    service = Service(scope_of(os.geteuid()), None if args.all else name_of(args.name))
    if not service.scope.user:
        # In the service, `~` is root's home. Some versions of sudo keep the user's.
        os.environ.pop("XDG_CONFIG_HOME", None)
        os.environ["HOME"] = pwd.getpwuid(0).pw_dir
    profiles = _profiles(service, args.name)
    words = exec_start.start_command()
    visibility.require_visible(service.scope, words, profiles)
    with Units(user=service.scope.user) as units:
        _require_free(service, profiles, units)
        changed = _install(service, profiles, words, units)
        _say_files(service, profiles, changed)
        state = _bring_up(service, profiles, units, afresh=bool(changed))
        _say_state(profiles, state)
        if service.scope.user:
            _linger(units)
    _say_next(service)
    return 0


def _profiles(service: Service, given: str | None) -> tuple[Profile, ...]:
    """The profiles, which are valid.

    Raises:
        ProfileError, UsageError, RightsError: as `run` does.
    """
    from tunneld.profile import folders, load_all, profile_files

    if given is None and service.scope.user:
        raise RightsError(
            "--all makes a service of the system: do it as root, or run `tunneld enable NAME` for each profile"
        )
    files = [str(file) for file in profile_files() if file.parent == folders.SYSTEM_PROFILES]
    names = files if given is None else [given]
    if not names:
        raise UsageError(f"there are no profiles in {folders.SYSTEM_PROFILES}")
    return load_all(names)


def _require_free(service: Service, profiles: Sequence[Profile], units: Units) -> None:
    """Make sure that nothing else runs one of these tunnels.

    Raises:
        BusyError: something does.
    """
    for rival in service.rivals(profile.name for profile in profiles):
        if units.state(rival.unit).is_running:
            raise BusyError(f"{rival.unit} already runs this tunnel: run `tunneld disable {rival.argument}` first")
    if units.state(service.unit).is_running:
        return
    for profile in profiles:
        if running := running_status(profile.name):
            raise BusyError(f"{profile.name} is already running, in process {running.pid}: stop that process first")


def _install(service: Service, profiles: Sequence[Profile], words: tuple[str, ...], units: Units) -> list[Path]:
    """Write the service's files, and return those that changed."""
    from tunneld.systemd import install

    files = install.wanted(service, profiles, words)
    changed = install.write(files)
    install.apply_system_files(files)
    if changed:
        units.read_again()
    if units.state(service.unit).file != "enabled":
        units.enable(service.unit)
        units.read_again()
    return changed


def _bring_up(service: Service, profiles: Sequence[Profile], units: Units, *, afresh: bool) -> UnitState:
    """Start the service, or bring a running one up to date, by a reload where that is enough.

    Raises:
        NotReadyError: the service did not become ready.
    """
    from tunneld.systemd.stale import is_stale

    if not units.state(service.unit).is_ready:
        units.forget_failure(service.unit)
        state = units.restart(service.unit)
    elif afresh or _is_old(profiles) or is_stale(service, profiles):
        state = units.restart(service.unit)
    else:
        state = units.reload(service.unit)
    if not state.is_ready:
        raise NotReadyError(_why(service, state))
    return state


def _is_old(profiles: Sequence[Profile]) -> bool:
    """Whether the running daemon has another version than this program."""
    from tunneld import __version__

    running = [status for profile in profiles if (status := running_status(profile.name))]
    return any(status.version != __version__ for status in running)


def _why(service: Service, state: UnitState) -> str:
    """One line: how the service ended, what it said, where to read more."""
    ended = f"ended with exit code {state.exit_code}" if state.exit_code else f"is {state.active} ({state.result})"
    again = "is not started again" if state.exit_code in FINAL else "systemd starts it again"
    says = f": {state.says}" if state.says else ""
    return f"{service.unit} {ended} and {again}{says}; read more with `{service.scope.journal} -u {service.short}`"


def _say_files(service: Service, profiles: Sequence[Profile], changed: Sequence[Path]) -> None:
    for profile in profiles:
        print(f"profile  {profile.file}")
        for relay in profile.relays if not service.scope.user else ():
            if relay.user is None:
                print(f"note     it names no user for {relay.host}: unless ssh_config does, the user is tunneld")
    for path in changed:
        print(f"{'written' if path.exists() else 'removed'}  {path}")


def _say_state(profiles: Sequence[Profile], state: UnitState) -> None:
    boot = "starts at boot" if state.file == "enabled" else state.file
    print(f"service  {state.name} runs as process {state.pid}, and {boot}", flush=True)
    for profile in profiles:
        if status := _settled(profile.name):
            print(f"tunnel   {profile.name}: {brief(status)}")


def _settled(name: str) -> TunnelStatus | None:
    """The tunnel's status once its first dial has ended, or after at most `FIRST_DIAL_LIMIT` seconds."""
    deadline = time.monotonic() + FIRST_DIAL_LIMIT
    while True:
        status = running_status(name)
        if status is None or status.state not in UNSETTLED or time.monotonic() > deadline:
            return status
        time.sleep(0.1)


def _linger(units: Units) -> None:
    """Switch lingering on: without it, a user's services end with the user's last login session."""
    import getpass

    from tunneld.systemd.service import LINGER

    user = getpass.getuser()
    if (LINGER / user).exists():
        return
    try:
        units.linger()
        print(f"linger   switched on: the services of {user} start at boot, and keep running when {user} logs out")
    except TunneldError as error:
        print(f"linger   OFF ({error}):")
        print(f"         the tunnel stops when {user} logs out; to change that, `sudo loginctl enable-linger {user}`")


def _say_next(service: Service) -> None:
    scope = service.scope
    lines = {
        f"tunneld status {service.name or ''}".strip(): "shows the tunnel",
        f"{scope.control} status {service.short}": "shows the service",
        f"{scope.journal} -u {service.short} -f": "follows its log",
        f"{scope.control} reload {service.short}": "after you have edited the profile",
        f"tunneld disable {service.argument}": "undoes all of this",
    }
    width = max(map(len, lines))
    print("next", *(f"  {line:{width}}  {why}" for line, why in lines.items()), sep="\n")
