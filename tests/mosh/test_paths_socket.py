"""The paths socket of a running session, and whose sockets are asked."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tunneld.mosh import paths_socket
from tunneld.mosh.paths_socket import LONGEST_FOLDER, PathsSocket


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user's paths sockets."""
    folder = tmp_path / "sockets"
    monkeypatch.setattr(paths_socket, "folders", lambda: [str(folder)])
    return folder


def test_a_session_tells_its_paths(folder: Path) -> None:
    """It answers its own user, and takes its socket away when it ends."""
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
    """No socket fits in there; the folder in /tmp is used."""
    deep = tmp_path / ("x" * 80)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert paths_socket.folders() == [f"/tmp/{paths_socket.FOLDER_NAME}-{os.geteuid()}"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert paths_socket.folders()[0] == f"/run/user/1000/{paths_socket.FOLDER_NAME}"


@pytest.mark.parametrize(("length", "is_used"), [(LONGEST_FOLDER, True), (LONGEST_FOLDER + 1, False)])
def test_one_byte_more_is_too_deep(monkeypatch: pytest.MonkeyPatch, length: int, is_used: bool) -> None:
    """A socket's path has room for so much."""
    folder = f"/{'x' * (length - len(paths_socket.FOLDER_NAME) - 2)}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    assert (f"{folder}/{paths_socket.FOLDER_NAME}" in paths_socket.folders()) is is_used


def test_a_session_that_answers_nonsense_hides_no_other(folder: Path) -> None:
    """Neither does a socket that is none of a session, such as that at which ssh takes its connection."""
    paths_socket.prepare()
    with (
        socket.socket(socket.AF_UNIX) as odd,
        socket.socket(socket.AF_UNIX) as other,
        contextlib.closing(PathsSocket(str(folder), lambda: {"destination": "home"})) as session,
    ):
        for listener, name in ((odd, "0.sock"), (other, "0.dial")):
            listener.bind(f"{folder}/{name}")
            listener.listen()
        other.setblocking(False)

        def answer() -> None:
            visitor, _ = odd.accept()
            with visitor:
                visitor.sendall(b"nonsense")
            select.select([session.fd], [], [], 5)
            session.answer()

        answering = threading.Thread(target=answer)
        answering.start()
        assert list(paths_socket.running_sessions()) == [{"destination": "home"}]
        answering.join()
        with pytest.raises(BlockingIOError):
            other.accept()


def assert_not_asked(folder: Path) -> None:
    """A program that listens in this folder is not asked."""
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(folder / "1.sock"))
        theirs.listen()
        theirs.setblocking(False)
        assert not list(paths_socket.running_sessions())
        with pytest.raises(BlockingIOError):
            theirs.accept()


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o710, 0o701])
def test_in_a_folder_that_others_may_enter_nobody_is_asked(folder: Path, mode: int) -> None:
    """In /tmp anybody may have made it, and what they say would be shown on this terminal."""
    folder.mkdir()
    folder.chmod(mode)
    assert_not_asked(folder)
    with pytest.raises(PermissionError):
        paths_socket.prepare()


def test_a_link_to_a_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """In /tmp anybody may have made it, and led it to a folder of ours."""
    private = tmp_path / "private"
    private.mkdir(0o700)
    folder.symlink_to(private)
    assert_not_asked(folder)
    with pytest.raises(OSError):
        paths_socket.prepare()


def test_in_somebody_else_s_folder_nobody_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mode does not matter."""
    paths_socket.prepare()
    monkeypatch.setattr(os, "geteuid", lambda: os.lstat(folder).st_uid + 1)
    assert_not_asked(folder)


def test_what_a_killed_session_left_is_passed_over(folder: Path) -> None:
    """Its socket is there, and nobody listens."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(f"{paths_socket.prepare()}/1.sock")
    assert not list(paths_socket.running_sessions())
    assert os.listdir(folder) == ["1.sock"]  # its process lives


def test_what_a_killed_session_left_is_removed_by_the_next(folder: Path) -> None:
    """Only what a process has left that is gone: one in another container may still listen."""
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
