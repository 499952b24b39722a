"""Files are written where they differ, and removed where they are ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.tunnel.supervised import profile_of
from tunneld.errors import RightsError, UnavailableError
from tunneld.profile import Relay
from tunneld.systemd import install
from tunneld.systemd.service import Scope, Service

OURS = install.INSTALLED + "[Service]\n"
THEIRS = "[Service]\nNice=5\n"


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return Scope(True, tmp_path / "units", (tmp_path / "packaged",))


def test_a_file_is_written_once(tmp_path: Path) -> None:
    """A file that is right is not touched; an older text is replaced."""
    path = tmp_path / "units" / "tunneld@.service"
    assert install.write({path: OURS}) == [path]
    assert path.stat().st_mode & 0o777 == 0o644
    assert install.write({path: OURS}) == []
    assert install.write({path: OURS + "Nice=1\n"}) == [path]
    assert path.read_text() == OURS + "Nice=1\n"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_file_is_for_every_user_to_read(tmp_path: Path) -> None:
    """systemd's own tools read it as the user who asks, whatever the umask of the shell that wrote it."""
    path = tmp_path / "tunneld@.service"
    before = os.umask(0o077)
    try:
        install.write({path: OURS})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_somebody_else_wrote_is_neither_written_nor_removed(tmp_path: Path) -> None:
    """The mark in the first line decides."""
    path = tmp_path / "tunneld@.service"
    path.write_text(THEIRS)
    for wanted in (OURS, None):
        with pytest.raises(RightsError, match="is not tunneld's own"):
            install.write({path: wanted})
    assert install.remove([path]) == []
    assert path.read_text() == THEIRS


def test_a_unit_that_was_copied_by_hand_is_taken_over(tmp_path: Path) -> None:
    """Its text is ours without the mark. An empty file is not ours: it masks a unit."""
    path = tmp_path / "tunneld@.service"
    path.write_text("[Service]\n")
    assert install.write({path: OURS}) == [path]
    path.write_text("")
    with pytest.raises(RightsError, match="is not tunneld's own"):
        install.write({path: OURS})


def test_a_drop_in_that_is_not_needed_any_more_goes_and_its_folder_with_it(tmp_path: Path) -> None:
    """A folder with somebody else's drop-in stays."""
    ours, theirs = (tmp_path / f"tunneld@.service.d/{name}" for name in ("10-path.conf", "theirs.conf"))
    install.write({ours: OURS})
    theirs.write_text(THEIRS)
    assert install.write({ours: None}) == [ours]
    assert not ours.exists()
    assert theirs.exists()
    install.write({ours: OURS})
    theirs.unlink()
    assert install.remove([ours]) == [ours]
    assert not ours.parent.exists()


def test_a_packaged_unit_is_not_copied(scope: Scope) -> None:
    """Then only a drop-in is needed, and only where the program is not in the usual place."""
    service = Service(scope, "pi")
    scope.packaged[0].mkdir()
    (scope.packaged[0] / "tunneld@.service").write_text(THEIRS)
    assert install.wanted(service, (), ("/usr/bin/tunneld",)) == {service.file: None, service.path_drop_in: None}
    text = install.wanted(service, (), ("/opt/tunneld",))[service.path_drop_in]
    assert text is not None
    assert text.splitlines()[1:] == ["[Service]", "ExecStart=", "ExecStart=/opt/tunneld run %i"]


def test_files_of_others_stay(scope: Scope) -> None:
    """The unit file goes with the last of its units that starts at boot, or runs."""
    one, other = Service(scope, "one"), Service(scope, "other")
    install.write(install.wanted(one, (), ("/opt/tunneld",)))
    wants = scope.units / "default.target.wants"
    wants.mkdir()
    (wants / other.unit).symlink_to(one.file)
    assert install.ours(one, ()) == []
    (wants / other.unit).unlink()
    assert install.ours(one, [one.unit, other.unit]) == []
    assert install.ours(one, [one.unit]) == [one.file, one.path_drop_in]


# The system's services


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the machine's own, with the files that the system's services need beside their units."""
    moved = tuple(
        (name, tmp_path / target.relative_to("/"), tmp_path / packaged.relative_to("/"), command)
        for name, target, packaged, command in install.SYSTEM_FILES
    )
    monkeypatch.setattr(install, "SYSTEM_FILES", moved)
    return tmp_path


@pytest.fixture
def system(root: Path) -> Scope:
    """The system's scope, in that folder."""
    return Scope(False, root / "etc/systemd/system", (root / "usr/lib/systemd/system",))


