"""Installs tunneld on a booted machine: the built wheel, in a folder that every user can read.

/opt/tunneld/bin/tunneld      the command; /opt/tunneld/source holds the files of the wheel
/opt/tunneld/libraries        the libraries of the tests' Python, read-only, so that nothing is downloaded
/opt/python                   the Python that runs the tests
"""

from __future__ import annotations

import functools
import io
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from tests.lab.booted import Booted

HOME: Final = "/opt/tunneld"
COMMAND: Final = f"{HOME}/bin/tunneld"
SOURCE: Final = f"{HOME}/source"

LAUNCHER: Final = """\
#!{python} -I
import sys
sys.path[:0] = [{source!r}, {libraries!r}]
from tunneld.cli import main
sys.exit(main())
"""

ROOT: Final = Path(__file__).parents[2]


def binds() -> dict[Path, str]:
    """Our folders that the machine needs, and where it sees them."""
    python = {} if sys.base_prefix == "/usr" else {Path(sys.base_prefix): "/opt/python"}
    return {Path(sysconfig.get_path("platlib")): f"{HOME}/libraries", **python}


def install(machine: Booted, *, command: str = COMMAND) -> None:
    """Install what `pip install tunneld-*.whl` would install, with its command at `command`."""
    folder = machine.path(SOURCE)
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(_wheel())) as wheel:
        wheel.extractall(folder)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = f"{'/usr' if sys.base_prefix == '/usr' else '/opt/python'}/bin/python{version}"
    text = LAUNCHER.format(python=python, source=SOURCE, libraries=f"{HOME}/libraries")
    machine.write(command, text, mode=0o755)
    machine.shell(f"chmod -R a+rX {SOURCE}")


@functools.cache
def _wheel() -> bytes:
    """The wheel of this working tree, built once for all tests of this process."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
        return next(Path(folder).glob("*.whl")).read_bytes()
