"""Units over D-Bus: asks systemd for a unit's state, and to start, stop and enable it.

Only the command line uses it: during a call pystemd stops the whole interpreter, which no daemon can afford.

Tested in tests/lab/test_systemd_enable.py, since it needs a systemd.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tunneld.core.printable import one_line
from tunneld.errors import RightsError, TunneldError, UnavailableError

# From the sources: the name `tunneld` is somebody else's on the Python Package Index.
NO_EXTRA = (
    "tunneld is installed without its `systemd` extra: in the clone of its sources, type "
    f"{sys.executable} -m pip install '.[systemd]'"
)

# Seconds for a job. systemd gives up the jobs of our units earlier by itself (TimeoutStartSec=90).
JOB_TIMEOUT = 120.0

# Seconds between two questions for a job.
ASK_FOR_JOB_EVERY = 0.02

LOGIND = b"org.freedesktop.login1"
LOGIND_PATH = b"/org/freedesktop/login1"

NO_BUS = {
    False: "there is no D-Bus here to reach systemd by: has this machine booted with systemd, and does it have dbus?",
    True: "there is no D-Bus here to reach your own systemd by: log in as this user (with ssh, not with su or sudo), "
    "install the package dbus-user-session if it is missing, or enable the service as root",
}

# pystemd's names for the errors of D-Bus (org.freedesktop.DBus.Error.*) that mean a missing right.
RIGHTS_ERRORS = ("DBusAccessDeniedError", "DBusInteractiveAuthorizationRequiredError", "DBusAuthFailedError")


@dataclass(frozen=True, slots=True)
class UnitState:
    """A unit at one moment, in systemd's words."""

    name: str
    loaded: str  # "loaded", "not-found" ...
    active: str  # "active", "activating", "failed", "inactive" ...
    sub: str  # "running", "auto-restart", "exited" ...
    file: str  # "enabled", "disabled" ...; empty when there is no unit file
    description: str = ""
    result: str = ""  # "success", "exit-code", "watchdog" ...
    exit_code: int = 0  # of the last process that ended
    says: str = ""  # the service's STATUS=, as of sd_notify(3)
    pid: int = 0
    restarts: int = 0
    user: bool = False  # a unit of the user's own systemd

    @property
    def exists(self) -> bool:
        return self.loaded == "loaded"

    @property
    def is_running(self) -> bool:
        return self.active in ("active", "reloading", "activating")

    @property
    def is_ready(self) -> bool:
        return self.active == "active"


class Units:
    """Calls the system's systemd, or this user's own. Every method may raise:

    UnavailableError: there is no bus, or systemd does not answer on it.
    RightsError: systemd says that this user may not do it.
    """

    def __init__(self, *, user: bool) -> None:
        self.user = user
        self._bus: Any = None
        self._systemd: Any = None

    def __enter__(self) -> Self:
        """Connect to the bus.

        Raises:
            UnavailableError: as above, or the `systemd` extra is not installed.
        """
        try:
            from pystemd.dbuslib import DBus
            from pystemd.systemd1 import Manager
        except ImportError:
            raise UnavailableError(NO_EXTRA) from None
        with self._explained():
            self._bus = DBus(user_mode=self.user)
            self._bus.open()
            self._systemd = Manager(bus=self._bus, _autoload=True).Manager
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.close()

    def state(self, name: str) -> UnitState:
        """The unit's state now; `loaded` is "not-found" for a unit that does not exist."""
        from pystemd.systemd1 import Unit

        with self._explained():
            path = self._systemd.LoadUnit(name.encode())  # systemd may have forgotten a unit that is not in use
            unit = Unit(name.encode(), bus=self._bus)
            unit.path = path
            unit.load()
            service = unit.Service
            return UnitState(
                name=name,
                loaded=_text(unit.Unit.LoadState),
                active=_text(unit.Unit.ActiveState),
                sub=_text(unit.Unit.SubState),
                file=_text(unit.Unit.UnitFileState),
                description=_text(unit.Unit.Description),
                result=_text(service.Result),
                exit_code=service.ExecMainStatus,
                says=_text(service.StatusText),
                pid=service.MainPID,
                restarts=service.NRestarts,
                user=self.user,
            )

    def in_memory(self, pattern: str) -> list[str]:
        """The names of the units that match and are running, about to run, or failed."""
        with self._explained():
            units = self._systemd.ListUnitsByPatterns([], [pattern.encode()])
        return sorted(_text(each[0]) for each in units if _text(each[3]) != "inactive")

    def read_again(self) -> None:
        """`systemctl daemon-reload`."""
        with self._explained():
            self._systemd.Reload()

    def enable(self, name: str) -> None:
        """`systemctl enable`: the unit starts at boot."""
        with self._explained():
            self._systemd.EnableUnitFiles([name.encode()], False, True)

    def disable(self, name: str) -> None:
        """`systemctl disable`."""
        with self._explained():
            self._systemd.DisableUnitFiles([name.encode()], False)

    def forget_failure(self, name: str) -> None:
        """`systemctl reset-failed`, also for a unit that never ran."""
        from pystemd.dbusexc import DBusNoSuchUnitError

        with self._explained(), contextlib.suppress(DBusNoSuchUnitError):
            self._systemd.ResetFailedUnit(name.encode())

    def linger(self) -> None:
        """`loginctl enable-linger`: this user's services start at boot, without a login."""
        from pystemd.dbuslib import DBus, apply_signature

        with self._explained(), DBus() as system:
            arguments = apply_signature(b"ubb", [os.geteuid(), True, False])
            system.call_method(LOGIND, LOGIND_PATH, LOGIND + b".Manager", b"SetUserLinger", arguments)

    def start(self, name: str) -> UnitState:
        """Start the unit, and wait until it is ready or has failed; its state then. The next three wait alike."""
        return self._job(name, self._systemd.StartUnit)

    def restart(self, name: str) -> UnitState:
        return self._job(name, self._systemd.RestartUnit)

    def reload(self, name: str) -> UnitState:
        return self._job(name, self._systemd.ReloadUnit)

    def stop(self, name: str) -> UnitState:
        return self._job(name, self._systemd.StopUnit)

    def _job(self, name: str, ask: Callable[[bytes, bytes], bytes]) -> UnitState:
        with self._explained():
            job = ask(name.encode(), b"replace")
            deadline = time.monotonic() + JOB_TIMEOUT
            while job in (path for *_, path, _ in self._systemd.ListJobs()):
                if time.monotonic() > deadline:
                    raise UnavailableError(f"systemd is still busy with {name} after {JOB_TIMEOUT:g} s")
                time.sleep(ASK_FOR_JOB_EVERY)
        return self.state(name)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of D-Bus into one of ours."""
        from pystemd.dbusexc import DBusBaseError

        try:
            yield
        except DBusBaseError as error:
            raise self._fault(error) from None

    def _fault(self, error: Any) -> TunneldError:
        text = one_line(_text(error.err_message or str(error)))
        if type(error).__name__ in RIGHTS_ERRORS or error.errno == -13:  # EACCES
            return RightsError(f"systemd does not let us: {text}{'' if self.user else ' (as root it would)'}")
        return UnavailableError(NO_BUS[self.user] if self._systemd is None else f"systemd says: {text}")


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
