"""The systemd services that run tunnels, for `tunneld status`. A machine without systemd has none.

Tested in tests/lab/test_systemd_enable.py.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tunneld.errors import TunneldError
from tunneld.profile import folders

if TYPE_CHECKING:
    from tunneld.systemd.service import Service
    from tunneld.systemd.units import Units, UnitState

# This folder exists where systemd runs the machine (sd_booted(3)).
BOOTED = Path("/run/systemd/system")

# Exit codes after which systemd does not start our units again (RestartPreventExitStatus= in them).
FINAL = (64, 78)


class Services:
    """The user's own services, then the system's. Where systemd cannot be asked, there are none: no error."""

    def __init__(self) -> None:
        self._asked: list[tuple[Service, Units]] = []  # for each scope: a service that knows the names, and whom to ask

    def __enter__(self) -> Services:
        self._open = contextlib.ExitStack()
        if BOOTED.is_dir():
            for uid in dict.fromkeys([os.geteuid(), 0]):
                with contextlib.suppress(TunneldError):
                    self._ask(uid)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _ask(self, uid: int) -> None:
        from tunneld.systemd.service import Service, scope_of
        from tunneld.systemd.units import Units

        scope = scope_of(uid)
        self._asked.append((Service(scope, None), self._open.enter_context(Units(user=scope.user))))

    def names(self) -> set[str]:
        """The names of the tunnels that have a service which starts at boot, runs, or has failed."""
        found: set[str] = set()
        for every, units in self._asked:
            instances = every.instance("*")
            with contextlib.suppress(TunneldError):
                found |= {each.split("@", 1)[1].removesuffix(".service") for each in units.in_memory(instances.unit)}
            found |= {each.split("@", 1)[1].removesuffix(".service") for each in instances.others()}
            if self._concerns(every, units):
                found |= {folders.profile_name(file) for file in folders.SYSTEM_PROFILES.glob("*.toml")}
        return found

    def of(self, name: str) -> UnitState | None:
        """The service that runs this tunnel, or would run it."""
        for every, units in self._asked:
            for service in (every.instance(name), every):
                if state := self._concerns(service, units):
                    return state
        return None

    def _concerns(self, service: Service, units: Units) -> UnitState | None:
        """The service's state, if the service starts at boot, runs, or has failed."""
        with contextlib.suppress(TunneldError):
            state = units.state(service.unit)
            if state.exists and (state.is_running or state.active == "failed" or state.file == "enabled"):
                return state
        return None


def service_line(state: UnitState) -> str:
    """`tunneld@pi-home.service: running, starts at boot`."""
    words = [_how(state), "starts at boot" if state.file == "enabled" else "does NOT start at boot"]
    if state.restarts:
        words.append(f"restarted {'once' if state.restarts == 1 else f'{state.restarts} times'} after a fault")
    return f"{state.name}: {', '.join(words)}"


def _how(state: UnitState) -> str:
    if state.sub == "auto-restart":
        return f"being restarted after exit code {state.exit_code}"
    if state.active == "failed":
        return f"failed with exit code {state.exit_code}" if state.result == "exit-code" else f"failed ({state.result})"
    return {"active": "running", "inactive": "stopped", "activating": "starting"}.get(state.active, state.active)


def describe_service(name: str, state: UnitState) -> str:
    """What systemd knows about a tunnel whose daemon does not answer, or does not answer this user."""
    control = "systemctl --user" if state.user else "systemctl"
    lines = [f"{name}: {'running, but its daemon does not answer you' if state.is_ready else 'not running'}"]
    lines.append(f"  service   {service_line(state)}")
    lines += [f"  it says   {state.says}"] if state.says and state.active != "inactive" else []
    lines.append(f"  to do     {_advice(name, state, control)}")
    return "\n".join(lines)


def _advice(name: str, state: UnitState, control: str) -> str:
    short = state.name.removesuffix(".service")
    journal = control.replace("systemctl", "journalctl") + f" -u {short}"
    if state.is_ready:
        return "for more, run `tunneld status` as root, or as a member of the group tunneld"
    if state.active == "failed" and state.exit_code in FINAL:
        return f"correct that, then run `{control} restart {short}`"
    if state.active == "failed" or state.is_running:
        return f"read `{journal}`"
    return f"run `{control} start {short}`"
