"""The route through a jump host: a real ssh shares its connection there in a folder of ours."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.mosh.jumping import Jump, needs_openssh
from tunneld.mosh import jump_route
from tunneld.mosh.jump_route import LONGEST_SOCKET_ROOT, JumpRoute


def test_what_is_asked_of_ssh_is_waited_for() -> None:
    """Whoever wants the options gets them with the jump host in them, however long ssh takes."""
    route = JumpRoute(["-J", "gate"], {"proxyjump": "gate"}, lambda words: {"hostname": "192.0.2.1"})
    try:
        assert "-W" in route.options("first")[1]
        assert f"ControlPath={route.socket('first')}" in route.options("first")[1]
        assert route.first_settings == {"hostname": "192.0.2.1"}
        assert not route.is_shared("first")
        Path(route.socket("first")).touch()
        assert route.is_shared("first")
        assert not route.is_shared("stream-1")
    finally:
        os.unlink(route.socket("first"))
        route.close()


def test_a_connection_of_the_person_s_own_needs_no_folder() -> None:
    """It is shared already, and ssh's options stay as they are."""
    shared = {"hostname": "192.0.2.1", "controlmaster": "auto", "controlpath": "/tmp/x"}
    route = JumpRoute(["-J", "gate"], {"proxyjump": "gate"}, lambda words: shared)
    assert route.options("first") == ("-J", "gate")
    assert route.first_settings == {}
    assert route.socket("first") == ""
    assert route.is_shared("first")
    route.close()


def test_where_there_is_no_place_for_a_folder_ssh_makes_the_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session starts; only our agent on the jump host is missing."""
    monkeypatch.setattr(jump_route, "_root", lambda: "/nonexistent")
    route = JumpRoute(["-J", "gate"], {"proxyjump": "gate"}, lambda words: {"hostname": "192.0.2.1"})
    assert route.jump_host is None
    assert route.options("first") == ("-J", "gate")
    route.close()


@needs_openssh
@pytest.mark.parametrize(
    ("length", "letter"), [(LONGEST_SOCKET_ROOT, "x"), (70, "x"), (40, " "), (40, '"'), (40, "'"), (40, "\\")]
)
def test_no_folder_for_temporary_files_is_an_obstacle(
    jump: Jump, monkeypatch: pytest.MonkeyPatch, length: int, letter: str
) -> None:
    """ssh needs more room for its socket than the socket's own name, and takes neither blanks nor quotes in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(short) / (letter * (length - len(short) - 1))
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        jump.prepare("-J", "jump")
        jump.connect("stream-1000")
        is_suitable = length <= LONGEST_SOCKET_ROOT and letter == "x"
        assert (Path(jump.route.socket("first")).parent.parent == folder) is is_suitable


def test_one_byte_more_is_too_long_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes count, not letters."""
    for folder, is_suitable in (
        ("x" * (LONGEST_SOCKET_ROOT - 1), True),
        ("x" * LONGEST_SOCKET_ROOT, False),
        ("ü" * 30, False),
    ):
        monkeypatch.setenv("TMPDIR", f"/{folder}")
        assert (jump_route._root() == f"/{folder}") is is_suitable


@needs_openssh
def test_nothing_stays_behind(jump: Jump) -> None:
    """Only its owner can enter the folder, and both folder and socket go with the session."""
    agent = jump.prepare("-J", "jump")
    jump.connect()
    folder = Path(jump.route.socket("first")).parent
    assert (folder / "first").is_socket()
    assert folder.stat().st_mode & 0o777 == 0o700
    jump.begin()
    jump.client.step(0.02)
    agent.close()
    assert not folder.exists()


def test_what_a_killed_session_left_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next session does it; what belongs to a living process stays, and so do files that are no sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("TMPDIR", short)
        gone = subprocess.Popen(["true"])
        gone.wait()
        names = (f"{gone.pid}-0a0b0c", f"{gone.pid}-mine", f"{os.getpid()}-0a0b0c")
        stale, own, alive = (Path(short) / f"tunneld-jump-{name}" for name in names)
        for folder in (stale, own, alive):
            folder.mkdir()
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(folder / "first"))
        (own / "thesis").touch()
        route = JumpRoute(["-J", "gate"], {"proxyjump": "gate"}, lambda words: {"hostname": "192.0.2.1"})
        assert route.jump_host
        assert alive.exists()
        assert not stale.exists()
        assert os.listdir(own) == ["thesis"]
        route.close()


@needs_openssh
def test_without_a_jump_host_nothing_changes(jump: Jump) -> None:
    """ssh's options are the person's own, and `--paths` says nothing of a jump host."""
    agent = jump.prepare("-v")
    assert jump.route.options("first") == ("-F", str(jump.guest.config), "-v")
    jump.begin()
    jump.client.step(0.02)
    assert agent.status() is None
