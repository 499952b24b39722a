"""`tunneld disable NAME`: stop the service, and remove what no other service uses.

Tested in tests/lab/test_systemd_enable.py.
"""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunneld.cli.status import name_of
from tunneld.daemon import run_folder
from tunneld.errors import RightsError, UnavailableError

if TYPE_CHECKING:
    from tunneld.systemd.service import Service
    from tunneld.systemd.units import Units


def add(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help="a profile's name")
    which.add_argument("--all", action="store_true", help="the one service for all profiles")
    parser.epilog = "Profiles and keys stay. So do the drop-ins that you have written."


def run(args: argparse.Namespace) -> int:
    """Stop and remove the service. Return 0 once it is gone, also when it was never there.

    Raises:
        UnavailableError: there is no D-Bus, or no extra `systemd`, or the service does not stop.
        RightsError: only root can do this.
    """
    from tunneld.systemd import install
    from tunneld.systemd.service import LINGER, Service, scope_of
    from tunneld.systemd.units import Units

    service = Service(scope_of(os.geteuid()), None if args.all else name_of(args.name))
    with Units(user=service.scope.user) as units:
        pattern = service.template.replace("@", "@*")
        files = install.ours(service, units.in_memory(pattern))
        if not (units.state(service.unit).is_running or service.is_enabled or files):
            _say_nothing_to_do(service)
            return 0
        _stop(service, units)
        _remove(service, files)
        if service.scope.user and not service.others() and (LINGER / getpass.getuser()).exists():
            print("linger   stays on; if nothing else of yours needs it: `loginctl disable-linger`")
        units.read_again()
    return 0


def _say_nothing_to_do(service: Service) -> None:
    """Say that the service is not enabled.

    Raises:
        RightsError: there is such a service, but it belongs to the system.
    """
    from tunneld.systemd.service import Service as Other
    from tunneld.systemd.service import scope_of

    if service.scope.user and Other(scope_of(0), service.name).is_enabled:
        raise RightsError(f"{service.unit} is the system's: do it as root")
    print(f"service  {service.unit} is not enabled: there is nothing to do")


def _stop(service: Service, units: Units) -> None:
    units.disable(service.unit)
    state = units.stop(service.unit)
    if state.is_running:
        raise UnavailableError(f"{service.unit} did not stop: it is {state.active} ({state.sub})")
    units.forget_failure(service.unit)
    print(f"stopped  {service.unit}, and it does not start at boot any more")


def _remove(service: Service, files: Sequence[Path]) -> None:
    from tunneld.profile.folders import SYSTEM_PROFILES
    from tunneld.systemd import install

    for path in install.remove(files):
        print(f"removed  {path}")
    for path in install.foreign(service):
        print(f"kept     {path}, which is yours")
    if not service.scope.user and not service.others():
        print(f"kept     {SYSTEM_PROFILES.parent}, and the user tunneld")
    folder = run_folder.own_directory()
    for name in [service.name] if service.name else [lock.stem for lock in folder.glob("*.lock")]:
        run_folder.forget(folder, name)
