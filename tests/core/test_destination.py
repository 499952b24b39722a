"""One grammar for everything that is written as `[USER@]HOST[:PORT]`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.destination import Destination, parse_destination, parse_port, split_host_port

GOOD = {
    "bastion": Destination(None, "bastion", None),
    " me@bastion.example.net:2222 ": Destination("me", "bastion.example.net", 2222),
    "a@b@bastion": Destination("a@b", "bastion", None),
    "[::1]": Destination(None, "::1", None),
    "me@[2001:db8::1]:22": Destination("me", "2001:db8::1", 22),
    "ssh://me@bastion:22/": Destination("me", "bastion", 22),
    "bastion:65535": Destination(None, "bastion", 65535),
}


@pytest.mark.parametrize("text", GOOD)
def test_what_is_taken(text: str) -> None:
    """And it reads the same when it is written again."""
    assert parse_destination(text) == GOOD[text]
    assert parse_destination(str(GOOD[text])) == GOOD[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@bastion",
        "me@",
        "me@:22",
        "bastion:",
        "bastion:0",
        "bastion:65536",
        "bastion:99999",
        "bastion:2 2",
        "bastion:²",
        "::1",
        "::1:22",
        "[::1",
        "::1]",
        "[::1]22",
        "[[::1]]",
        "a b",
        "-oProxyCommand=x",
        "me\n@bastion",
        "-x@bastion",
        "a[b]",
        "//",
        "bastion/",
        "ssh://bastion//",
        "ssh:///",
        "bastion//",
        "a/b",
        "ssh://ssh://me@bastion",
    ],
)
def test_what_is_refused(text: str) -> None:
    """With a sentence that says what to write; above all ports 0 and beyond 65535, and what ssh takes for an option."""
    with pytest.raises(ValueError, match="write"):
        parse_destination(text)


def test_a_listener_may_have_port_0() -> None:
    """Where the listening side may choose, the caller says so."""
    assert parse_port("0", lowest=0) == 0
    with pytest.raises(ValueError, match="from 1 to 65535"):
        parse_port("0")


@pytest.mark.parametrize("text", ["a", "a:", "a:b", "[::1]", "[::1]:", ":22", ""])
def test_a_colon_without_a_port_is_told_from_no_colon(text: str) -> None:
    """None where there is no colon, text where there is one."""
    _, port = split_host_port(text)
    assert (port is None) is (":" not in text.rpartition("]")[2])


@pytest.mark.parametrize("text", ["::1", "::1:22", "a:22:", "[::1]:2:2", "a:2]", "a:[2", "[::1]:[2]"])
def test_several_colons_are_ambiguous(text: str) -> None:
    """An IPv6 address needs brackets as soon as a port may follow it."""
    with pytest.raises(ValueError, match=r'is ambiguous: write an IPv6 address in brackets, as "\[::1\]:22"'):
        split_host_port(text)


@pytest.mark.parametrize("text", ["[::1", "::1]", "a[b]", "a]", "a[", "[::1]22", "[[::1]]", "[a[b]:22", "[]]"])
def test_brackets_stand_around_the_host(text: str) -> None:
    """Both of them, and nothing but a colon behind them."""
    with pytest.raises(ValueError, match=r"has brackets in the wrong place|is ambiguous"):
        split_host_port(text)


@given(st.text(alphabet="a@:[]1 -\n/.ü", max_size=12))
def test_a_text_is_read_or_refused_in_words(text: str) -> None:
    """Nothing but a ValueError ever leaves the grammar, and what is read is written so that it is read alike."""
    try:
        read = parse_destination(text)
    except ValueError:
        return
    assert parse_destination(str(read)) == read
