"""Where profiles live, and how a name or a path becomes a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tunneld.errors import Problem, ProfileError

SYSTEM = Path("/etc/tunneld/profiles")
# Names become file names, socket names and systemd instance names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "a name has letters, digits, `.`, `_` and `-`, starts with a letter or a digit, and is at most 64 long"


def directories() -> tuple[Path, ...]:
    """The folders where a name is looked up, in order. An XDG_CONFIG_HOME that is not absolute counts as unset."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(config) if os.path.isabs(config) else Path(os.path.expanduser("~/.config"))
    return (home / "tunneld" / "profiles", SYSTEM)


def name_of(file: Path) -> str:
    """A profile's name is its file's."""
    return file.name.removesuffix(".toml")


def is_a_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def found() -> tuple[Path, ...]:
    """Every profile that a name can reach; a user's own hides the system's of the same name."""
    files: dict[str, Path] = {}
    for folder in directories():
        if not os.access(folder, os.R_OK | os.X_OK):  # nor are there homes for a service to see
            continue
        for file in sorted(folder.glob("*.toml")):
            if not file.name.startswith("."):  # editors' leftovers
                files.setdefault(file.name, file)
    return tuple(files[name] for name in sorted(files))


def find(name_or_path: str) -> Path:
    """The file of a profile. What holds a slash or ends in `.toml` is a path, and taken as it is.

    Raises:
        ProfileError: no folder has a profile of that name.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return Path(os.path.abspath(os.path.expanduser(name_or_path)))
    candidates = [folder / f"{name_or_path}.toml" for folder in directories()]
    for file in candidates if is_a_name(name_or_path) else ():
        if os.path.lexists(file):
            return file
    raise ProfileError((Problem(candidates[0], 1, "", _not_found(name_or_path)),))


def _not_found(name: str) -> str:
    from difflib import get_close_matches  # needed for mistakes alone

    if not is_a_name(name):
        return f"{name!r} cannot be a profile's name: {NAME_RULE}"
    looked = " nor in ".join(map(str, directories()[1:]))
    near = get_close_matches(name, map(name_of, found()), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "write it there, or give its path"
    return f"there is no profile {name!r} here, nor in {looked}: {hint}"
