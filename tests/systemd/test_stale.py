"""Whether a service's copies are those of the files as they are now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tunnel.supervised import profile_of
from tunneld.profile import Profile, Relay
from tunneld.systemd import stale
from tunneld.systemd.credentials import credential_id
from tunneld.systemd.service import Scope, Service
from tunneld.systemd.stale import is_stale


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service of the system that runs, and whose copies the test makes."""
    monkeypatch.setattr(stale, "COPIES", tmp_path / "run")
    (tmp_path / "run/tunneld@pi.service").mkdir(parents=True)
    return Service(Scope(False, tmp_path / "units", ()), "pi")


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """It names a known_hosts alone, which exists."""
    (tmp_path / "hosts").write_text("relay ssh-ed25519 AAAA\n")
    relay = Relay("relay", identity=(tmp_path / "gone",), known_hosts=tmp_path / "hosts", ssh_config=False)
    return profile_of(relay)


def test_copies_of_the_files_as_they_are_serve_on(service: Service, profile: Profile, tmp_path: Path) -> None:
    """A reload is enough, until a file has changed."""
    file = tmp_path / "hosts"
    copy = tmp_path / "run/tunneld@pi.service" / credential_id(file)
    copy.write_bytes(file.read_bytes())
    assert not is_stale(service, [profile])
    file.write_text("relay ssh-ed25519 BBBB\n")
    assert is_stale(service, [profile])


def test_a_file_that_was_not_lent_makes_it_stale(service: Service, profile: Profile) -> None:
    """The profile names a file that it did not name when the service started."""
    assert is_stale(service, [profile])


def test_a_users_service_has_no_copies(profile: Profile, tmp_path: Path) -> None:
    """It reads the user's files themselves."""
    assert not is_stale(Service(Scope(True, tmp_path, ()), "pi"), [profile])
