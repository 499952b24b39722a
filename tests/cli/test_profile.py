"""`tunneld profile`, as a user types it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tunneld.cli import main
from tunneld.profile import folders

GOOD = '[relay]\nhost = "r"\n[[forward]]\nlisten = "127.0.0.1:2222"\nto = "127.0.0.1:22"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's profiles, none so far; the system has none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(folders, "SYSTEM_PROFILES", tmp_path / "etc")
    folder = tmp_path / "tunneld" / "profiles"
    folder.mkdir(parents=True)
    return folder


def test_a_good_profile_is_ok(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, exit 0."""
    (folder / "pi.toml").write_text(GOOD)
    assert main(["profile", "check", "pi"]) == 0
    assert capsys.readouterr() == (f"pi: ok ({folder}/pi.toml)\n", "")


def test_without_names_every_profile_is_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good ones are told on stdout, and all problems of the others on stderr, exit 78."""
    (folder / "good.toml").write_text(GOOD)
    (folder / "bad.toml").write_text(GOOD.replace("host", "hots"))
    (folder / "my worst.toml").write_text("")
    assert main(["profile", "check"]) == 78
    out, err = capsys.readouterr()
    assert out == f"good: ok ({folder}/good.toml)\n"
    places = [line.removeprefix(f"{folder}/").partition(" ")[0] for line in err.splitlines()[:2]]
    assert places == ["bad.toml:1:", "bad.toml:2:"]
    assert f"{folder}/my worst.toml:1: 'my worst' cannot be a profile's name" in err


def test_profiles_in_one_anothers_way_are_not_ok(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is good alone, and the later one is in the wrong."""
    for name in ("a", "b"):
        (folder / f"{name}.toml").write_text(GOOD)
    assert main(["profile", "check"]) == 78
    out, err = capsys.readouterr()
    assert out == f"a: ok ({folder}/a.toml)\n"
    assert err.startswith(f"{folder}/b.toml:4: forward[1].listen: 127.0.0.1:2222 is taken by forward[1] of a")


def test_nothing_to_check_is_not_a_success(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script that checks the wrong folder should notice."""
    assert main(["profile", "check"]) == 64
    assert f"there are no profiles in {folder}" in capsys.readouterr().err


def test_show_prints_toml_with_defaults(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And where the profile came from."""
    (folder / "pi.toml").write_text(GOOD)
    assert main(["profile", "show", "pi"]) == 0
    out = capsys.readouterr().out
    assert f"{folder}/pi.toml" in out.splitlines()[0]
    assert tomllib.loads(out)["keepalive"] == {"interval": 10, "count": 3}


def test_show_of_a_bad_profile_says_its_problems(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing on stdout then, exit 78."""
    (folder / "pi.toml").write_text("[relay]")
    assert main(["profile", "show", "pi"]) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{folder}/pi.toml:1: relay.host: is missing" in err


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Ready to be put into a file for an editor."""
    assert main(["profile", "schema"]) == 0
    Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


def test_a_mistyped_action_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 64, and no usage text to search through."""
    assert main(["profile", "chek"]) == 64
    assert "did you mean 'check'?" in capsys.readouterr().err
    assert main(["profile"]) == 64
