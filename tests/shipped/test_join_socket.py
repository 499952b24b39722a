"""What killed agents leave, and how a living one is told from them."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.sshd import descendants
from tunneld.shipped import join_socket

PROGRAM = f"""
import os, sys
sys.path.insert(0, {join_socket.__file__.removesuffix("/tunneld/shipped/join_socket.py")!r})
from tunneld.shipped.join_socket import JoinSocket
if len(sys.argv) > 1:
    os.setuid(int(sys.argv[1]))
joining = JoinSocket("far")
print(joining.folder, flush=True)
sys.stdin.readline()
"""


class Owner:
    """A process that has a join socket: in a PID namespace of its own if it is `apart`, and as this user."""

    def __init__(self, place: Path, *user: str, apart: bool = False) -> None:
        enter = ["unshare", "--pid", "--fork", "--kill-child"] if apart else []
        self.process = subprocess.Popen(
            [*enter, sys.executable, "-ISc", PROGRAM, *user],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"TMPDIR": str(place), "PATH": os.environ["PATH"]},
        )
        assert self.process.stdout
        self.folder = Path(self.process.stdout.readline().decode().strip())

    def kill(self) -> None:
        for pid in [*descendants(self.process.pid), self.process.pid]:
            os.kill(pid, 9)
        self.process.communicate()


@pytest.fixture
def place() -> Iterator[Path]:
    """Short enough for a socket's path, and open to others, as pytest's own folders may not be."""
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def joining(place: Path) -> Iterator[join_socket.JoinSocket]:
    """A join socket of this process."""
    joining = join_socket.JoinSocket("far", str(place))
    yield joining
    joining.close()


def admitted(joining: join_socket.JoinSocket, words: bytes, fds: list[int]) -> join_socket.Joiner | None:
    """What becomes of a process that connects, says these words and passes these files."""
    with socket.socket(socket.AF_UNIX) as joiner:
        joiner.connect(joining.path)
        socket.send_fds(joiner, [words], fds)
        return joining.admit()


def test_a_process_brings_its_words_its_input_and_its_output(joining: join_socket.JoinSocket) -> None:
    """In this order; of the words 256 bytes are read."""
    (reads, writes), words = os.pipe(), bytes(range(256))
    joiner = admitted(joining, words + b"more", [reads, writes])
    assert joiner
    assert joiner.words == words
    assert list(map(os.fstat, joiner.fds)) == [os.fstat(reads), os.fstat(writes)]
    os.write(joiner.fds[1], b"to its output")
    assert os.read(joiner.fds[0], 99) == b"to its output"
    joiner.turn_away()
    for fd in (reads, writes):
        os.close(fd)
    for fd in (*joiner.fds, joiner.keeper):
        with pytest.raises(OSError):
            os.fstat(fd)


def test_only_two_streams_are_admitted(joining: join_socket.JoinSocket, tmp_path: Path) -> None:
    """Neither one alone, nor a file, nor none; what was brought is closed."""
    (reads, writes), before = os.pipe(), len(os.listdir("/proc/self/fd"))
    file = os.open(tmp_path / "file", os.O_CREAT)
    for fds in ([], [reads], [reads, file], [file, writes]):
        assert admitted(joining, b"words", fds) is None
    for fd in (reads, writes, file):
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_nobody_has_connected(joining: join_socket.JoinSocket) -> None:
    """Then nobody joins, and nothing is waited for."""
    assert joining.admit() is None


def test_only_its_user_enters_the_folder_and_closing_removes_it(place: Path) -> None:
    """Its name has the process id and six random digits."""
    joining = join_socket.JoinSocket("far", str(place))
    assert stat.S_IMODE(os.stat(joining.folder).st_mode) == 0o700
    (name,) = os.listdir(place)
    assert re.fullmatch(f"tunneld-far-{os.getpid()}-[0-9a-f]{{6}}", name)
    joining.close()
    assert os.listdir(place) == []


def test_sockets_of_an_ended_process_are_swept(place: Path) -> None:
    """A socket of its own and a folder with several; not while somebody listens on one of them."""
    pid = ended_process()
    folders = [place / f"tunneld-far-{pid}-{name}" for name in ("0a", "0b")]
    bound = [place / f"tunneld-far-{pid}.sock"]
    for folder in folders:
        folder.mkdir()
        bound += [folder / "join", folder / "more"]
    sockets = [socket.socket(socket.AF_UNIX) for _ in bound]
    for sock, path in zip(sockets, bound, strict=True):
        sock.bind(str(path))
    sockets[-1].listen(1)
    join_socket.sweep(str(place), "tunneld-far-")
    for sock in sockets:
        sock.close()
    assert os.listdir(place) == [folders[1].name]
    assert sorted(os.listdir(folders[1])) == ["join", "more"]


def test_what_a_killed_agent_left_is_removed_by_the_next(place: Path) -> None:
    """Its folder, and the socket in it."""
    one = Owner(place)
    one.kill()
    assert one.folder.exists()
    two = Owner(place)
    assert os.listdir(place) == [two.folder.name]
    two.kill()


def ended_process() -> int:
    """A number that no process has."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_the_folder_of_a_living_process_is_let_be(place: Path) -> None:
    """It may have been made, and its socket not yet."""
    left = [place / f"tunneld-far-{pid}-0a" for pid in (os.getpid(), ended_process())]
    for folder in left:
        folder.mkdir()
    join_socket.JoinSocket("far", str(place)).close()
    assert [folder.exists() for folder in left] == [True, False]


def test_other_names_are_let_be(place: Path) -> None:
    """Those of another kind, and folders that hold anything but sockets."""
    pid = ended_process()
    left = [place / f"tunneld-agent-{pid}-0a", place / f"tunneld-far-{pid}", place / f"tunneld-far-{pid}-0b"]
    for folder in left:
        folder.mkdir()
    (left[2] / "notes").touch()
    join_socket.JoinSocket("far", str(place)).close()
    assert all(folder.exists() for folder in left)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could remove what is somebody else's")
def test_what_is_somebody_elses_is_let_be(place: Path) -> None:
    """root cleans up after itself alone."""
    folder = place / f"tunneld-far-{ended_process()}-0a"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    join_socket.JoinSocket("far", str(place)).close()
    assert folder.exists()


def test_a_deep_folder_for_temporary_files_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Unix socket's path has no room for it."""
    for length, is_used in ((70, True), (71, False)):
        folder = "/" + "x" * (length - 1)
        monkeypatch.setenv("TMPDIR", folder)
        assert join_socket.root() == (folder if is_used else "/tmp")


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_an_agent_in_another_container_is_let_be(place: Path) -> None:
    """They may share /tmp, and see nothing of each other's processes."""
    here = Owner(place)
    there = Owner(place, apart=True)
    assert here.folder.exists()
    here.kill()
    assert here.folder.exists()
    there.kill()
    last = Owner(place, apart=True)
    assert not here.folder.exists()
    last.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_an_agent_needs_no_list_of_the_folder(place: Path) -> None:
    """Some machines have a /tmp in which users must not see each other's files."""
    place.chmod(0o1733)
    one = Owner(place, "65534")
    assert one.folder.parent == place
    one.kill()


def test_a_socket_whose_owner_is_busy_is_let_be(place: Path) -> None:
    """Its backlog is full, so nobody can connect at once, and a sweep does not wait."""
    path = place / f"tunneld-far-{ended_process()}.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as one:
        busy.bind(str(path))
        busy.listen(0)
        one.connect(str(path))
        join_socket.sweep(str(place), "tunneld-far-")
        assert path.exists()
