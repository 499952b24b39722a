"""`tunneld status` against daemons that misbehave in every way; tests/daemon/test_daemon.py has one that works."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunneld.cli import status
from tunneld.cli.status import NotRunningError
from tunneld.core.supervise.lifecycle import State
from tunneld.errors import RightsError, UnavailableError
from tunneld.status.snapshot import TunnelStatus, to_json

UP = to_json(TunnelStatus(name="pi", state=State.UP, since=1, relay="relay")).encode() + b"\n"
DOWN = to_json(TunnelStatus(name="pi", state=State.BACKOFF, since=1, relay="relay")).encode() + b"\n"


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Only this folder is looked at."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("tunneld.daemon.run_folder.SYSTEM_FOLDER", tmp_path)
    return tmp_path


@contextlib.contextmanager
def saying(path: Path, answer: bytes, *, then_hang: bool = False) -> Iterator[None]:
    """Something that listens where a daemon would, and gives each client this answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        over = threading.Event()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client, contextlib.suppress(BrokenPipeError):
                        client.sendall(answer)
                        if then_hang:
                            over.wait(20)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def run(name: str | None = None, *, as_json: bool = False) -> int:
    return status.run(argparse.Namespace(name=name, json=as_json))


def test_the_exit_code_tells_whether_all_are_up(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is 0 only when every tunnel is up, for scripts."""
    with saying(run_folder / "one.sock", UP):
        assert run() == 0
        with saying(run_folder / "two.sock", DOWN):
            assert run() == 1
            assert run("one") == 0
    assert capsys.readouterr().out.count("pi: up for 1 s") == 3


def test_json_is_a_line_for_each_tunnel(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It holds what the daemon said, for programs."""
    with saying(run_folder / "one.sock", UP), saying(run_folder / "two.sock", DOWN):
        assert run(as_json=True) == 1
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert states == ["up", "backoff"]


@pytest.mark.parametrize("answer", [b"", b"\x00\xff" * 100, b"HTTP/1.1 200 OK\r\n\r\n", b"[1]\n", b'{"state":"up"}\n'])
def test_an_answer_that_is_none_is_said(run_folder: Path, answer: bytes) -> None:
    """The message names the tunnel; there is no traceback."""
    with saying(run_folder / "pi.sock", answer), pytest.raises(UnavailableError, match="of pi gives no usable answer"):
        run("pi")


def test_a_daemon_that_hangs_is_not_waited_for_long(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts and says nothing. Among other tunnels it is not passed over in silence."""
    monkeypatch.setattr(status, "STATUS_TIMEOUT", 0.2)
    with saying(run_folder / "pi.sock", b'{"name"', then_hang=True):
        for name in ("pi", None):
            with pytest.raises(UnavailableError, match="no usable answer: timed out"):
                run(name)


def test_an_endless_answer_ends(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer fills the memory."""
    monkeypatch.setattr(status, "LONGEST_STATUS_JSON", 1 << 16)
    with saying(run_folder / "pi.sock", b"x" * (1 << 22)), pytest.raises(UnavailableError, match="no usable answer"):
        run("pi")


def test_a_killed_daemons_socket_is_passed_over(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A kill leaves it behind. The other tunnels are shown."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(run_folder / "dead.sock"))
    with saying(run_folder / "one.sock", UP):
        assert run() == 0
    assert "pi: up" in capsys.readouterr().out
    with pytest.raises(UnavailableError, match="dead is not running; start it with `tunneld run dead`"):
        run("dead")


def test_a_folder_that_we_may_not_enter_hides_no_tunnel(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of a service may see its tunnels. Anybody else is told so, and never that nothing runs."""
    run_folder.chmod(0o750)
    monkeypatch.setattr(status, "_is_hidden", lambda folder: folder == run_folder)
    for name in ("pi", None):
        with pytest.raises(
            RightsError, match=rf"{run_folder} belong to .* as root, or as a member of the group {run_folder.group()}"
        ):
            run(name)


@pytest.mark.parametrize(("mode", "hidden"), [(0o700, False), (0o600, True), (0o300, True), (0o000, True)])
def test_a_folder_is_hidden_where_its_names_or_its_sockets_are(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int, hidden: bool
) -> None:
    """Who may read it sees the names, but only who may enter it can ask. (Root, as whom tests run, may do all.)"""
    monkeypatch.setattr(os, "access", lambda _, wanted, **__: mode >> 6 & wanted == wanted)
    assert status._is_hidden(run_folder) is hidden
    assert not status._is_hidden(run_folder / "missing")


def test_a_folder_that_only_its_owner_may_enter_names_no_group(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else people would join a group in vain."""
    run_folder.chmod(0o700)
    monkeypatch.setattr(status, "_is_hidden", lambda folder: folder == run_folder)
    with pytest.raises(RightsError, match=r"run `tunneld status` as root$"):
        run()


def test_a_socket_that_we_may_not_open_is_said(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, where we may enter the folder, but not open the socket."""
    run_folder.chmod(0o700)
    (run_folder / "pi.sock").touch()

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(RightsError, match=r"run `tunneld status` as root$"):
        run("pi")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's folder is made as root")
def test_a_runtime_folder_of_another_user_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who came by `su` may have it still; what it holds is not theirs."""
    others = tmp_path / "others"
    others.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(others))
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    os.seteuid(54321)
    try:
        with pytest.raises(NotRunningError, match="pi is not running"):
            status.ask(status._find("pi"))
    finally:
        os.seteuid(0)
