"""Our agent on a jump host: a real ssh goes through a real sshd, and the agent starts over the same login."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mosh.jumping import Jump, TwoEnds, jumping, needs_openssh
from tests.until import wait_until
from tunneld.core.pair import stun
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.mosh import jump_agent_client, jump_host
from tunneld.mosh.jump_agent_client import MAX_ADDRESSES, FoundAgent
from tunneld.mosh.jump_host import JumpHost
from tunneld.mosh.jump_route import JumpRoute


@pytest.fixture(autouse=True)
def loopback_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jump host of these tests is this machine; and nobody waits until the first screen is there."""
    monkeypatch.setattr(jump_agent_client, "reachable", lambda host: host)
    monkeypatch.setattr(jump_agent_client, "START_DELAY", 0.0)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TwoEnds]]:
    """Two ends with a jump host that is a shell here: it runs a command in the place of our agent."""
    with contextlib.ExitStack() as stack:

        def pretend(command: str, jumps: str = "jump") -> TwoEnds:
            monkeypatch.setattr(jump_host, "command_there", lambda *_: ["sh", "-c", command])
            ends = TwoEnds()
            stack.callback(ends.close)
            ends.use(JumpRoute(["-J", jumps], {"proxyjump": jumps}, lambda words: {"hostname": "127.0.0.1"}))
            shared = Path(ends.route.socket("first"))
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(shared))
            return ends

        yield pretend


def answers(address: UdpAddress) -> bool:
    """Whether the agent is there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(stun.request(b"0123456789ab"), tuple(address))
        return stun.read_response(sock.recv(2048)) == (b"0123456789ab", UdpAddress("127.0.0.1", sock.getsockname()[1]))


@needs_openssh
def test_the_server_s_end_is_told_where_to_meet(jump: Jump) -> None:
    """One login there does for both; the addresses are sshd's own, and the one that DEST sees."""
    agent = jump.prepare("-J", "jump")
    jump.connect()
    assert jump.logins == 2
    jump.begin()
    jump.run(jump.relay)
    port = jump.relay()[0].port
    assert jump.relay() == [UdpAddress("127.0.0.1", port), UdpAddress("192.0.2.9", port)]
    assert answers(jump.relay()[0])
    assert jump.logins == 2
    assert agent.status() == {"host": "127.0.0.1", "says": f"its agent is at 127.0.0.1:{port}, 192.0.2.9:{port}"}


@needs_openssh
def test_the_client_s_end_offers_it_too(jump: Jump) -> None:
    """It asks the agent for its public address, and tells the other end in the same message to go there."""
    jump.prepare("-J", "jump")
    jump.connect()
    jump.begin()
    asked: list[UdpAddress] = []
    jump.client.loop.pair.use_stun_servers = lambda servers, now: asked.extend(servers)  # type: ignore[method-assign]
    offered: list[Candidate] = []
    jump.client.loop.offer_also = lambda candidates: offered.extend(candidates)  # type: ignore[method-assign]
    jump.run(jump.relay)
    assert asked == jump.relay()
    assert [(each.kind, each.address) for each in offered] == [("relay", each) for each in jump.relay()]


@needs_openssh
def test_it_uses_the_ports_that_it_is_given(jump: Jump) -> None:
    """A firewall there may let only some through."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    jump.prepare("-J", "jump", ports=(port, port))
    jump.connect()
    jump.begin()
    jump.run(jump.relay)
    assert jump.relay()[0].port == port


@needs_openssh
def test_an_agent_needs_the_session_for_its_start_alone(jump: Jump) -> None:
    """When ssh dies, packets still meet there."""
    jump.prepare("-J", "jump")
    session = jump.connect()
    jump.begin()
    jump.run(jump.relay)
    session.kill()
    session.wait()
    wait_until(lambda: not os.path.exists(jump.route.socket("first")), what="the shared connection ends")
    assert answers(jump.relay()[0])


@needs_openssh
def test_a_connection_that_is_shared_anyway_is_shared(tmp_path: Path) -> None:
    """With a person's own ControlMaster there is no socket of ours, and still one login."""
    config = f"Host jump\n  ControlMaster auto\n  ControlPath {tmp_path}/theirs"
    with jumping(tmp_path, {}, config=config) as jump:
        jump.prepare("-J", "jump")
        jump.connect()
        assert (tmp_path / "theirs").is_socket()
        jump.begin()
        jump.run(jump.relay)
        assert jump.logins == 2


