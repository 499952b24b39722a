"""A service of ours and where its files lie: names and paths alone, nothing is touched.

scope     the system's systemd (as root), or a user's own
service   `tunneld@NAME.service`, one profile; or `tunneld.service`, every profile of the system in one process
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tunneld.systemd.files import unit_files

# Where packages put units; who has ours there needs no copy in /etc.
PACKAGED = ("/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd")

LINGER = Path("/var/lib/systemd/linger")


@dataclass(frozen=True, slots=True)
class Scope:
    """`units` is where we install; `packaged` where a package would have."""

    user: bool
    units: Path
    packaged: tuple[Path, ...]

    @property
    def control(self) -> str:
        return "systemctl --user" if self.user else "systemctl"

    @property
    def journal(self) -> str:
        return "journalctl --user" if self.user else "journalctl"


def scope_of(uid: int) -> Scope:
    """The system's for root, else the user's own."""
    if uid == 0:
        return Scope(False, Path("/etc/systemd/system"), tuple(Path(each, "system") for each in PACKAGED))
    config = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(config) if os.path.isabs(config) else Path(os.path.expanduser("~/.config"))
    return Scope(True, home / "systemd/user", tuple(Path(each, "user") for each in PACKAGED))


@dataclass(frozen=True, slots=True)
class Service:
    """`name` is the profile's, None for all of them in one process."""

    scope: Scope
    name: str | None

    @property
    def unit(self) -> str:
        return "tunneld.service" if self.name is None else f"tunneld@{self.name}.service"

    @property
    def short(self) -> str:
        """As people type it."""
        return self.unit.removesuffix(".service")

    @property
    def argument(self) -> str:
        """For `tunneld enable` and `tunneld disable`."""
        return self.name or "--all"

    @property
    def template(self) -> str:
        """The unit file's name."""
        return "tunneld.service" if self.name is None else "tunneld@.service"

    @property
    def source(self) -> Path:
        """The unit file as we ship it."""
        return unit_files() / ("user" if self.scope.user else ".") / self.template

    @property
    def file(self) -> Path:
        """The unit file as we install it."""
        return self.scope.units / self.template

    @property
    def is_packaged(self) -> bool:
        return any((folder / self.template).exists() for folder in self.scope.packaged)

    @property
    def path_drop_in(self) -> Path:
        """For all instances: where the program is."""
        return self.scope.units / f"{self.template}.d" / "10-path.conf"

    @property
    def credentials_drop_in(self) -> Path:
        """For this one: which files are lent to it."""
        return self.scope.units / f"{self.unit}.d" / "20-credentials.conf"

    @property
    def drop_ins(self) -> Path:
        """The folder of this one's drop-ins, whoever wrote them."""
        return self.credentials_drop_in.parent

    @property
    def is_enabled(self) -> bool:
        """Whether it starts at boot."""
        return self.unit in self._links()

    def others(self) -> set[str]:
        """Units of the same unit file that start at boot."""
        return self._links() - {self.unit}

    def rivals(self, names: Iterable[str]) -> list[Service]:
        """The services that would run a tunnel of these names as well."""
        if self.name is None:
            return [Service(self.scope, name) for name in names]
        return [] if self.scope.user else [Service(self.scope, None)]

    def instance(self, name: str) -> Service:
        """The service of this profile alone."""
        return Service(self.scope, name)

    def sibling(self) -> Service:
        """Of the other unit file."""
        return Service(self.scope, None if self.name is not None else "")

    def _links(self) -> set[str]:
        return {link.name for link in self.scope.units.glob(f"*.wants/{self.template.replace('@', '@*')}")}
