"""Where profiles live, and how a name or a path becomes a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tunneld.errors import Problem, ProfileError

SYSTEM_PROFILES = Path("/etc/tunneld/profiles")
# A profile's name becomes part of the names of files, sockets and systemd's units.
_PROFILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "a name has letters, digits, `.`, `_` and `-`, starts with a letter or a digit, and is at most 64 long"


def config_home() -> Path:
    """$XDG_CONFIG_HOME, or ~/.config where that is not set or not absolute (XDG Base Directory Specification)."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.config"))


def profile_folders() -> tuple[Path, ...]:
    """The folders in which a name is looked up, in this order: the user's, the system's."""
    return (config_home() / "tunneld" / "profiles", SYSTEM_PROFILES)


def profile_name(file: Path) -> str:
    """The name of the profile in this file: the file's own, without `.toml`."""
    return file.name.removesuffix(".toml")


def is_a_name(text: str) -> bool:
    """Whether a profile may have this name; NAME_RULE says the rule in words."""
    return _PROFILE_NAME.fullmatch(text) is not None


def profile_files() -> tuple[Path, ...]:
    """Every profile that a name can reach, sorted by name. A user's profile hides the system's of the same name."""
    files: dict[str, Path] = {}
    for folder in profile_folders():
        if not os.access(folder, os.R_OK | os.X_OK):  # a service cannot see the homes, for example
            continue
        for file in sorted(folder.glob("*.toml")):
            if not file.name.startswith("."):  # an editor's leftover
                files.setdefault(file.name, file)
    return tuple(files[name] for name in sorted(files))


def find_profile(name_or_path: str) -> Path:
    """The file of a profile. A text with a slash in it, or with `.toml` at its end, is a path and is not looked up.

    Raises:
        ProfileError: no folder has a profile of that name.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return Path(os.path.abspath(os.path.expanduser(name_or_path)))
    candidates = [folder / f"{name_or_path}.toml" for folder in profile_folders()]
    for file in candidates if is_a_name(name_or_path) else ():
        if os.path.lexists(file):  # a dangling link counts: it must not let the system's profile take its place
            return file
    raise ProfileError((Problem(candidates[0], 1, "", _not_found(name_or_path)),))


def _not_found(name: str) -> str:
    from difflib import get_close_matches  # only mistakes need it

    if not is_a_name(name):
        return f"{name!r} cannot be a profile's name: {NAME_RULE}"
    looked = " nor in ".join(map(str, profile_folders()[1:]))
    near = get_close_matches(name, map(profile_name, profile_files()), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "write it there, or give its path"
    return f"there is no profile {name!r} here, nor in {looked}: {hint}"
