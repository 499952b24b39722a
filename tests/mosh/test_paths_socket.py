"""The window into a running session, and who may hold one."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tunneld.mosh import paths_socket
from tunneld.mosh.paths_socket import PathsSocket


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's windows are."""
    folder = tmp_path / "windows"
    monkeypatch.setattr(paths_socket, "folders", lambda: [str(folder)])
    return folder


def test_a_session_says_what_it_sees(folder: Path) -> None:
    """To whoever of the same user looks in."""
    opened = PathsSocket(paths_socket.prepare(), lambda: {"destination": "home"})

    def answer() -> None:
        select.select([opened.fd], [], [], 5)
        opened.answer()

    answering = threading.Thread(target=answer)
    answering.start()
    try:
        assert list(paths_socket.running_sessions()) == [{"destination": "home"}]
    finally:
        answering.join()
        opened.close()
    assert not os.listdir(folder)


def test_a_folder_too_deep_for_sockets_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session would have no window; the one in /tmp does."""
    deep = tmp_path / ("x" * 80)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert paths_socket.folders() == [f"/tmp/{paths_socket.FOLDER_NAME}-{os.geteuid()}"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert paths_socket.folders()[0] == f"/run/user/1000/{paths_socket.FOLDER_NAME}"


def assert_not_looked_into(folder: Path) -> None:
    """Whoever listens there is not asked."""
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(folder / "1.sock"))
        theirs.listen()
        theirs.setblocking(False)
        assert not list(paths_socket.running_sessions())
        with pytest.raises(BlockingIOError):
            theirs.accept()


@pytest.mark.parametrize("mode", [0o777, 0o755])
def test_a_folder_that_others_may_enter_is_not_looked_into(folder: Path, mode: int) -> None:
    """In /tmp anybody may have made it, and what they say would go to this terminal."""
    folder.mkdir()
    folder.chmod(mode)
    assert_not_looked_into(folder)
    with pytest.raises(PermissionError):
        paths_socket.prepare()


def test_somebody_else_s_folder_is_not_looked_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its mode."""
    paths_socket.prepare()
    monkeypatch.setattr(os, "geteuid", lambda: os.lstat(folder).st_uid + 1)
    assert_not_looked_into(folder)


def test_what_a_killed_session_left_is_passed_over(folder: Path) -> None:
    """Its socket is there, and nobody behind it."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(f"{paths_socket.prepare()}/1.sock")
    assert not list(paths_socket.running_sessions())
    assert os.listdir(folder) == ["1.sock"]  # its process lives


def test_what_a_killed_session_left_is_removed_by_the_next(folder: Path) -> None:
    """Whatever it listened at; only where its process is gone and nobody listens, which may be in another container."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    names = [f"{process.pid}-0a.sock", f"{process.pid}-0a.dial", f"{process.pid}-0b.sock", "notes"]
    paths_socket.prepare()
    sockets = [socket.socket(socket.AF_UNIX) for _ in names[:3]]
    for sock, name in zip(sockets, names, strict=False):
        sock.bind(f"{folder}/{name}")
    sockets[2].listen()
    (folder / "notes").touch()
    paths_socket.prepare()
    assert sorted(os.listdir(folder)) == names[2:]
    for sock in sockets:
        sock.close()
