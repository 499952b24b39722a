"""Unit files and drop-ins: which a service needs, writing those that differ, and removing them again.

A file that somebody else wrote is neither overwritten nor removed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from tunneld.core.printable import one_line
from tunneld.errors import RightsError, UnavailableError
from tunneld.profile import Profile
from tunneld.systemd import credentials
from tunneld.systemd.exec_start import USUAL, exec_start
from tunneld.systemd.files import unit_files
from tunneld.systemd.service import Service

# A file that begins with one of these is ours: we may overwrite or remove it.
MARKS = ("# Installed by `tunneld enable`", "# Written by `tunneld enable`")
INSTALLED = f"{MARKS[0]}, and again after an upgrade: put changes of your own into a drop-in.\n"
WRITTEN = f"{MARKS[1]}: put changes of your own into another file.\n"

# What the system's services need beside their units: the file's name, where we install it, the folder where a package
# installs it, and the program that applies it.
SYSTEM_FILES = (
    ("tunneld.sysusers", Path("/etc/sysusers.d/tunneld.conf"), Path("/usr/lib/sysusers.d"), ("systemd-sysusers",)),
    (
        "tunneld.tmpfiles",
        Path("/etc/tmpfiles.d/tunneld.conf"),
        Path("/usr/lib/tmpfiles.d"),
        ("systemd-tmpfiles", "--create"),
    ),
)


def wanted(service: Service, profiles: Iterable[Profile], program: tuple[str, ...]) -> dict[Path, str | None]:
    """The text of each file that the service needs; None for a file of ours that must not exist."""
    files: dict[Path, str | None] = {}
    if not service.scope.user:
        files |= {
            target: None if (packaged / target.name).exists() else INSTALLED + (unit_files() / name).read_text()
            for name, target, packaged, _ in SYSTEM_FILES
        }
        files[service.credentials_drop_in] = _credentials_text(profiles)
    files[service.file] = None if service.is_packaged else INSTALLED + service.source.read_text()
    files[service.path_drop_in] = None if program == (str(USUAL),) else _path_text(service, program)
    return files


def _credentials_text(profiles: Iterable[Profile]) -> str:
    """One drop-in for all profiles; a file that two of them need is lent once."""
    lines = (line for profile in profiles for line in credentials.drop_in(profile).splitlines())
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _path_text(service: Service, program: tuple[str, ...]) -> str:
    rest = "run --all" if service.name is None else "run %i"
    return f"{WRITTEN}[Service]\nExecStart=\nExecStart={exec_start(program)} {rest}\n"


def write(files: Mapping[Path, str | None]) -> list[Path]:
    """Write the files that differ, each whole or not at all; return the paths that changed.

    Raises:
        RightsError: a folder cannot be written to, or somebody else wrote a file that differs.
    """
    changed = []
    for path, text in files.items():
        found = _read(path)
        if found == text:
            continue
        if found is not None and not _may_replace(found, text):
            raise RightsError(f"{path} is not tunneld's own: move it away, or make a drop-in of what it changes")
        if text is None:
            remove([path])
        else:
            _replace(path, text)
        changed.append(path)
    return changed


def _may_replace(found: str, text: str | None) -> bool:
    """Whether we wrote the text that was `found`, or somebody copied the unit file that we ship by hand."""
    return found.startswith(MARKS) or (bool(found) and text is not None and text.endswith(found))


def apply_system_files(files: Mapping[Path, str | None]) -> None:
    """Make the user and the folders that the system's services need.

    Raises:
        UnavailableError: systemd's programs for it are not installed, or fail.
    """
    for _, target, packaged, command in SYSTEM_FILES:
        if target not in files:
            continue
        try:
            done = subprocess.run(
                [*command, target if files[target] else packaged / target.name], capture_output=True, text=True
            )
        except FileNotFoundError:
            raise UnavailableError(f"{command[0]} is not installed: it comes with systemd") from None
        if done.returncode:
            raise UnavailableError(f"{command[0]} says: {one_line(done.stderr)}")


def ours(service: Service, running: Iterable[str]) -> list[Path]:
    """Our files that no other service needs once this one is gone.

    Services that start at boot are known by their links; `running` names those that run without one.
    """
    files = [] if service.scope.user else [service.credentials_drop_in]
    if not service.others() | (set(running) - {service.unit}):
        files += [service.file, service.path_drop_in]
        if not service.scope.user and not service.sibling().file.exists():
            files += [target for _, target, _, _ in SYSTEM_FILES]
    return [path for path in files if _is_ours(path)]


def foreign(service: Service) -> list[Path]:
    """The drop-ins of the service that somebody else wrote."""
    return [path for path in sorted(service.drop_ins.glob("*.conf")) if not _is_ours(path)]


def remove(paths: Iterable[Path]) -> list[Path]:
    """Remove those of the paths that are ours, and folders of drop-ins that are empty then; return what was removed."""
    gone = []
    for path in paths:
        if not _is_ours(path):
            continue
        path.unlink()
        gone.append(path)
        if path.parent.name.endswith(".service.d"):
            with contextlib.suppress(OSError):
                path.parent.rmdir()
    return gone


def _is_ours(path: Path) -> bool:
    found = _read(path)
    return found is not None and found.startswith(MARKS)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new.write_text(text)
        new.chmod(0o644)
        os.replace(new, path)
    except OSError as error:
        raise RightsError(f"{path} cannot be written: {error.strerror}") from None
