"""Both sides of a JSON socket: who may connect, and how much of what kind of answer is taken."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunneld.status import json_socket
from tunneld.status.json_socket import ask, listen

ANSWER = b'{"a":1}\n'


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "x.sock")


@contextlib.contextmanager
def answering(path: str, answer: bytes) -> Iterator[None]:
    """A program that gives this answer to the first who asks."""
    with listen(path) as listener:
        listener.settimeout(10)

        def serve() -> None:
            visitor, _ = listener.accept()
            with visitor, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                visitor.settimeout(10)
                visitor.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def test_an_object_is_given_to_who_asks(path: str) -> None:
    """The end of file ends the answer; the line's own end is no part of it."""
    with answering(path, ANSWER):
        assert ask(path, timeout=10, longest=100) == {"a": 1}


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_nobody_can_connect_before_the_socket_has_its_mode(
    path: str, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask: the socket listens only after its file has the mode."""
    modes: list[int] = []
    monkeypatch.setattr(
        socket.socket, "listen", lambda *_: modes.append(stat.S_IMODE(os.stat(path).st_mode)), raising=False
    )
    for umask in (0o000, 0o077):
        before = os.umask(umask)
        try:
            listen(path, mode=mode).close()
        finally:
            os.umask(before)
        os.unlink(path)
    assert modes == [mode, mode]


def test_a_listener_does_not_block(path: str) -> None:
    """A loop that was woken for somebody who has left again goes on."""
    with listen(path) as listener, pytest.raises(BlockingIOError):
        listener.accept()


def test_a_place_that_is_taken_is_left_alone(path: str) -> None:
    """Only the caller knows whether a socket there belongs to somebody dead."""
    with listen(path), pytest.raises(OSError, match="in use"):
        listen(path)


def test_an_answer_may_have_so_many_bytes_and_no_more(path: str) -> None:
    """No answer fills the memory."""
    with answering(path, ANSWER):
        assert ask(path, timeout=10, longest=len(ANSWER)) == {"a": 1}
    os.unlink(path)
    with answering(path, ANSWER), pytest.raises(ValueError, match="it is longer than 7 bytes"):
        ask(path, timeout=10, longest=len(ANSWER) - 1)


@pytest.mark.parametrize("answer", [b"", b"[1]", b'"a"', b'{"a":', b"\x00\xff", b"[" * 100_000])
def test_anything_but_an_object_is_refused(path: str, answer: bytes) -> None:
    """Whatever listens there may say anything."""
    with answering(path, answer), pytest.raises(ValueError):
        ask(path, timeout=10, longest=1 << 20)


def test_silence_is_not_waited_for(path: str) -> None:
    """The program may hang."""
    with listen(path), pytest.raises(TimeoutError):
        ask(path, timeout=0.05, longest=100)


def test_the_time_is_for_the_whole_answer(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes in pieces, each of them soon, cannot hold who asks for longer."""
    clock = itertools.count(0.0, 0.4)
    monkeypatch.setattr(json_socket, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with answering(path, b" " * 1_000_000 + ANSWER), pytest.raises(TimeoutError):
        ask(path, timeout=1, longest=1 << 21)


def test_a_pause_is_waited_for_as_long_as_time_is_left(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a first piece that came late, silence has only the rest of the time."""
    clock = iter([0.0, 9.95])
    began = time.monotonic()
    with listen(path) as listener:
        thread = threading.Thread(target=lambda: visitors.append(late_piece(listener)))
        visitors: list[socket.socket] = []
        thread.start()
        monkeypatch.setattr(json_socket, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        with pytest.raises(TimeoutError):
            ask(path, timeout=10, longest=100)
        thread.join()
        visitors[0].close()
    assert time.monotonic() - began < 5


def late_piece(listener: socket.socket) -> socket.socket:
    listener.settimeout(10)
    visitor, _ = listener.accept()
    visitor.sendall(b" ")
    return visitor


def test_nobody_there_is_told_apart(path: str) -> None:
    """A caller says more of a socket that is gone, or that a killed program left, than of a wrong answer."""
    with pytest.raises(FileNotFoundError):
        ask(path, timeout=10, longest=100)
    listen(path).close()
    with pytest.raises(ConnectionRefusedError):
        ask(path, timeout=10, longest=100)
