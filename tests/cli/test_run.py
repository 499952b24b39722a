"""`tunneld run` before its daemon starts: which profiles it runs, and how many descriptors it may have."""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import pytest

from tests.datagrams import inbox
from tunneld.cli import run
from tunneld.errors import ProfileError, UsageError

GOOD = '[relay]\nhost = "r"\n[[forward]]\nlisten = "127.0.0.1:2222"\nto = "127.0.0.1:22"\n'


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of profiles, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "tunneld/profiles"
    folder.mkdir(parents=True)
    return folder


def arguments(*names: str, all: bool = False) -> argparse.Namespace:
    return argparse.Namespace(names=list(names), all=all, log_format=None)


def test_all_are_those_that_can_run_side_by_side(profiles: Path) -> None:
    """A mistake, or a port that an earlier profile has, keeps a profile out and no other down."""
    (profiles / "a.toml").write_text(GOOD)
    (profiles / "b.toml").write_text(GOOD)
    (profiles / "c.toml").write_text(GOOD.replace("host", "hots"))
    (profiles / "d.toml").write_text(GOOD.replace("2222", "2223"))
    good, problems = run._chosen(arguments(all=True))
    assert [each.name for each in good] == ["a", "d"]
    assert sorted({problem.file.name for problem in problems}) == ["b.toml", "c.toml"]


def test_without_any_that_can_run_all_problems_are_told(profiles: Path) -> None:
    """An empty folder is a problem as well."""
    with pytest.raises(ProfileError, match="this folder holds no profile"):
        run._chosen(arguments(all=True))
    (profiles / "c.toml").write_text(GOOD.replace("host", "hots"))
    with pytest.raises(ProfileError, match="hots"):
        run._chosen(arguments(all=True))


def test_a_name_that_is_given_twice_is_one_tunnel(profiles: Path) -> None:
    """Two would be in each other's way."""
    (profiles / "a.toml").write_text(GOOD)
    assert [each.name for each in run._chosen(arguments("a", "a"))[0]] == ["a"]


def test_an_error_is_the_services_status_too(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`systemctl status` shows it, where the journal is not read."""
    with inbox(profiles) as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
        with pytest.raises(UsageError, match="name the profiles"):
            run.run(arguments())
        assert systemd.texts() == [
            "STATUS=name the profiles to run, or write --all, and not both: `tunneld run NAME` or `tunneld run --all`"
        ]


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 1 << 20, run.DESCRIPTORS),
        (1024, 4096, 4096),
        (1024, resource.RLIM_INFINITY, run.DESCRIPTORS),
        (run.DESCRIPTORS, 1 << 20, None),
        (1 << 19, 1 << 20, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
        (4096, 4096, None),
    ],
)
def test_the_limit_of_descriptors_is_raised_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None
) -> None:
    """As far as a process may without asking anybody."""
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    run._raise_descriptor_limit()
    assert set_to == ([] if raised is None else [(raised, hard)])
