"""What the system's service cannot see is said before anything is installed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunneld.errors import RightsError, UnavailableError, UsageError
from tunneld.profile import folders, load
from tunneld.systemd import visibility
from tunneld.systemd.service import Scope, scope_of

TEXT = '[relay]\nhost = "relay"\n[[forward]]\nlisten = "127.0.0.1:2222"\nto = "127.0.0.1:22"\n'


def test_a_program_in_a_temporary_folder_is_out_of_sight(tmp_path: Path) -> None:
    """The service's /tmp is its own; the text says where to install."""
    program = tmp_path / "tunneld"
    program.touch()
    with pytest.raises(UnavailableError, match=r"/tmp is closed, .*pip install '\.\[systemd\]', then /opt/tunneld"):
        visibility.require_program((str(program),))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may enter; the program, Python and its libraries lie where everybody sees them."""
    for name in ("executable", "prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, "/bin/sh")
    monkeypatch.setattr(visibility, "HIDDEN", ())
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("moved", ["program", "executable", "prefix", "base_prefix"])
def test_what_the_program_needs_must_be_open_to_all(
    installed: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """The message names the first folder on the way that other users may not enter."""
    inner = installed / "closed" / "bin"
    inner.mkdir(parents=True)
    if moved != "program":
        monkeypatch.setattr(sys, moved, str(inner / "x"))
    words = (str(inner / "x") if moved == "program" else "/bin/sh",)
    visibility.require_program(words)
    inner.chmod(0o754)  # others may list it, which is no use
    inner.parent.chmod(0o756)
    with pytest.raises(UnavailableError, match=f"for whom {inner.parent} is closed, and {inner}/x lies in it"):
        visibility.require_program(words)


def test_a_link_to_a_closed_program_does_not_help(installed: Path) -> None:
    """The service has to follow it."""
    closed = installed / "closed"
    closed.mkdir(mode=0o700)
    (installed / "link").symlink_to(closed / "x")
    with pytest.raises(UnavailableError, match=f"{closed} is closed"):
        visibility.require_program((str(installed / "link"),))


def test_a_users_service_sees_what_the_user_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its profile lies in one of the user's two folders, with any mode; its program anywhere."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "tunneld/profiles/pi.toml"
    file.parent.mkdir(parents=True)
    file.write_text(TEXT)
    file.chmod(0o600)
    scope = Scope(True, tmp_path / "units", ())
    visibility.require_visible(scope, ("/root/tunneld",), [load(str(file))])
    elsewhere = tmp_path / "pi.toml"
    elsewhere.write_text(TEXT)
    with pytest.raises(UsageError, match=f"your service looks .*: mv {elsewhere} {file.parent}/"):
        visibility.require_visible(scope, ("/root/tunneld",), [load(str(elsewhere))])


def test_the_systems_service_needs_program_and_profile(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked about."""
    file = tmp_path / "pi.toml"
    file.write_text(TEXT)
    profile = load(str(file))
    with pytest.raises(UsageError, match="the system's service looks"):
        visibility.require_visible(scope_of(0), ("/bin/sh",), [profile])
    monkeypatch.setattr(folders, "SYSTEM_PROFILES", tmp_path)
    visibility.require_visible(scope_of(0), ("/bin/sh",), [profile])
    installed.chmod(0o700)
    with pytest.raises(UnavailableError, match="is closed"):
        visibility.require_visible(scope_of(0), (str(installed / "x"),), [profile])


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
