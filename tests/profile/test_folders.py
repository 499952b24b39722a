"""How a name or a path becomes a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunneld.errors import ProfileError
from tunneld.profile import find_profile, folders, load, profile_files, profile_folders
from tunneld.profile.folders import SYSTEM_PROFILES


@pytest.fixture
def both_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's and the system's folder, both empty."""
    system = tmp_path / "etc"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(folders, "SYSTEM_PROFILES", system)
    user = tmp_path / "config" / "tunneld" / "profiles"
    user.mkdir(parents=True)
    system.mkdir()
    return user, system


def test_the_users_folder_comes_first(both_folders: tuple[Path, Path]) -> None:
    """A user's own profile hides the system's of the same name."""
    user, system = both_folders
    for file in (user / "a.toml", system / "a.toml", system / "b.toml"):
        file.touch()
    assert profile_folders() == both_folders
    assert find_profile("a") == user / "a.toml"
    assert find_profile("b") == system / "b.toml"
    assert profile_files() == (user / "a.toml", system / "b.toml")


def test_the_folder_is_under_dot_config_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG Base Directory Specification says, which also says to ignore a relative XDG_CONFIG_HOME."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(folders, "SYSTEM_PROFILES", SYSTEM_PROFILES)  # as it was before the tests' machine
    expected = (tmp_path / ".config/tunneld/profiles", Path("/etc/tunneld/profiles"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert profile_folders() == expected
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert profile_folders() == expected


def test_a_path_is_not_looked_up(both_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A text with a slash, or with `.toml` at its end, is a path from the working directory."""
    user, _ = both_folders
    (user / "a.toml").touch()
    monkeypatch.chdir(user.parent)
    assert find_profile("a.toml") == user.parent / "a.toml"
    assert find_profile("profiles/a.toml") == user / "a.toml"
    assert find_profile("./a") == user.parent / "a"
    assert folders.profile_name(find_profile("./a")) == "a"


def test_a_name_that_is_not_there(both_folders: tuple[Path, Path]) -> None:
    """The message says where it was looked for, and which name is near."""
    user, system = both_folders
    (system / "pi-home.toml").touch()
    with pytest.raises(ProfileError) as caught:
        load("pi-hom")
    assert str(caught.value) == (
        f"{user}/pi-hom.toml:1: there is no profile 'pi-hom' here, nor in {system}: did you mean pi-home?"
    )
    with pytest.raises(ProfileError, match="write it there, or give its path"):
        load("quite-different")


@pytest.mark.parametrize("name", ["", "..", "-x", "a b", "pi@home"])
def test_a_word_that_cannot_be_a_name(both_folders: tuple[Path, Path], name: str) -> None:
    """It is not looked for at all."""
    with pytest.raises(ProfileError, match="cannot be a profile's name"):
        load(name)


def test_editors_leftovers_are_no_profiles(both_folders: tuple[Path, Path]) -> None:
    """Hidden files and other endings are passed over."""
    user, _ = both_folders
    for name in (".#a.toml", "a.toml~", "notes.txt"):
        (user / name).touch()
    assert profile_files() == ()


def test_a_dangling_link_is_found(both_folders: tuple[Path, Path]) -> None:
    """It must not let the system's profile of that name take its place in silence."""
    user, system = both_folders
    (user / "a.toml").symlink_to("gone")
    (system / "a.toml").touch()
    with pytest.raises(ProfileError, match=f"{user}/a.toml:1: there is no such file"):
        load("a")