def test_a_service_of_the_system_comes_with_its_user_and_folders(root: Path, system: Scope) -> None:
    """The files of sysusers.d and tmpfiles.d are installed beside the unit, each with our mark."""
    files = install.wanted(Service(system, "pi"), (), ("/usr/bin/tunneld",))
    for path in (root / "etc/sysusers.d/tunneld.conf", root / "etc/tmpfiles.d/tunneld.conf"):
        text = files[path]
        assert text is not None
        assert text.startswith(install.MARKS[0])


def test_a_packages_user_and_folders_are_not_installed_again(root: Path, system: Scope) -> None:
    """Each of the two files for itself."""
    (root / "usr/lib/sysusers.d").mkdir(parents=True)
    (root / "usr/lib/sysusers.d/tunneld.conf").touch()
    files = install.wanted(Service(system, "pi"), (), ("/usr/bin/tunneld",))
    assert files[root / "etc/sysusers.d/tunneld.conf"] is None
    assert files[root / "etc/tmpfiles.d/tunneld.conf"] is not None


def test_a_file_that_two_profiles_need_is_lent_once(root: Path, system: Scope) -> None:
    """The drop-in for all profiles has each line once."""
    hosts = root / "hosts"
    hosts.touch()
    profiles = [profile_of(Relay(name, known_hosts=hosts, ssh_config=False)) for name in ("one", "other")]
    service = Service(system, None)
    text = install.wanted(service, profiles, ("/usr/bin/tunneld",))[service.credentials_drop_in]
    assert text is not None
    assert text.endswith("\n")
    assert sum(line.endswith(f":{hosts}") for line in text.splitlines()) == 1


@pytest.mark.parametrize(("name", "rest"), [("pi", "run %i"), (None, "run --all")])
def test_the_drop_in_of_a_program_elsewhere_starts_what_the_unit_does(
    system: Scope, name: str | None, rest: str
) -> None:
    """An instance runs its profile, and the service for all runs all of them."""
    service = Service(system, name)
    text = install.wanted(service, (), ("/opt/tunneld",))[service.path_drop_in]
    assert text is not None
    assert text.splitlines()[-1] == f"ExecStart=/opt/tunneld {rest}"


def test_systemds_programs_apply_what_is_installed_or_packaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is given our file, or the package's where that takes its place; a file that is not wanted is left alone."""
    ran: list[list[Any]] = []

    def runs(command: list[Any], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", runs)
    users, folders = root / "etc/sysusers.d/tunneld.conf", root / "etc/tmpfiles.d/tunneld.conf"
    install.apply_system_files({users: OURS, folders: None})
    assert ran == [
        ["systemd-sysusers", users],
        ["systemd-tmpfiles", "--create", root / "usr/lib/tmpfiles.d/tunneld.conf"],
    ]
    ran.clear()
    install.apply_system_files({folders: OURS})
    assert ran == [["systemd-tmpfiles", "--create", folders]]


def test_a_program_of_systemds_that_fails_is_heard(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has its words on one line; a missing program is named."""
    files = {root / "etc/sysusers.d/tunneld.conf": OURS}
    failed = subprocess.CompletedProcess([], 1, "", "no\n  such user\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UnavailableError, match=r"systemd-sysusers says: no such user$"):
        install.apply_system_files(files)

    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(UnavailableError, match="systemd-sysusers is not installed"):
        install.apply_system_files(files)


def test_the_last_service_of_the_system_takes_everything_with_it(root: Path, system: Scope) -> None:
    """Its lent files always; the user and the folders only when the service for all is not installed either."""
    pi, everything = Service(system, "pi"), Service(system, None)
    install.write(install.wanted(pi, [profile_of(Relay("relay"))], ("/opt/tunneld",)))
    shared = [root / "etc/sysusers.d/tunneld.conf", root / "etc/tmpfiles.d/tunneld.conf"]
    own = [pi.credentials_drop_in, pi.file, pi.path_drop_in]
    assert install.ours(pi, []) == [*own, *shared]
    assert install.ours(pi, ["tunneld@other.service"]) == [pi.credentials_drop_in]
    everything.file.write_text(OURS)
    assert install.ours(pi, []) == own
    everything.file.unlink()
    assert install.remove([*own, *shared]) == [*own, *shared]
    assert shared[0].parent.is_dir()  # systemd's own folders stay
    assert not pi.path_drop_in.parent.exists()


def test_what_somebody_else_added_is_named(system: Scope) -> None:
    """A drop-in of the user's own stays, and `disable` says so."""
    pi = Service(system, "pi")
    install.write({pi.credentials_drop_in: OURS})
    theirs = pi.drop_ins / "more.conf"
    theirs.write_text(THEIRS)
    assert install.foreign(pi) == [theirs]
    pi.credentials_drop_in.write_text(THEIRS)
    assert install.ours(pi, []) == []
    pi.credentials_drop_in.unlink()
    assert install.remove([pi.credentials_drop_in]) == []