@needs_openssh
def test_where_nothing_may_be_run_there_is_no_agent(tmp_path: Path) -> None:
    """The session goes on without it, and a sentence says so."""
    with jumping(tmp_path, {"ForceCommand": "cat"}) as jump:
        agent = jump.prepare("-J", "jump")
        jump.connect()
        jump.begin()
        jump.run(lambda: "does not run" in agent.says)
        assert not jump.relay()


@needs_openssh
def test_where_the_login_cannot_be_shared_there_is_no_agent(tmp_path: Path) -> None:
    """A jump host may allow no session beside the forward: ssh asks for no second login."""
    with jumping(tmp_path, {"MaxSessions": "0"}) as jump:
        agent = jump.prepare("-J", "jump")
        words = ["ssh", "-T", *jump.route.options("first"), "dest", "cat"]
        jump.sessions.append(subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL))
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: jump.route.is_shared("first"), what="the hop", timeout=2)
        jump.begin()
        jump.run(lambda: agent.says.startswith("it does not") or "cannot be shared" in agent.says)
        assert not jump.relay()
        assert jump.logins <= 2


@needs_openssh
def test_without_a_shared_connection_it_is_not_tried(jump: Jump) -> None:
    """The connection may have died while its session began."""
    agent = jump.prepare("-J", "jump")
    jump.begin()
    jump.run(lambda: agent.says == "its connection cannot be shared: no agent there")
    assert jump.logins == 0


