"""Files are written where they differ, and removed where they are ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunneld.errors import RightsError
from tunneld.systemd import install
from tunneld.systemd.service import Scope, Service

OURS = install.INSTALLED + "[Service]\n"
THEIRS = "[Service]\nNice=5\n"


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return Scope(True, tmp_path / "units", (tmp_path / "packaged",))


def test_a_file_is_written_once(tmp_path: Path) -> None:
    """What is as it should be is not touched; what is older is replaced."""
    path = tmp_path / "units" / "tunneld@.service"
    assert install.write({path: OURS}) == [path]
    assert path.stat().st_mode & 0o777 == 0o644
    assert install.write({path: OURS}) == []
    assert install.write({path: OURS + "Nice=1\n"}) == [path]
    assert path.read_text() == OURS + "Nice=1\n"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


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
    """It is ours, word for word, but for the mark; an empty one, as of a masked unit, is not."""
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
    assert theirs.exists()
    install.write({ours: OURS})
    theirs.unlink()
    assert install.remove([ours]) == [ours]
    assert not ours.parent.exists()


def test_a_packaged_unit_is_not_copied(scope: Scope) -> None:
    """Only where the program is has to be said, and not even that for the usual place."""
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
