"""The person's terminal in the demo, with small programs instead of mosh."""

from __future__ import annotations

import pytest

from tunneld.demo import pseudo_terminal
from tunneld.demo.pseudo_terminal import NotShownError, Terminal

SHELL = ("/bin/sh", "-c")


def terminal(script: str) -> Terminal:
    return Terminal([*SHELL, script], environment={"PATH": "/usr/bin:/bin"})


async def test_what_is_typed_is_read_and_what_is_shown_is_text() -> None:
    """The program has a terminal of its own, with a size; escape sequences are not text."""
    async with terminal(
        r"stty size; printf '\033]0;title\007\033[1mbo\033[0mld\n'; read line; echo got-$line"
    ) as opened:
        await opened.shows("24 80", within=10)
        await opened.shows("^bold|\nbold", within=10)
        opened.type("me\r")
        await opened.shows("got-me", within=10)
        assert await opened.ended(within=10) == 0


async def test_a_key_is_timed_until_its_echo() -> None:
    """What was on the screen before the key is no echo."""
    async with terminal("echo aaa; stty raw; cat") as opened:
        await opened.shows("aaa", within=10)
        assert 0 < await opened.echo("b", within=10) < 10
        with pytest.raises(NotShownError, match="did not show 'a' within"):
            await opened.shows("a", within=0.05, since=len("aaa\r\n") + 1)


async def test_a_program_that_ends_early_has_last_words() -> None:
    """They are the end of what it showed, on one line."""
    async with terminal("printf '%400s' | tr ' ' x; echo; echo no route") as opened:
        with pytest.raises(NotShownError, match=r"^it ended; its last words: x+ no route$") as raised:
            await opened.shows("prompt", within=10)
    assert len(str(raised.value)) <= pseudo_terminal.MAX_SCREEN_TAIL + 30


async def test_a_program_that_does_not_end_is_told_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that ignores that its terminal is gone."""
    monkeypatch.setattr(pseudo_terminal, "HANGUP_GRACE", 0.05)
    async with terminal("trap '' HUP; echo ready; while :; do sleep 1; done") as opened:
        await opened.shows("ready", within=10)
        with pytest.raises(NotShownError, match="did not end within"):
            await opened.ended(within=0.05)
    assert opened._process.returncode == -9
