"""Programs on the far side: what is kept of their words, how they are left, and answers that are none."""

from __future__ import annotations

import errno
import os
from typing import Any

import asyncssh
import pytest

from tunneld.ssh.remote.remote import FULL_CHANNEL, MOST_STDERR, RemoteProgram, start


async def test_an_answer_that_makes_no_sense_is_a_refusal(
    connection: asyncssh.SSHClientConnection, confirms_oddly: None
) -> None:
    """What cannot be read starts no program, and is no fault of tunneld's."""
    with pytest.raises(asyncssh.ChannelOpenError, match="cannot be read"):
        await start(connection, b"", RemoteProgram(lambda _: None, lambda: None))


async def test_a_connection_that_is_reset_meanwhile_is_a_refusal(
    connection: asyncssh.SSHClientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's error reaches the one who waits for the program's start; it must not end the tunnel."""

    async def reset(*_: object) -> bool:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    monkeypatch.setattr(asyncssh.SSHClientChannel, "_make_request", reset)
    with pytest.raises(asyncssh.ChannelOpenError, match="is lost"):
        await start(connection, b"", RemoteProgram(lambda _: None, lambda: None))


class PlayedChannel:
    """As much of a channel as a program uses."""

    def __init__(self) -> None:
        self.notes: list[Any] = []
        self.waiting = 0
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write(self, data: bytes) -> None:
        self.notes.append(data)

    def write_eof(self) -> None:
        self.notes.append("eof")

    def resume_reading(self) -> None:
        self.notes.append("read on")


class Heard:
    """A program that has started, and what was heard of it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lost = 0
        self.channel = PlayedChannel()
        self.remote = RemoteProgram(self.received.append, self._lost)
        self.remote.connection_made(self.channel)  # type: ignore[arg-type]

    def _lost(self) -> None:
        self.lost += 1

    def errs(self, text: bytes) -> None:
        self.remote.data_received(text, asyncssh.EXTENDED_DATA_STDERR)


async def test_the_last_line_of_its_errors_is_told() -> None:
    """Fit to be shown; its output is not among them."""
    heard = Heard()
    assert heard.remote.last_words == ""
    heard.remote.data_received(b"output", None)
    heard.errs(b"first\nlast \x1b[31m\xff words")
    heard.errs(b"\n\n")
    assert heard.remote.last_words == "last [31m\N{REPLACEMENT CHARACTER} words"
    assert heard.received == [b"output"]
    heard.errs(b"x" * 1000)
    assert len(heard.remote.last_words) == 200


async def test_endless_errors_fill_no_memory() -> None:
    """The end of them is kept."""
    heard = Heard()
    for _ in range(100):
        heard.errs(b"." * 10_000)
        assert len(heard.remote._stderr) <= MOST_STDERR
    heard.errs(b"\nthe end\n")
    assert heard.remote.last_words == "the end"


async def test_a_far_side_that_does_not_read_makes_it_full() -> None:
    """Whoever writes may wait or drop then."""
    heard = Heard()
    heard.channel.waiting = FULL_CHANNEL
    assert not heard.remote.is_full
    heard.channel.waiting += 1
    assert heard.remote.is_full
    assert not RemoteProgram(heard.received.append, lambda: None).is_full


async def test_closing_ends_its_input_and_hears_no_more() -> None:
    """The channel itself is the far side's to close; it is read on, since its end comes that way."""
    heard = Heard()
    heard.remote.write(b"input")
    heard.remote.close()
    heard.remote.data_received(b"too late", None)
    assert heard.channel.notes == [b"input", "eof", "read on"]
    assert (heard.received, heard.lost) == ([], 1)
    assert heard.remote.ended.is_set()


async def test_a_channel_that_is_closing_takes_no_more() -> None:
    """Neither input nor an end of it."""
    heard = Heard()
    heard.channel.closing = True
    heard.remote.write(b"input")
    heard.remote.close()
    assert heard.channel.notes == []
