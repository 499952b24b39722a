"""A service of ours and where its files lie: names and paths. Nothing here is written.

scope     the system's systemd (as root), or a user's own
service   `tunneld@NAME.service`, which runs one profile; or `tunneld.service`, which runs all of the system's profiles
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunneld.profile.folders import config_home
from tunneld.systemd.files import unit_files

# Where packages install units. If ours are there, /etc needs no copy.
PACKAGED = ("/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd")

# A file of the user's name in here: that user's services start at boot, and go on after the last logout (loginctl(1)).
LINGER = Path("/var/lib/systemd/linger")


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose systemd it is. `units` is the folder where we install units, `packaged` are those where a package would."""

    user: bool
    units: Path
    packaged: tuple[Path, ...]

    @property
    def control(self) -> str:
        """How people call systemctl(1) for it."""
        return "systemctl --user" if self.user else "systemctl"

    @property
    def journal(self) -> str:
        """How people call journalctl(1) for it."""
        return "journalctl --user" if self.user else "journalctl"


def scope_of(uid: int) -> Scope:
    """The system's systemd for root, else this user's own."""
    if uid == 0:
        return Scope(False, Path("/etc/systemd/system"), tuple(Path(each, "system") for each in PACKAGED))
    return Scope(True, config_home() / "systemd/user", tuple(Path(each, "user") for each in PACKAGED))


@dataclass(frozen=True, slots=True)
class Service:
    """`name` is the profile's; None stands for all of the system's profiles in one process."""

    scope: Scope
    name: str | None

    @property
    def unit(self) -> str:
        return "tunneld.service" if self.name is None else f"tunneld@{self.name}.service"

    @property
    def short(self) -> str:
        """The unit's name as people type it."""
        return self.unit.removesuffix(".service")

    @property
    def argument(self) -> str:
        """The argument of `tunneld enable` and `tunneld disable` that means this service."""
        return self.name or "--all"

    @property
    def template(self) -> str:
        """The unit file's name."""
        return "tunneld.service" if self.name is None else "tunneld@.service"

    @property
    def source(self) -> Path:
        """Where we ship the unit file."""
        return unit_files() / ("user" if self.scope.user else ".") / self.template

    @property
    def file(self) -> Path:
        """Where we install the unit file."""
        return self.scope.units / self.template

    @property
    def is_packaged(self) -> bool:
        """Whether a package has installed the unit file."""
        return any((folder / self.template).exists() for folder in self.scope.packaged)

    @property
    def path_drop_in(self) -> Path:
        """The drop-in, for all instances, that says where the program is."""
        return self.scope.units / f"{self.template}.d" / "10-path.conf"

    @property
    def credentials_drop_in(self) -> Path:
        """The drop-in of this service that says which files are lent to it."""
        return self.scope.units / f"{self.unit}.d" / "20-credentials.conf"

    @property
    def drop_ins(self) -> Path:
        """The folder of this service's drop-ins, whoever wrote them."""
        return self.credentials_drop_in.parent

    @property
    def is_enabled(self) -> bool:
        """Whether it starts at boot."""
        return self.unit in self._links()

    def others(self) -> set[str]:
        """The other units of the same unit file that start at boot."""
        return self._links() - {self.unit}

    def rivals(self, names: Iterable[str]) -> list[Service]:
        """The other services that would run a tunnel with one of these names."""
        if self.name is None:
            return [Service(self.scope, name) for name in names]
        return [] if self.scope.user else [Service(self.scope, None)]

    def instance(self, name: str) -> Service:
        """The service that runs this profile alone."""
        return Service(self.scope, name)

    def sibling(self) -> Service:
        """Any service of the other unit file."""
        return Service(self.scope, None if self.name is not None else "")

    def _links(self) -> set[str]:
        """The units of this unit file that start at boot: `systemctl enable` makes a link for each."""
        return {link.name for link in self.scope.units.glob(f"*.wants/{self.template.replace('@', '@*')}")}
