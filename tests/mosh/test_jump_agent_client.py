"""Our agent on a jump host: a real ssh goes through a real sshd, and the agent comes by the same login."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.lab.client import Person, person
from tests.lab.machine import Machine, wait_until
from tests.lab.sshd import Sshd
from tests.shipped.test_pair_loop import SECRET, End, pipes
from tests.sshd import SSHD, free_port
from tunneld.core.pair import stun
from tunneld.core.pair.candidate import Candidate, UdpAddress
from tunneld.mosh import jump_agent_client as jumps
from tunneld.mosh import jump_host
from tunneld.mosh.jump_agent_client import JumpAgentClient
from tunneld.mosh.jump_route import JumpRoute

pytestmark = pytest.mark.skipif(not (SSHD and shutil.which("ssh")), reason="OpenSSH is not installed")


class Route:
    """A person, a jump host and a machine behind it, which is the same one; `end` is their side of a pair."""

    def __init__(self, sshd: Sshd, guest: Person, mark: str) -> None:
        self.sshd = sshd
        self.guest = guest
        self.mark = mark
        self.near, self.far = End(is_client=True), End(is_client=False)
        here, there = pipes()
        self.near.loop.add_stream("first", *here)
        self.far.loop.add_stream("first", *there)
        self.sessions: list[subprocess.Popen[bytes]] = []
        self.way: JumpRoute
        self.jump: JumpAgentClient | None = None

    def prepare(self, *options: str, ports: tuple[int, int] = (0, 0)) -> JumpAgentClient:
        words = ["-F", str(self.guest.config), *options]
        self.way = JumpRoute(words, jump_host.configuration([*words, "--", "dest"]))
        self.jump = JumpAgentClient(self.way, ports=ports)
        return self.jump

    def connect(self, name: str = "first") -> subprocess.Popen[bytes]:
        """ssh to the machine behind, as the session would; it is through when this returns."""
        assert self.jump
        words = ["ssh", "-T", *self.way.options(name), "dest", "cat"]
        self.sessions.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        session = self.sessions[-1]
        assert session.stdin
        assert session.stdout
        session.stdin.write(b"through\n")
        session.stdin.flush()
        assert session.stdout.readline()
        return session

    def begin(self) -> None:
        assert self.jump
        self.jump.begin(self.near.loop, SECRET, ssh_connection="192.0.2.9 1 192.0.2.8 22", stun=list)

    def run(self, is_so: Callable[[], object]) -> None:
        """Both ends, until this is true; whatever the agent's start waits for is told if it is not."""
        give_up = time.monotonic() + jumps.AGENT_START_TIMEOUT + 5
        while not is_so():
            assert time.monotonic() < give_up, self.jump and self.jump.says
            self.near.step()
            self.far.step()

    def relay(self) -> list[UdpAddress]:
        """Where the far end is told to meet us."""
        found = [body["relay"] for _, _, body in self.far.heard if "relay" in body]
        return [UdpAddress(*each) for each in found[-1]] if found else []

    @property
    def logins(self) -> int:
        return self.sshd.log.count("Accepted publickey")

    def agents(self) -> list[int]:
        """Processes that sshd's sessions left behind."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    self.mark.encode() in (folder / "environ").read_bytes()
                    and b"zlib" in (folder / "cmdline").read_bytes()
                ):
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        if self.jump:
            self.jump.close()
        self.near.loop.close()
        self.far.loop.close()
        for session in self.sessions:
            session.kill()
            session.communicate()
        for pid in self.agents():
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def way(folder: Path, options: Mapping[str, str], *, config: str = "") -> Iterator[Route]:
    machine = Machine("here", folder / "here")
    guest = person(machine, "guest")
    mark = f"WAY={folder}"
    settings = {"SetEnv": f"SHLVL=2 {mark}", **options}
    with Sshd(machine, (guest.key.public,), settings, address="127.0.0.1", port=free_port()) as sshd:
        guest.trust(sshd.known_hosts("127.0.0.1"))
        hosts = f"Host dest jump\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
        guest.config.write_text(f"{config}\n{hosts}{guest.config.read_text()}")
        made = Route(sshd, guest, mark)
        try:
            yield made
        finally:
            made.close()
            machine.close()


@pytest.fixture(autouse=True)
def loopback_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jump host of these tests is this machine; and nobody waits until the first screen is there."""
    monkeypatch.setattr(jumps, "reachable", lambda host: host)
    monkeypatch.setattr(jumps, "START_DELAY", 0.0)


@pytest.fixture
def through(tmp_path: Path) -> Iterator[Route]:
    with way(tmp_path, {}) as made:
        yield made


