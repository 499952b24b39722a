"""The oldest Python that an agent runs on, where this machine has one."""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest

NAME = "python3.9"


@functools.cache
def oldest_python() -> str:
    """The path of a Python 3.9 that starts: from PATH, or one of pyenv's. Skips the test where there is none."""
    for candidate in (shutil.which(NAME), *_of_pyenv()):
        if candidate and subprocess.run([candidate, "-V"], capture_output=True).returncode == 0:
            return candidate
    pytest.skip(f"there is no {NAME} here; vermin alone says that the agent fits it")


def _of_pyenv() -> list[str]:
    if shutil.which("pyenv") is None:
        return []
    return subprocess.run(["pyenv", "whence", "--path", NAME], capture_output=True, text=True).stdout.split()
