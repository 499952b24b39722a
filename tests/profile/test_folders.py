"""How a name or a path becomes a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunneld.errors import ProfileError
from tunneld.profile import directories, find, folders, found, load
from tunneld.profile.folders import SYSTEM


@pytest.fixture
def both_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's and the system's folder, both empty."""
    system = tmp_path / "etc"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(folders, "SYSTEM", system)
    user = tmp_path / "config" / "tunneld" / "profiles"
    user.mkdir(parents=True)
    system.mkdir()
    return user, system


def test_the_users_folder_comes_first(both_folders: tuple[Path, Path]) -> None:
    """A user's own profile hides the system's of the same name."""
    user, system = both_folders
    for file in (user / "a.toml", system / "a.toml", system / "b.toml"):
        file.touch()
    assert directories() == both_folders
    assert find("a") == user / "a.toml"
    assert find("b") == system / "b.toml"
    assert found() == (user / "a.toml", system / "b.toml")


def test_the_folder_is_under_dot_config_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So says the XDG base directory specification, and that a relative XDG_CONFIG_HOME is to be ignored."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(folders, "SYSTEM", SYSTEM)  # as it was before the tests' machine
    expected = (tmp_path / ".config/tunneld/profiles", Path("/etc/tunneld/profiles"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert directories() == expected
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert directories() == expected


def test_a_path_is_not_looked_up(both_folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A slash or the ending makes a path, seen from the working directory."""
    user, _ = both_folders
    (user / "a.toml").touch()
    monkeypatch.chdir(user.parent)
    assert find("a.toml") == user.parent / "a.toml"
    assert find("profiles/a.toml") == user / "a.toml"
    assert find("./a") == user.parent / "a"
    assert folders.name_of(find("./a")) == "a"


def test_a_name_that_is_not_there(both_folders: tuple[Path, Path]) -> None:
    """Where it was looked for, and what is near."""
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
    assert found() == ()


def test_a_dangling_link_is_found_and_told_about(both_folders: tuple[Path, Path]) -> None:
    """It must not let the system's profile of that name take its place in silence."""
    user, system = both_folders
    (user / "a.toml").symlink_to("gone")
    (system / "a.toml").touch()
    with pytest.raises(ProfileError, match=f"{user}/a.toml:1: there is no such file"):
        load("a")