def answers(address: UdpAddress) -> bool:
    """Whether the agent is there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(stun.request(b"0123456789ab"), tuple(address))
        return stun.read_response(sock.recv(2048)) == (b"0123456789ab", UdpAddress("127.0.0.1", sock.getsockname()[1]))


def test_the_far_end_is_told_where_to_meet(through: Route) -> None:
    """One login there does for both; the addresses are sshd's own, and the one that the far end sees."""
    jump = through.prepare("-J", "jump")
    through.connect()
    assert through.logins == 2
    through.begin()
    through.run(through.relay)
    port = through.relay()[0].port
    assert through.relay() == [UdpAddress("127.0.0.1", port), UdpAddress("192.0.2.9", port)]
    assert answers(through.relay()[0])
    assert through.logins == 2
    assert jump.status() == {"host": "127.0.0.1", "says": f"its agent is at 127.0.0.1:{port}, 192.0.2.9:{port}"}


@pytest.mark.parametrize(("length", "letter"), [(46, "x"), (47, "x"), (70, "x"), (40, " "), (40, '"'), (40, "'")])
def test_no_place_for_temporary_files_is_an_obstacle(
    through: Route, monkeypatch: pytest.MonkeyPatch, length: int, letter: str
) -> None:
    """ssh needs more room for its socket than the socket's own name, and takes neither blanks nor quotes in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(short) / (letter * (length - len(short) - 1))
        folder.mkdir()
        monkeypatch.setenv("TMPDIR", str(folder))
        through.prepare("-J", "jump")
        through.connect("stream-1000")


def test_the_near_end_offers_it_too(through: Route) -> None:
    """And asks it where it is seen; with the same word each end tells the other to go there."""
    through.prepare("-J", "jump")
    through.connect()
    through.begin()
    asked: list[UdpAddress] = []
    through.near.loop.pair.use_stun_servers = lambda servers, now: asked.extend(servers)  # type: ignore[method-assign]
    offered: list[Candidate] = []
    through.near.loop.offer_also = lambda candidates: offered.extend(candidates)  # type: ignore[method-assign]
    through.run(through.relay)
    assert asked == through.relay()
    assert [(each.kind, each.address) for each in offered] == [("relay", each) for each in through.relay()]


def test_it_uses_the_ports_that_it_is_given(through: Route) -> None:
    """Those that a firewall there lets through."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    through.prepare("-J", "jump", ports=(port, port))
    through.connect()
    through.begin()
    through.run(through.relay)
    assert through.relay()[0].port == port


def test_an_agent_needs_the_session_for_its_start_alone(through: Route) -> None:
    """ssh dies, and packets still meet."""
    through.prepare("-J", "jump")
    session = through.connect()
    through.begin()
    through.run(through.relay)
    session.kill()
    session.wait()
    time.sleep(0.1)
    assert answers(through.relay()[0])


def test_a_connection_that_is_shared_anyway_is_shared(tmp_path: Path) -> None:
    """People's own ControlMaster: no socket of ours, and still one login."""
    config = f"Host jump\n  ControlMaster auto\n  ControlPath {tmp_path}/theirs"
    with way(tmp_path, {}, config=config) as through:
        through.prepare("-J", "jump")
        through.connect()
        assert (tmp_path / "theirs").is_socket()
        through.begin()
        through.run(through.relay)
        assert through.logins == 2


def test_where_nothing_may_be_run_there_is_no_agent(tmp_path: Path) -> None:
    """The session does not mind, and a sentence says so."""
    with way(tmp_path, {"ForceCommand": "cat"}) as through:
        jump = through.prepare("-J", "jump")
        through.connect()
        through.begin()
        through.run(lambda: "does not run" in jump.says)
        assert not through.relay()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("yes", "it does not run our agent (y)"),
        ("echo $SSH_ORIGINAL_COMMAND | cut -c1-4; cat >/dev/null; printf 'no\\033[2J\\n'; exit 3", "(no [2J)"),
        ("""cat >/dev/null; echo 'TUNNELD-MEETING {"error": "no\\u001b[2J port"}'""", "no [2J port"),
        ("cat >/dev/null; echo TUNNELD-MEETING {", "it does not run our agent (TUNNELD-MEETING {)"),
        ("cat >/dev/null; echo 'TUNNELD-MEETING [1]'", "it does not run our agent"),
        ("""echo 'TUNNELD-MEETING {"ports": {"4": "x", "6": 70000}}'""", "no address that others reach"),
        ("true", "it does not run our agent (exit status 0)"),
    ],
)
def test_whatever_a_jump_host_says_is_words_at_most(
    through: Route, monkeypatch: pytest.MonkeyPatch, command: str, words: str
) -> None:
    """Bounded, and fit for a terminal."""
    jump = through.prepare("-J", "jump")
    through.connect()
    there = jump_host.command_there
    monkeypatch.setattr(jump_host, "command_there", lambda way, path, _: there(way, path, command))
    through.begin()
    through.run(lambda: words in jump.says)


