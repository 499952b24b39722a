"""Folders that nobody else can reach into."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunneld.shipped.private_folder import WRITING, NotPrivateError, is_own, is_private, make_private


@pytest.fixture(autouse=True)
def open_by_default() -> Iterator[None]:
    """What is made here is as open as its own mode says."""
    before = os.umask(0o000)
    yield
    os.umask(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where one is to be."""
    return tmp_path / "tunneld"


def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask; a second call finds it right. Those above it are made as well."""
    for _ in range(2):
        make_private(str(tmp_path / "deep" / "tunneld"))
    assert (tmp_path / "deep" / "tunneld").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o740, 0o720, 0o710, 0o704, 0o702, 0o701])
def test_a_folder_that_is_open_to_others_is_refused(folder: Path, mode: int) -> None:
    """Each right of the group and of everybody else counts."""
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(NotPrivateError, match=f"{folder} belongs to, or is open to, somebody else"):
        make_private(str(folder))
    assert not is_private(os.lstat(folder))
    folder.chmod(0o700)
    assert is_private(os.lstat(folder))


@pytest.mark.parametrize(("mode", "is_taken"), [(0o755, True), (0o750, True), (0o720, False), (0o702, False)])
def test_others_may_be_welcome_to_look(folder: Path, mode: int, is_taken: bool) -> None:
    """A folder that they cannot write to is taken where that is enough."""
    folder.mkdir()
    folder.chmod(mode)
    if is_taken:
        make_private(str(folder), forbidden=WRITING)
    else:
        with pytest.raises(NotPrivateError):
            make_private(str(folder), forbidden=WRITING)


def test_somebody_elses_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The effective user counts, and those whom the caller trusts."""
    folder.mkdir(mode=0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(NotPrivateError):
        make_private(str(folder))
    assert not is_private(os.lstat(folder))
    assert not is_own(os.lstat(folder), (owner + 2,))
    make_private(str(folder), owners=(owner,))
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    make_private(str(folder))


def test_a_link_is_no_folder(folder: Path, tmp_path: Path) -> None:
    """Even one that leads to a private folder of ours."""
    (tmp_path / "real").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "real")
    with pytest.raises(NotPrivateError, match="is no folder"):
        make_private(str(folder))
    assert not is_private(os.lstat(folder))


def test_what_cannot_be_made_is_told(folder: Path) -> None:
    """By the system's own error."""
    folder.touch()
    with pytest.raises(FileExistsError):
        make_private(str(folder))
    with pytest.raises(NotADirectoryError):
        make_private(str(folder / "below"))


def test_a_file_is_private_as_a_file_alone(folder: Path) -> None:
    """The caller says which kind it awaits."""
    folder.touch(mode=0o600)
    assert is_private(os.lstat(folder), stat.S_IFREG)
    assert not is_private(os.lstat(folder))
    folder.chmod(0o640)
    assert not is_private(os.lstat(folder), stat.S_IFREG)
