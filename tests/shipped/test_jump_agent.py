"""The jump host's agent as it is shipped, from its source text, with real UDP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oldest import oldest_python
from tests.shipped.conftest import Clock
from tunneld.core.pair import stun
from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.packet import DATAGRAM, Seal, identities
from tunneld.shipped import pack
from tunneld.shipped.jump_agent import (
    LIFE_LIMIT,
    LONE_END_LIMIT,
    MAX_RETURN_ROUTES,
    SILENCE_LIMIT,
    STUN_ANSWER_RATE,
    UNVISITED_LIMIT,
    JumpAgent,
)
from tunneld.shipped.udp_sockets import LONGEST_PACKET

SECRET = bytes(range(32))
SYNC = "HERE"
FAREWELL = b"sixteen bytes of"


class End:
    """One end of a pair, as the agent sees it."""

    def __init__(self, port: int, *, is_client: bool, host: str = "127.0.0.1") -> None:
        self.seal = Seal(SECRET, Counter(), is_client=is_client)
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect((host, port))
        self.sock.settimeout(5)

    def send(self, words: bytes) -> None:
        self.sock.send(self.seal.close(DATAGRAM, words))

    def receive(self) -> bytes | None:
        """The words in the next packet; None if it is no packet of the other end's."""
        opened = self.seal.open(self.sock.recv(LONGEST_PACKET))
        return opened.body if opened else None

    def asks(self) -> tuple[bytes, UdpAddress] | None:
        """What the agent says to a STUN question."""
        self.sock.send(stun.request(b"0123456789ab"))
        return stun.read_response(self.sock.recv(LONGEST_PACKET))

    def hears_nothing(self, seconds: float = 0.2) -> bool:
        self.sock.settimeout(seconds)
        try:
            return not self.sock.recv(LONGEST_PACKET)
        except TimeoutError:
            return True


@pytest.fixture
def ends() -> Iterator[Callable[[int], tuple[End, End]]]:
    made: list[End] = []

    def make(port: int) -> tuple[End, End]:
        made.extend([End(port, is_client=True), End(port, is_client=False)])
        return made[-2], made[-1]

    yield make
    for end in made:
        end.sock.close()


def start(first: int = 0, last: int = 0) -> tuple[dict[str, Any], int]:
    """Run the agent as an SSH session would; what it says, and its exit status."""
    program = pack.jump_agent_program(SYNC, *(each.hex() for each in (*identities(SECRET), FAREWELL)), first, last)
    command = pack.command(program).replace("python3", oldest_python(), 1)
    done = subprocess.run(
        ["sh", "-c", command],
        input=program,
        capture_output=True,
        timeout=20,
        env={"SSH_CONNECTION": "192.0.2.7 50022 192.0.2.1 22", "PATH": os.environ["PATH"]},
    )
    assert not done.stderr, done.stderr.decode()
    sync, _, report = done.stdout.decode().partition(" ")
    assert sync == SYNC
    return json.loads(report), done.returncode


def agents() -> list[int]:
    """The processes of this test's agents: they have its secret's identities on no command line, but its session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if b"a2b_base64" not in words and b"zlib" in words and b"192.0.2.7 50022 192.0.2.1 22" in environment:
            found.append(int(folder.name))
    return found


@pytest.fixture
def agent() -> Iterator[dict[str, Any]]:
    """A running agent's report; the SSH session that started it has ended."""
    report, status = start()
    assert status == 0
    yield report
    for pid in agents():
        os.kill(pid, signal.SIGKILL)


def test_two_ends_meet_at_it(agent: dict[str, Any], ends: Callable[[int], tuple[End, End]]) -> None:
    """It outlives the session that started it, tells where it sees each end, and passes their packets on."""
    assert agent["ssh_connection"] == "192.0.2.7 50022 192.0.2.1 22"
    client, far = ends(agent["ports"]["4"])
    assert client.asks() == (b"0123456789ab", UdpAddress(*client.sock.getsockname()))
    far.send(b"nobody is there yet")
    client.send(b"from the client")
    assert far.receive() == b"from the client"
    far.send(b"from afar")
    assert client.receive() == b"from afar"


def test_strangers_get_nothing_but_where_they_are_seen(
    agent: dict[str, Any], ends: Callable[[int], tuple[End, End]]
) -> None:
    """Nothing of what others send reaches an end, nor does an end's own address move."""
    client, far = ends(agent["ports"]["4"])
    far.send(b"")
    client.send(b"one")
    assert far.receive() == b"one"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(("127.0.0.1", agent["ports"]["4"]))
        for data in (b"", b"x", bytes(60), os.urandom(1500), b"\x41" + bytes(8) + os.urandom(40), os.urandom(9000)):
            stranger.send(data)
        stranger.send(stun.request(b"0123456789ab")[:-1])
    client.send(b"two")
    assert far.receive() == b"two"
    assert client.hears_nothing()


def test_one_end_may_have_ipv6_alone(agent: dict[str, Any], ends: Callable[[int], tuple[End, End]]) -> None:
    """The other one IPv4 alone."""
    if "6" not in agent["ports"]:
        pytest.skip("there is no IPv6 here")
    client, _ = ends(agent["ports"]["4"])
    far = End(agent["ports"]["6"], is_client=False, host="::1")
    with far.sock:
        assert far.asks() == (b"0123456789ab", UdpAddress(*far.sock.getsockname()[:2]))
        far.send(b"")
        client.send(b"over IPv4")
        assert far.receive() == b"over IPv4"
        far.send(b"over IPv6")
        assert client.receive() == b"over IPv6"


