"""A machine of each test's own: no test sees, or disturbs, a tunnel, a profile, a service or a key of this machine.

tests/conftest.py gives each test such a machine. `TUNNELD` is the command line for a process of its own; everything
else in the environment reaches such a process by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

# `python -m tunneld`, with the folders of the machine elsewhere. -P: the folders beside this file are no packages.
TUNNELD: Final = (sys.executable, "-P", __file__)

FOLDER: Final = "TUNNELD_TESTS_FOLDER"
"""The variable with the folder that stands for the whole machine. Only this file reads it, and the product never."""

FOREIGN: Final = (
    *("RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"),
    *("XDG_CONFIG_HOME", "XDG_STATE_HOME", "SSH_AUTH_SOCK", "TUNNELD_DEBUG"),
)
"""Variables with which whoever runs the tests would change what they see."""


def environment(folder: Path) -> dict[str, str]:
    """What is set for a test whose machine is `folder`: homes in there, and where tools of the tests keep theirs."""
    home = Path.home()
    return {
        FOLDER: str(folder),
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(home / ".cache")),  # matplotlib's fonts
        "PYENV_ROOT": os.environ.get("PYENV_ROOT", str(home / ".pyenv")),
    }


def move_system_folders(folder: Path, put: Callable[[str, Path], None]) -> None:
    """Have every folder in which tunneld looks for what belongs to the whole machine below `folder`."""
    put("tunneld.daemon.run_folder.SYSTEM_FOLDER", folder / "run")
    put("tunneld.profile.folders.SYSTEM_PROFILES", folder / "etc")
    put("tunneld.cli.services.BOOTED", folder / "no-systemd")


def put(name: str, value: Path) -> None:
    from importlib import import_module

    module, _, constant = name.rpartition(".")
    setattr(import_module(module), constant, value)


if __name__ == "__main__":
    move_system_folders(Path(os.environ[FOLDER]), put)
    from tunneld.cli import main

    sys.exit(main())
