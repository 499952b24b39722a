"""The first TCP connection, which we make and ssh takes over."""

from __future__ import annotations

import contextlib
import select
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunneld.core.happy_eyeballs import ATTEMPT_DELAY, SocketAddress
from tunneld.mosh.jump_host import ConfigQuery
from tunneld.mosh.preconnect import MOST_TRIED, Preconnect, addresses, connect, has_shell, is_direct

PLAIN = {"hostname": "192.0.2.1", "port": "22", "controlpath": "none"}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def settings(port: int) -> dict[str, str]:
    return {"hostname": "127.0.0.1", "port": str(port), "addressfamily": "inet", "tcpkeepalive": "yes"}


@pytest.mark.parametrize(
    ("more", "direct"),
    [
        ({}, True),
        ({"proxycommand": "none", "proxyjump": "none"}, True),
        ({"proxyjump": "relay"}, False),
        ({"proxycommand": "nc %h %p"}, False),
        ({"bindaddress": "192.0.2.9"}, False),
        ({"bindinterface": "wg0"}, False),
        ({"nohostauthenticationforlocalhost": "no"}, True),
        ({"nohostauthenticationforlocalhost": "yes"}, False),
        ({"controlpath": "/nonexistent/master"}, True),
        ({"controlpath": "/tmp"}, False),
        ({"controlpath": "~/.ssh/%C"}, False),
    ],
)
def test_only_what_ssh_would_connect_itself_is_connected(more: dict[str, str], direct: bool) -> None:
    """Proxies, running masters and addresses of our own are left to ssh."""
    assert is_direct({**PLAIN, **more}) is direct


def test_an_ssh_that_says_nothing_connects_itself() -> None:
    """It is too old or refuses its configuration, and will say so itself."""
    assert not is_direct({})


def test_ssh_says_what_its_configuration_comes_to(tmp_path: Path) -> None:
    """The first value of a keyword is the one that counts."""
    (tmp_path / "config").write_text("Host pi\n  HostName 192.0.2.7\n  Port 2222\n  IdentityFile a\n  IdentityFile b\n")
    said = ConfigQuery(["-F", str(tmp_path / "config"), "pi"]).settings()
    assert (said["hostname"], said["port"], said["identityfile"]) == ("192.0.2.7", "2222", "a")
    assert is_direct(said)


def test_ssh_gets_our_socket(listener: socket.socket, tmp_path: Path) -> None:
    """Its ProxyCommand passes it on, as ssh_config(5) wants it for ProxyUseFdpass, with TCP_NODELAY set."""
    dial = Preconnect(settings(listener.getsockname()[1]), str(tmp_path))
    with contextlib.closing(dial):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = dial.options[1].removeprefix("ProxyCommand=").replace("%%", "%")
            subprocess.run(shlex.split(command), stdout=theirs.fileno(), check=True, timeout=20)
            _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
        with socket.socket(fileno=fd) as taken:
            assert taken.getpeername() == listener.getsockname()
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not select.select([dial.fd], [], [], 0)[0]
    assert not list(tmp_path.iterdir())


def test_a_connection_that_comes_to_nothing_is_told(listener: socket.socket, tmp_path: Path) -> None:
    """ssh then connects by itself."""
    port = listener.getsockname()[1]
    listener.close()
    with contextlib.closing(Preconnect(settings(port), str(tmp_path))) as dial:
        assert select.select([dial.fd], [], [], 10)[0]


def test_the_person_s_own_patience_counts(tmp_path: Path) -> None:
    """A ConnectTimeout that is shorter than our limit counts; ssh's own attempt gets what is left of it."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy, contextlib.ExitStack() as stack:
        for _ in range(4):  # its queue is full: the next one hears nothing
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(busy.getsockname())
        port = busy.getsockname()[1]
        short = stack.enter_context(
            contextlib.closing(Preconnect({**settings(port), "connecttimeout": "1"}, str(tmp_path)))
        )
        usual = stack.enter_context(
            contextlib.closing(Preconnect({**settings(port), "connecttimeout": "0"}, str(tmp_path)))
        )
        long = stack.enter_context(
            contextlib.closing(Preconnect({**settings(port), "connecttimeout": "60"}, str(tmp_path)))
        )
        assert select.select([short.fd, usual.fd, long.fd], [], [], 5)[0] == [short.fd]
        assert short.fallback_options == ("-o", "ConnectTimeout=1")
        assert usual.fallback_options == ()
        assert 50 < int(long.fallback_options[1].partition("=")[2]) < 60


@pytest.mark.parametrize(
    ("shell", "usable"),
    [("/bin/sh", True), ("", True), (None, True), ("/nonexistent/sh", False), ("/usr/sbin/nologin", False)],
)
def test_a_shell_that_runs_nothing_runs_no_taker(shell: str | None, usable: bool) -> None:
    """ssh would start the ProxyCommand with $SHELL; without one, ssh connects by itself."""
    assert has_shell({} if shell is None else {"SHELL": shell}) is usable


def test_the_next_address_is_tried_when_one_refuses(listener: socket.socket) -> None:
    """At once, not after a quarter of a second."""
    place = SocketAddress(socket.AF_INET, listener.getsockname())
    with socket.create_server(("127.0.0.1", 0)) as other:
        closed = SocketAddress(socket.AF_INET, other.getsockname())
    began = time.monotonic()
    with connect([closed, place]) as made:
        assert made.getpeername() == listener.getsockname()
        assert made.getblocking()
    assert time.monotonic() - began < ATTEMPT_DELAY
    with pytest.raises(OSError):
        connect([closed])
    with pytest.raises(OSError):
        connect([])


def test_a_silent_address_is_passed_by_after_a_quarter_of_a_second(listener: socket.socket) -> None:
    """A full queue swallows SYNs, as a firewall does."""
    with swallowing() as silent:
        began = time.monotonic()
        with connect([silent, SocketAddress(socket.AF_INET, listener.getsockname())]) as made:
            assert made.getpeername() == listener.getsockname()
    assert time.monotonic() - began >= ATTEMPT_DELAY


def test_an_address_that_cannot_even_be_asked_is_passed_by(listener: socket.socket) -> None:
    """Its error comes at once, before anything is sent."""
    nowhere = SocketAddress(socket.AF_INET, ("255.255.255.255", 9))
    with connect([nowhere, SocketAddress(socket.AF_INET, listener.getsockname())]) as made:
        assert made.getpeername() == listener.getsockname()


def test_silence_ends_with_the_patience() -> None:
    """Whoever asked then does it in another way."""
    with swallowing() as silent, pytest.raises(TimeoutError):
        connect([silent], patience=0.05)


@contextlib.contextmanager
def swallowing() -> Iterator[SocketAddress]:
    """An address on loopback that answers no SYN."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as clients:
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield SocketAddress(socket.AF_INET, full.getsockname())


def test_families_take_turns_and_few_addresses_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's favourite first; an answer may hold thousands."""
    fours = [(f"192.0.2.{number}", 22) for number in range(100)]
    sixes = [(f"2001:db8::{number:x}", 22, 0, 0) for number in range(100)]
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", place) for place in sixes]
    found += [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in fours]  # type: ignore[misc]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    tried = addresses("name", "22", socket.AF_UNSPEC)
    assert len(tried) == MOST_TRIED
    assert [each.where for each in tried[:4]] == [sixes[0], fours[0], sixes[1], fours[1]]
