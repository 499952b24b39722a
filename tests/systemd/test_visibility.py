"""What the system's service cannot see is said before anything is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunneld.errors import RightsError, UnavailableError, UsageError
from tunneld.profile import folders, load
from tunneld.systemd import visibility
from tunneld.systemd.service import scope_of

TEXT = '[relay]\nhost = "relay"\n[[forward]]\nlisten = "127.0.0.1:2222"\nto = "127.0.0.1:22"\n'


def test_a_program_in_a_temporary_folder_is_out_of_sight(tmp_path: Path) -> None:
    """The service's /tmp is its own; the text says where to install."""
    program = tmp_path / "tunneld"
    program.touch()
    with pytest.raises(UnavailableError, match=r"for whom /tmp is closed, .*/opt/tunneld/bin/tunneld enable NAME"):
        visibility.require_program((str(program),))


def test_a_profile_must_lie_where_the_service_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And be readable to more than its owner."""
    file = tmp_path / "pi.toml"
    file.write_text(TEXT)
    profile = load(str(file))
    with pytest.raises(UsageError, match=f"mv {file} {folders.SYSTEM}/"):
        visibility.require_profile(scope_of(0), profile)
    monkeypatch.setattr(folders, "SYSTEM", tmp_path)
    visibility.require_profile(scope_of(0), profile)
    file.chmod(0o600)
    with pytest.raises(RightsError, match=f"chmod a\\+r {file}"):
        visibility.require_profile(scope_of(0), profile)
