"""What the system's service cannot see is said before anything is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tunneld.errors import RightsError, UnavailableError, UsageError
from tunneld.profile import folders, load
from tunneld.systemd import units, visibility
from tunneld.systemd.service import scope_of

ROOT = Path(__file__).parents[2]
FROM_AN_INDEX = re.compile(r"""(?:pip3?|pipx|uv)\s.*?\b(?:install|add)\s([^\n`|;&]*\s)?['"]?tunneld(?![\w./-])""")

TEXT = '[relay]\nhost = "relay"\n[[forward]]\nlisten = "127.0.0.1:2222"\nto = "127.0.0.1:22"\n'


def test_a_program_in_a_temporary_folder_is_out_of_sight(tmp_path: Path) -> None:
    """The service's /tmp is its own; the text says where to install."""
    program = tmp_path / "tunneld"
    program.touch()
    with pytest.raises(UnavailableError, match=r"/tmp is closed, .*pip install '\.\[systemd\]', then /opt/tunneld"):
        visibility.require_program((str(program),))


def test_a_profile_must_lie_where_the_service_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service runs as another user, who must be able to read it."""
    file = tmp_path / "pi.toml"
    file.write_text(TEXT)
    profile = load(str(file))
    with pytest.raises(UsageError, match=f"mv {file} {folders.SYSTEM_PROFILES}/"):
        visibility.require_profile(scope_of(0), profile)
    monkeypatch.setattr(folders, "SYSTEM_PROFILES", tmp_path)
    visibility.require_profile(scope_of(0), profile)
    file.chmod(0o600)
    with pytest.raises(RightsError, match=f"chmod a\\+r {file}"):
        visibility.require_profile(scope_of(0), profile)


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("pip install tunneld", True),
        ("/opt/tunneld/bin/pip install 'tunneld[systemd]'", True),
        ("pip3 install --upgrade tunneld==1", True),
        ("pipx install tunneld", True),
        ("/opt/tunneld/bin/pip install '.[systemd]'", False),
        ("pip install tunneld-*.whl", False),
        ("pip install . && tunneld enable NAME", False),
    ],
)
def test_a_line_that_installs_from_an_index_is_known(text: str, is_wrong: bool) -> None:
    """The project's name behind `install`, however it is quoted; a file's name is none."""
    assert (FROM_AN_INDEX.search(text) is not None) is is_wrong


def test_nobody_is_told_to_install_somebody_elses_program() -> None:
    """The name `tunneld` is taken on the Python Package Index: root would install a stranger's program by it."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    files = [ROOT / name for name in listed.stdout.splitlines() if not name.startswith("tests/")]
    said = [path for path in files if path.is_file() and FROM_AN_INDEX.search(path.read_text(errors="replace"))]
    assert said == []
    assert "pip install '.[systemd]'" in units.NO_EXTRA
