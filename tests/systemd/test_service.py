"""A service's names and paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunneld.systemd.service import Scope, Service, scope_of


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    """The system's, in a folder of the test's."""
    return Scope(False, tmp_path / "units", (tmp_path / "packaged",))


def enable(service: Service, target: str = "multi-user.target") -> None:
    """What `systemctl enable` does."""
    wants = service.scope.units / f"{target}.wants"
    wants.mkdir(parents=True, exist_ok=True)
    service.file.touch()
    (wants / service.unit).symlink_to(service.file)


def test_root_has_the_systems_scope() -> None:
    """Units go to /etc, and people call systemctl."""
    scope = scope_of(0)
    assert (scope.user, scope.units) == (False, Path("/etc/systemd/system"))
    assert (scope.control, scope.journal) == ("systemctl", "journalctl")
    assert Path("/usr/lib/systemd/system") in scope.packaged


def test_anybody_else_has_a_scope_of_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units go to the user's configuration, and people call systemctl --user."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    scope = scope_of(1000)
    assert (scope.user, scope.units, scope.control) == (True, tmp_path / "systemd/user", "systemctl --user")
    assert scope.journal == "journalctl --user"
    assert Path("/usr/lib/systemd/user") in scope.packaged


def test_a_profiles_service_is_an_instance(scope: Scope) -> None:
    """Its files are the template's, but for the files that are lent to it alone."""
    service = Service(scope, "pi")
    assert (service.unit, service.short, service.argument) == ("tunneld@pi.service", "tunneld@pi", "pi")
    assert service.file == scope.units / "tunneld@.service"
    assert service.path_drop_in == scope.units / "tunneld@.service.d/10-path.conf"
    assert service.credentials_drop_in == scope.units / "tunneld@pi.service.d/20-credentials.conf"
    assert service == Service(scope, None).instance("pi")
    assert service.drop_ins == scope.units / "tunneld@pi.service.d"
    assert service.source.is_file()


def test_one_service_for_all_has_a_unit_of_its_own(scope: Scope) -> None:
    """`--all` names it."""
    service = Service(scope, None)
    assert (service.unit, service.short, service.argument) == ("tunneld.service", "tunneld", "--all")
    assert service.source.is_file()


def test_a_users_unit_is_another_file(tmp_path: Path) -> None:
    """It lacks what only the system's systemd can do."""
    mine, systems = (Service(Scope(user, tmp_path, ()), "pi").source for user in (True, False))
    assert mine.is_file()
    assert mine != systems


def test_links_say_what_starts_at_boot(scope: Scope) -> None:
    """Whatever target wants it; a unit of the other file does not count."""
    pi, other, everything = Service(scope, "pi"), Service(scope, "other"), Service(scope, None)
    assert not pi.is_enabled
    enable(pi)
    enable(other, "default.target")
    enable(everything)
    assert pi.is_enabled
    assert pi.others() == {other.unit}
    assert everything.is_enabled
    assert everything.others() == set()


def test_a_tunnel_has_one_service(scope: Scope) -> None:
    """Its instance and the service for all are rivals; a user has no service for all."""
    pi, everything = Service(scope, "pi"), Service(scope, None)
    assert pi.rivals(["pi"]) == [everything]
    assert everything.rivals(["pi", "other"]) == [pi, Service(scope, "other")]
    assert Service(Scope(True, scope.units, ()), "pi").rivals(["pi"]) == []


def test_the_sibling_is_of_the_other_unit_file(scope: Scope) -> None:
    """The two share the files of sysusers and tmpfiles."""
    assert Service(scope, "pi").sibling().template == "tunneld.service"
    assert Service(scope, None).sibling().template == "tunneld@.service"


def test_a_packages_unit_is_known(scope: Scope) -> None:
    """By its name, in any of the folders where packages install."""
    assert not Service(scope, "pi").is_packaged
    scope.packaged[0].mkdir()
    (scope.packaged[0] / "tunneld@.service").touch()
    assert Service(scope, "pi").is_packaged
    assert not Service(scope, None).is_packaged