@needs_openssh
def test_an_agent_that_is_gone_is_started_again(jump: Jump, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine may have restarted. One that was of use is started again at once; others seldom, since each stays."""
    monkeypatch.setattr(jump_agent_client, "AGENT_CHECK_EVERY", 0.02)
    checks = 0
    path = {"kind": "relay", "state": "open"}

    def snapshot(now: float) -> dict[str, object]:
        nonlocal checks
        checks += 1
        return {"paths": [path]}

    jump.client.loop.pair.snapshot = snapshot  # type: ignore[method-assign]
    started: list[str] = []
    there = jump_host.command_there

    def command_there(first: JumpHost, socket: str, command: str) -> list[str]:
        started.append(command)
        return there(first, socket, command)

    monkeypatch.setattr(jump_host, "command_there", command_there)
    jump.prepare("-J", "jump")
    jump.connect()
    jump.begin()
    jump.run(jump.relay)
    first, before = jump.relay()[0], checks
    jump.run(lambda: checks > before)
    path["state"] = "silent"
    jump.run(lambda: jump.relay()[0] != first)
    second, before = jump.relay()[0], checks
    jump.run(lambda: checks > before + 5)
    assert len(started) == 2
    monkeypatch.setattr(jump_agent_client, "RESTART_PAUSE", 0.0)
    jump.run(lambda: jump.relay()[0] != second)


@needs_openssh
def test_the_agent_goes_with_the_session(jump: Jump) -> None:
    """Its port may be one of few that a firewall lets through."""
    agent = jump.prepare("-J", "jump")
    jump.connect()
    jump.begin()
    jump.run(jump.relay)
    assert len(jump.agents()) == 1
    agent.close()
    wait_until(lambda: not jump.agents(), what="the agent's end")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("yes", "it does not run our agent (y)"),
        ("cat >/dev/null; printf 'no\\033[2J\\n'; exit 3", "it does not run our agent (no [2J)"),
        ("""cat >/dev/null; echo 'TUNNELD-MEETING {"error": "no\\u001b[2J port"}'""", "no [2J port"),
        ("cat >/dev/null; echo TUNNELD-MEETING {", "it does not run our agent (TUNNELD-MEETING {)"),
        ("cat >/dev/null; echo 'TUNNELD-MEETING [1]'", "it does not run our agent (TUNNELD-MEETING [1])"),
        (
            """echo 'TUNNELD-MEETING {"ports": {"4": "x", "6": 70000}}'""",
            "its agent is at no address that others reach",
        ),
        ("""echo 'TUNNELD-MEETING {"ports": {"4": true, "6": 0}}'""", "its agent is at no address that others reach"),
        ("""echo 'TUNNELD-MEETING {"ports": {"4": 65536}}'""", "its agent is at no address that others reach"),
        ("""echo 'TUNNELD-MEETING {"ports": [1]}'""", "its agent is at no address that others reach"),
        ("true", "it does not run our agent (exit status 0)"),
        (
            "printf 'TUNNELD-MEETING '; yes '[' | tr -d '\\n' | head -c 60000",
            "it does not run our agent (TUNNELD-MEETING",
        ),
    ],
)
def test_whatever_a_jump_host_says_is_words_at_most(pretend: Callable[..., TwoEnds], command: str, words: str) -> None:
    """It is bounded, and fit for a terminal."""
    ends = pretend(command)
    ends.begin()
    assert ends.agent
    ends.run(lambda: ends.agent and ends.agent.says != "its agent starts when the session runs")
    assert ends.agent.says.startswith(words)
    assert len(ends.agent.says) < 250


@pytest.mark.parametrize(
    ("jumps", "ssh_connection", "hosts"),
    [
        ("jump", "192.0.2.1 1 192.0.2.2 22", ["192.0.2.2", "192.0.2.9"]),
        ("jump,second", "192.0.2.1 1 192.0.2.2 22", ["192.0.2.2"]),
        ("jump", "192.0.2.1 1 192.0.2.2", ["192.0.2.9"]),
    ],
)
def test_the_agent_is_tried_where_sshd_and_dest_have_seen_its_machine(
    pretend: Callable[..., TwoEnds], jumps: str, ssh_connection: str, hosts: list[str]
) -> None:
    """DEST has seen the last jump host, which the agent is on only where there is one. Greetings before the report are
    passed over."""
    report = json.dumps({"ports": {"4": 65535}, "ssh_connection": ssh_connection})
    ends = pretend(f"echo welcome; echo 'TUNNELD-MEETING {report}'", jumps)
    ends.begin()
    ends.run(ends.relay)
    assert ends.relay() == [UdpAddress(host, 65535) for host in hosts]


def test_a_jump_host_that_hangs_is_given_up(pretend: Callable[..., TwoEnds], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it."""
    monkeypatch.setattr(jump_agent_client, "AGENT_START_TIMEOUT", 0.1)
    ends = pretend("exec sleep 100")
    ends.begin()
    ends.run(lambda: ends.agent and ends.agent.says == "it did not run our agent within 0.1 s")


def test_a_connection_for_which_the_person_is_asked_is_left_alone() -> None:
    """ControlMaster=ask would put a question on their screen."""
    settings = {"hostname": "127.0.0.1", "controlmaster": "ask", "controlpath": "/tmp/x"}
    with contextlib.closing(TwoEnds()) as ends:
        agent = ends.use(JumpRoute(["-J", "jump"], {"proxyjump": "jump"}, lambda words: settings))
        ends.begin()
        assert agent.says == "ssh_config has you asked for each use of its connection: no agent there"


def test_few_addresses_are_tried_and_each_with_the_port_of_its_family() -> None:
    """A family in which the agent has no port is left out, and so is what was named twice."""
    hosts = ["192.0.2.1", "192.0.2.1", "2001:db8::1", *(f"192.0.2.{number}" for number in range(2, 10))]
    assert FoundAgent({4: 7, 6: 0}, hosts).addresses() == [
        UdpAddress(f"192.0.2.{number}", 7) for number in range(1, MAX_ADDRESSES + 1)
    ]
    assert FoundAgent({4: 7, 6: 8}, hosts[:3]).addresses() == [
        UdpAddress("192.0.2.1", 7),
        UdpAddress("2001:db8::1", 8),
    ]