@pytest.mark.skipif(sys.platform != "linux", reason="the loopback has one address elsewhere")
def test_an_answer_comes_from_where_the_question_went(
    agent: dict[str, Any], ends: Callable[[int], tuple[End, End]]
) -> None:
    """A machine with several addresses has one that it prefers, and a NAT takes an answer from no other."""
    client, far = ends(agent["ports"]["4"])
    client.sock.connect(("127.0.0.2", agent["ports"]["4"]))
    far.sock.connect(("127.0.0.3", agent["ports"]["4"]))
    for end in (client, far):
        assert end.asks() is not None
    far.send(b"")
    client.send(b"to the third")
    assert far.receive() == b"to the third"
    far.send(b"to the second")
    assert client.receive() == b"to the second"


def test_it_answers_no_faster_than_a_pair_asks(agent: dict[str, Any], ends: Callable[[int], tuple[End, End]]) -> None:
    """Nobody can have it flood somebody in whose name he asks."""
    client, _ = ends(agent["ports"]["4"])
    for _ in range(200):
        client.sock.send(stun.request(b"0123456789ab"))
    client.sock.settimeout(0.3)
    answers = 0
    try:
        while client.sock.recv(LONGEST_PACKET):
            answers += 1
    except TimeoutError:
        pass
    assert STUN_ANSWER_RATE <= answers <= 2 * STUN_ANSWER_RATE


def test_it_takes_a_port_that_the_firewall_lets_through() -> None:
    """The first free one of the range; none is free: a sentence, and no process stays."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, socket.socket(socket.AF_INET6) as probe:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        has_ipv6 = _can_bind(probe)
        report, status = start(port, port + 1)
        try:
            assert report["ports"].get("4") == port + 1
            assert status == 0
        finally:
            for pid in agents():
                os.kill(pid, signal.SIGKILL)
        if not has_ipv6:
            report, _ = start(port, port)
            assert "UDP" in report["error"]
            assert not agents()


def _can_bind(probe: socket.socket) -> bool:
    try:
        probe.bind(("::", 0))
    except OSError:
        return False
    return True


@pytest.fixture
def jump(clock: Clock) -> Iterator[JumpAgent]:
    jump = JumpAgent(identities(SECRET), FAREWELL, clock)
    yield jump
    jump.close()


def serve(jump: JumpAgent, end: End) -> None:
    """Have `end` say something, and the agent take it."""
    end.send(b"hello")
    jump.serve(5)


def test_it_stays_for_as_long_as_it_is_used(
    jump: JumpAgent, clock: Clock, ends: Callable[[int], tuple[End, End]]
) -> None:
    """A minute if nobody comes, a while after the last packet, a day for one end alone, and not for ever."""
    began = clock.now
    client, far = ends(jump.open(range(1))[4])
    assert jump.end() == began + UNVISITED_LIMIT
    serve(jump, far)
    assert jump.end() == began + SILENCE_LIMIT
    clock.now = began + LONE_END_LIMIT - 10
    serve(jump, far)
    assert jump.end() == began + LONE_END_LIMIT
    serve(jump, client)
    assert jump.end() == clock.now + SILENCE_LIMIT
    clock.now = began + LIFE_LIMIT - 10
    serve(jump, client)
    serve(jump, far)
    assert jump.end() == began + LIFE_LIMIT


def test_it_remembers_a_few_return_routes(jump: JumpAgent, clock: Clock) -> None:
    """Whoever sends an end's identity from many ports cannot fill its memory; the ends go on meeting."""
    port = jump.open(range(1))[4]
    with contextlib.ExitStack() as stack:
        copies = [End(port, is_client=True) for _ in range(2 * MAX_RETURN_ROUTES)]
        client, far = End(port, is_client=True), End(port, is_client=False)
        for end in (client, far, *copies):
            stack.enter_context(end.sock)
        newest = [client, *copies[1 - MAX_RETURN_ROUTES :]]
        for end in (*copies[: -len(newest)], client, far, *newest):
            serve(jump, end)
        assert list(jump._return_routes) == [UdpAddress(*end.sock.getsockname()) for end in newest]
        serve(jump, client)
        serve(jump, far)
        assert client.receive() == b"hello"


def test_strangers_are_not_remembered(jump: JumpAgent, ends: Callable[[int], tuple[End, End]]) -> None:
    """Not even by their address: what carries no identity of the two ends says nothing about them."""
    client, _ = ends(jump.open(range(1))[4])
    client.sock.send(b"\x41" + bytes(60))
    jump.serve(5)
    assert not jump._return_routes


def test_it_ends_at_a_farewell(jump: JumpAgent, ends: Callable[[int], tuple[End, End]]) -> None:
    """Which only those know who have its text; half of it is none."""
    client, _ = ends(jump.open(range(1))[4])
    for words in (FAREWELL[:-1], FAREWELL + b"x"):
        client.sock.send(words)
        jump.serve(5)
    assert jump.end() == 1000 + UNVISITED_LIMIT
    client.sock.send(FAREWELL)
    jump.run()


def test_it_ends(clock: Clock) -> None:
    """When its time is over."""
    jump = JumpAgent(identities(SECRET), FAREWELL, clock)
    jump.open(range(1))
    clock.now += UNVISITED_LIMIT
    began = time.monotonic()
    jump.run()
    jump.close()
    assert time.monotonic() - began < 1