def test_a_jump_host_that_hangs_is_given_up(through: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it."""
    monkeypatch.setattr(jumps, "AGENT_START_TIMEOUT", 0.5)
    monkeypatch.setattr(jump_host, "command_there", lambda *way: ["sleep", "100"])
    jump = through.prepare("-J", "jump")
    through.connect()
    through.begin()
    through.run(lambda: jump.says == "it did not run our agent within 0.5 s")


def test_where_the_login_cannot_be_shared_there_is_no_agent(tmp_path: Path) -> None:
    """A jump host that allows one channel at a time: ssh asks for no second login."""
    with way(tmp_path, {"MaxSessions": "0"}) as through:
        jump = through.prepare("-J", "jump")
        session = subprocess.Popen(
            ["ssh", "-T", *through.way.options("first"), "dest", "cat"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        through.sessions.append(session)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: through.way.is_shared("first"), what="the hop", timeout=2)
        through.begin()
        through.run(lambda: jump.says.startswith("it does not") or "cannot be shared" in jump.says)
        assert not through.relay()
        assert through.logins <= 2


def test_without_a_shared_connection_it_is_not_tried(through: Route) -> None:
    """Such as one that died while its session began."""
    jump = through.prepare("-J", "jump")
    through.begin()
    through.run(lambda: jump.says == "its connection cannot be shared: no agent there")
    assert through.logins == 0


def test_an_agent_that_is_gone_is_started_again(through: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine was rebooted, maybe: at once if it was of use, else not too often, since each one stays a while."""
    monkeypatch.setattr(jumps, "AGENT_CHECK_EVERY", 0.05)
    path = {"kind": "relay", "state": "open"}
    through.near.loop.pair.snapshot = lambda now: {"paths": [path]}  # type: ignore[method-assign]
    through.prepare("-J", "jump")
    through.connect()
    through.begin()
    through.run(through.relay)
    first = through.relay()[0]
    through.near.step(0.3)
    path["state"] = "silent"
    through.run(lambda: through.relay()[0] != first)
    second = through.relay()[0]
    for _ in range(20):
        through.near.step(0.02)
        through.far.step(0.02)
    assert through.relay()[0] == second
    monkeypatch.setattr(jumps, "RESTART_PAUSE", 0.0)
    through.run(lambda: through.relay()[0] != second)


def test_nothing_stays_behind(through: Route) -> None:
    """No socket, no folder, no thread that waits; an agent that nobody uses leaves by itself."""
    jump = through.prepare("-J", "jump")
    through.connect()
    folder = Path(through.way.socket("first")).parent
    assert (folder / "first").is_socket()
    assert folder.stat().st_mode & 0o777 == 0o700
    through.begin()
    through.near.step(0.02)
    jump.close()
    assert not folder.exists()


def test_what_a_killed_session_left_is_removed(through: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next one; those of living processes are let be, and files that are no sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("TMPDIR", short)
        gone = subprocess.Popen(["true"])
        gone.wait()
        names = (f"{gone.pid}-0a0b0c", f"{gone.pid}-mine", f"{os.getpid()}-0a0b0c")
        stale, own, alive = (Path(short) / f"tunneld-jump-{name}" for name in names)
        for folder in (stale, own, alive):
            folder.mkdir()
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(folder / "first"))
        (own / "thesis").touch()
        through.prepare("-J", "jump")
        assert through.way.jump_host
        assert alive.exists()
        assert not stale.exists()
        assert os.listdir(own) == ["thesis"]


def test_the_agent_goes_with_the_session(through: Route) -> None:
    """Its port may be one of few that a firewall lets through."""
    jump = through.prepare("-J", "jump")
    through.connect()
    through.begin()
    through.run(through.relay)
    assert len(through.agents()) == 1
    jump.close()
    wait_until(lambda: not through.agents(), what="the agent's end")


def test_without_a_jump_host_nothing_changes(through: Route) -> None:
    """ssh's words are the person's own."""
    jump = through.prepare("-v")
    assert through.way.options("first") == ("-F", str(through.guest.config), "-v")
    through.begin()
    through.near.step(0.02)
    assert jump.status() is None
    jump.close()
