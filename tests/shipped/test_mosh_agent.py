"""The far agent as it is shipped, from its source text, between a real mosh-server and a real mosh-client."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.shipped.test_ingress_agent import ask_to_join
from tests.shipped.test_pair_loop import PATIENCE, SECRET, End, until
from tests.sshd import Sshd, descendants, running_sshd
from tests.until import wait_until
from tunneld.core.pair.outbox import OutgoingPacket
from tunneld.core.stream import frame
from tunneld.shipped import mosh_agent, own_addresses, pack
from tunneld.shipped.mosh_agent import MAX_MOSH_STREAMS, MAX_NAMED, STALE_STREAM
from tunneld.shipped.start_mosh_server import LOOPBACK_HOSTS, Running, Wanted

SERVE: dict[str, Any] = {"locale": {"LANG": "C.UTF-8"}, "udp": False}
SHELL = ["sh", "-c", 'while read line; do echo "<$line>"; test $line = bye && exit; done']
SMALL_DATAGRAM = 20 << 20  # bytes: a Python with nothing in it has half of that
NO_UTF8 = "mosh-server needs a UTF-8 native locale to run."

pytestmark = pytest.mark.skipif(not shutil.which("mosh-server"), reason="mosh is not installed")


PAUSES = {"LAST_DATAGRAMS = 2.0": "LAST_DATAGRAMS = 0.2", "SERVER_GRACE = 1.0": "SERVER_GRACE = 0.1"}


@pytest.fixture(autouse=True, scope="module")
def short_pauses() -> Iterator[None]:
    """An agent that waits for a tenth as long where nothing more is to come."""
    source = pack._source

    def hurried(name: str) -> str:
        text = source(name)
        if name == "shipped.mosh_agent":
            for pause, short in PAUSES.items():
                assert pause in text
                text = text.replace(pause, short)
        return text

    pack._module.cache_clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pack, "_source", hurried)
        yield
    pack._module.cache_clear()


class Client(End):
    """What `tunneld mosh` will be: the near end, streams that a shell starts, and a mosh-client on a terminal."""

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(is_client=True)
        self.env = env
        self.shell = ["/bin/sh", "-c"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.screen = b""
        self.terminal = -1
        self.mosh: subprocess.Popen[bytes] | None = None
        self.status: int | None = None

    def start(self, name: str, command: str, program: bytes = b"") -> subprocess.Popen[bytes]:
        """Run a program of ours there and take its pipes as a stream."""
        process = self.processes[name] = subprocess.Popen(
            [*self.shell, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            start_new_session=True,
        )
        assert process.stdin and process.stdout
        process.stdin.write(program)
        process.stdin.flush()
        self.loop.add_stream(name, os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno()))
        process.stdin.close()
        process.stdout.close()
        return process

    def begin(self, **serve: Any) -> dict[str, Any]:
        """Start a far agent; what it says first."""
        self.start("ssh", pack.mosh_agent_command({**SERVE, **serve}), pack.mosh_agent_program(SECRET))
        return self.hears(frame.SERVING)

    def join(self, answer: dict[str, Any], name: str) -> subprocess.Popen[bytes]:
        """Start a stream through the join socket."""
        return self.start(name, pack.whole_command(pack.rejoin_program(answer["door"], name, answer["host"])))

    def joins(self, answer: dict[str, Any], name: str) -> None:
        """Start a stream through the join socket, and wait until the agent speaks on it."""
        self.join(answer, name)
        until(lambda: any(said[:2] == (name, frame.REPORT) for said in self.heard), self)

    def hears(self, kind: int) -> dict[str, Any]:
        """Wait for a message of this kind."""
        until(lambda: any(each == kind for _, each, _ in self.heard) or self.lost, self)
        assert any(each == kind for _, each, _ in self.heard), self.lost
        return next(body for _, each, body in self.heard if each == kind)

    def open_terminal(self, key: str, family: int = 6) -> None:
        """Start mosh-client."""
        port = self.loop.open_local(family)
        self.terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        self.mosh = subprocess.Popen(
            ["mosh-client", LOOPBACK_HOSTS[family], str(port)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={"MOSH_KEY": key, "LC_ALL": "C.UTF-8", "TERM": "xterm", "MOSH_PREDICTION_DISPLAY": "never"},
        )
        os.close(theirs)
        self.loop.watch(self.terminal, self._read)

    def types(self, text: str) -> None:
        os.write(self.terminal, f"{text}\n".encode())

    def sees(self, text: str) -> None:
        """Wait until this is on the screen, in one run of characters on one line.

        mosh paints what differs from what it painted before: it moves the cursor over a blank that was blank already.
        """
        assert " " not in text
        until(lambda: text.encode() in self.screen, self, what=lambda: f"{text} is not on the screen: {self.screen!r}")

    def leave(self) -> None:
        """Say that mosh-client has ended, and wait until all streams have."""
        for name in list(self.loop.pair.streams):
            self.loop.say(name, frame.SERVE, {"leave": True})
        until(lambda: not self.loop.pair.streams, self)

    def end(self) -> None:
        if self.mosh and self.status is None:
            self.mosh.kill()
            self._ended()
        for process in self.processes.values():
            process.kill()
            process.wait()
            assert process.stderr
            process.stderr.close()
        self.loop.close()
        self._end_there()

    def _end_there(self) -> None:
        """mosh-server, after which its agent leaves."""
        for pid in (body.get("pid") for _, _, body in self.heard):
            if pid and b"mosh-server" in command_line(pid):
                os.kill(pid, signal.SIGKILL)

    def _read(self) -> None:
        try:
            self.screen += (data := os.read(self.terminal, 65536))
        except OSError:
            data = b""
        if not data:
            self._ended()

    def _ended(self) -> None:
        assert self.mosh
        self.loop.unwatch(self.terminal)
        os.close(self.terminal)
        self.status = self.mosh.wait(PATIENCE)


@dataclass
class Place:
    """A machine where far agents run."""

    folder: Path
    env: dict[str, str]
    clients: list[Client] = field(default_factory=list)

    def client(self) -> Client:
        self.clients.append(Client(self.env))
        return self.clients[-1]

    def session(
        self, command: list[str] | None = SHELL, *, family: int = 6, **serve: Any
    ) -> tuple[Client, dict[str, Any]]:
        """A client whose mosh-client runs."""
        return self.start(command, lambda client, key: client.open_terminal(key, family), **serve)

    def start(
        self,
        command: list[str] | None = SHELL,
        opened: Callable[[Client, str], None] = lambda client, key: None,
        **serve: Any,
    ) -> tuple[Client, dict[str, Any]]:
        """A client without a mosh-client, which does for most things: mosh takes its time to paint the first screen."""
        client = self.client()
        answer = client.begin(command=command, **serve)
        opened(client, answer["key"])
        until(lambda: len(client.heard) > 1, client)
        return client, {**answer, **client.heard[1][2]}

    def left(self) -> list[str]:
        return [entry.name for entry in (self.folder / "tmp").iterdir()]


def place_with(python: str, folder: Path) -> Iterator[Place]:
    for name in ("bin", "tmp", "home"):
        (folder / name).mkdir()
    (folder / "bin" / "python3").symlink_to(python)
    env = {"PATH": f"{folder}/bin:/usr/bin:/bin", "TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home")}
    place = Place(folder, env)
    yield place
    for client in place.clients:
        client.end()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    yield from place_with(os.path.realpath(sys.executable), tmp_path)


@pytest.fixture
def any_place(any_python: str, tmp_path: Path) -> Iterator[Place]:
    yield from place_with(any_python, tmp_path)


def agent_of(answer: dict[str, Any]) -> int:
    """The process whose join socket this is."""
    return int(Path(answer["door"]).parent.name.split("-")[2])


def command_line(pid: int) -> bytes:
    """Empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def lives(pid: int) -> bool:
    """A process that nobody has buried counts as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# What it is for


def test_a_session(any_place: Place) -> None:
    """A line typed, its echo, and an end that everybody hears of and that leaves nothing."""
    client, answer = any_place.session()
    assert set(answer) == {"key", "pid", "family", "door", "host", "ssh_connection"}
    client.types("hello")
    client.sees("<hello>")
    client.types("bye")
    until(lambda: client.status is not None, client)
    assert client.status == 0
    assert client.hears(frame.REPORT) == {"ended": True}
    client.leave()
    wait_until(lambda: not lives(agent_of(answer)) and not lives(answer["pid"]))
    assert any_place.left() == []
    assert client.processes["ssh"].wait(PATIENCE) == 0


def test_ipv4(place: Place) -> None:
    """A client without an IPv6 loopback: what family the far side has is another matter."""
    client, answer = place.session(family=4)
    assert answer["family"] == 6
    client.types("four")
    client.sees("<four>")


def test_the_session_outlives_its_stream(place: Place) -> None:
    """The SSH session ends; nothing happens there; another one joins and the screen goes on."""
    client, answer = place.session()
    client.loop.drop_stream("ssh")
    assert client.processes["ssh"].wait(PATIENCE) == 0
    client.types("one")
    client.join(answer, "again")
    client.sees("<one>")
    assert client.hears(frame.REPORT) == {"ssh_connection": ""}


def test_a_killed_session_takes_nothing_along(place: Place) -> None:
    """What sshd started is killed, with its whole process group."""
    client, answer = place.start()
    os.killpg(client.processes["ssh"].pid, signal.SIGKILL)
    client.processes["ssh"].wait()
    client.loop.drop_stream("ssh")
    client.joins(answer, "again")


def test_two_streams(place: Place) -> None:
    """Each datagram once, though both carry it; either may go."""
    client, answer = place.session()
    client.join(answer, "second")
    client.types("one")
    client.sees("<one>")
    until(lambda: client.loop.pair.counts["datagrams_duplicate"] > 0, client)
    client.loop.drop_stream("ssh")
    client.types("two")
    client.sees("<two>")


def test_how_a_later_session_came_is_told(place: Place) -> None:
    """SSH_CONNECTION of each SSH session, for whoever wants to know the way in."""
    place.env["SSH_CONNECTION"] = "203.0.113.9 50000 192.0.2.2 22"
    client, answer = place.start()
    assert answer["ssh_connection"] == "203.0.113.9 50000 192.0.2.2 22"
    client.env["SSH_CONNECTION"] = "2001:db8::9 50000 2001:db8::2 22"
    client.join(answer, "again")
    assert client.hears(frame.REPORT) == {"ssh_connection": "2001:db8::9 50000 2001:db8::2 22"}


# Over a real SSH server


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """One whose sessions put temporary files into a folder of the test's."""
    ended = asyncio.Event()

    async def hold() -> None:
        settings = f"SetEnv SHLVL=2 HOME={tmp_path}/home TMPDIR={tmp_path}/tmp"
        async with running_sshd(tmp_path / "sshd", options=[settings]) as server:
            ready.set_result(server)
            await ended.wait()

    loop = asyncio.new_event_loop()
    ready: asyncio.Future[Sshd] = loop.create_future()
    holding = loop.create_task(hold())
    yield loop.run_until_complete(ready)
    ended.set()
    loop.run_until_complete(holding)
    loop.close()


def over(sshd: Sshd) -> list[str]:
    """OpenSSH's client, which takes a command as its last argument."""
    settings = [f"UserKnownHostsFile={sshd.known_hosts}", "BatchMode=yes", "IdentitiesOnly=yes"]
    options = [each for setting in settings for each in ("-o", setting)]
    where = ["-p", str(sshd.port), "-i", str(sshd.user_key), f"{sshd.user}@127.0.0.1"]
    return ["ssh", "-T", "-F", "none", *options, *where]


def test_a_session_over_ssh_outlives_it(place: Place, sshd: Sshd) -> None:
    """ssh is killed, and with it everything that sshd waits for; another ssh joins."""
    client = place.client()
    client.shell = over(sshd)
    answer = client.begin(command=SHELL)
    client.open_terminal(answer["key"])
    until(lambda: len(client.heard) > 1, client)
    answer.update(client.heard[1][2])
    assert answer["ssh_connection"].startswith("127.0.0.1 ")
    client.processes["ssh"].kill()
    until(lambda: client.lost, client)
    wait_until(lambda: not list(descendants(sshd.pid)))
    assert lives(agent_of(answer)) and lives(answer["pid"])
    client.types("two")
    client.join(answer, "again")
    client.sees("<two>")
    client.types("bye")
    until(lambda: client.status is not None, client)
    client.leave()
    wait_until(lambda: place.left() == [])
    assert client.processes["again"].wait(PATIENCE) == 0


# Over UDP


needs_an_address = pytest.mark.skipif(not own_addresses.own(), reason="this machine has no address but the loopback's")


def carrier(client: Client) -> str:
    """What carries datagrams now."""
    found: str = client.loop.pair.snapshot(time.monotonic())["in_use"]["carrier"]
    return found


@needs_an_address
def test_a_path_takes_over(any_place: Place) -> None:
    """The stream carries first; then UDP does, and needs no stream any more; and a stream does when UDP goes."""
    client, answer = any_place.session(udp=True)
    client.types("one")
    client.sees("<one>")
    client.loop.open_udp()
    until(lambda: carrier(client) == "path", client)
    client.loop.drop_stream("ssh")
    client.types("two")
    client.sees("<two>")
    client.join(answer, "again")
    until(lambda: client.is_greeted, client)
    client.loop.close_udp()
    client.types("three")
    client.sees("<three>")


@needs_an_address
def test_a_client_that_moves_is_followed(place: Place) -> None:
    """Another socket, another port; no stream is there to say so, but its packets are sealed."""
    client, _ = place.session(udp=True)
    client.loop.open_udp()
    until(lambda: carrier(client) == "path", client)
    client.loop.drop_stream("ssh")
    client.loop.close_udp()
    client.loop.open_udp()
    client.types("one")
    client.sees("<one>")


@needs_an_address
def test_strangers_are_not_answered(place: Place) -> None:
    """Garbage, cut and repeated packets, and too many of them: nothing comes back, and the session goes on."""
    client, answer = place.session(udp=True)
    client.loop.open_udp()
    until(lambda: carrier(client) == "path", client)
    remote = client.loop.pair.snapshot(time.monotonic())["in_use"]["remote"]
    host, _, port = remote.rpartition(":")
    there = (host.strip("[]"), int(port))
    overheard = listen_in(client)
    client.types("one")
    client.sees("<one>")
    assert overheard
    chance = random.Random(1)
    before = cpu(agent_of(answer))
    with socket.socket(socket.AF_INET6 if ":" in there[0] else socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        for packet in overheard:
            for data in (packet, packet[:-1], packet[:20], packet[:1], b"", packet + b"x", bytes(2000)):
                stranger.sendto(data, there)
            flipped = bytearray(packet)
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
            stranger.sendto(bytes(flipped), there)
        for _ in range(5000):
            stranger.sendto(chance.randbytes(chance.randrange(1400)), there)
        client.types("two")
        client.sees("<two>")
        with pytest.raises(BlockingIOError):
            stranger.recv(2000)
    assert cpu(agent_of(answer)) - before < 2
    assert resident(agent_of(answer)) < SMALL_DATAGRAM


def listen_in(client: Client) -> list[bytes]:
    """The packets that it sends from now on."""
    heard: list[bytes] = []
    pair = client.loop.pair
    packets = pair.packets

    def overhear(now: float) -> list[OutgoingPacket]:
        sent = packets(now)
        heard.extend(packet.data for packet in sent)
        return sent

    pair.packets = overhear  # type: ignore[method-assign]
    return heard


# What mosh-server is given


def test_the_terminal_is_as_mosh_makes_it(place: Place) -> None:
    """The user's home, no signal ignored, the environment of the SSH session."""
    place.env["FAVOURITE"] = "42"
    # glibc's posix_spawn leaves its own two signals (32, 33) ignored, which nobody else may use.
    ignored = "$((0x$(sed -n 's/SigIgn:.//p' /proc/self/status) & 0x7fffffff))"
    opened = "$(ls /proc/self/fd | wc -l)"
    script = f"pwd; echo $FAVOURITE/${{LC_CTYPE-none}}/$LANG; echo ignored:{ignored},open:{opened}; cat"
    client, _ = place.session(["sh", "-c", script])
    client.sees(f"{place.folder}/home")
    client.sees("42/none/C.UTF-8")
    client.sees("ignored:0,open:4")


def test_ports_and_colours(place: Place) -> None:
    """As the user asked for them."""
    client = place.client()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
        free.bind(("::1", 0))
        port = free.getsockname()[1]
    answer = client.begin(ports=f"{port}:{port}", colors=8, command=["sh", "-c", "sleep 60"])
    line = command_line(answer["pid"]).split(b"\0")
    assert line[:8] == [b"mosh-server", b"new", b"-i", b"::1", b"-c", b"8", b"-l", b"LANG=C.UTF-8"]
    assert line[8:] == [b"-p", b"%d:%d" % (port, port), b"--", b"sh", b"-c", b"sleep 60", b""]
    client.leave()
    wait_until(lambda: not lives(answer["pid"]))


def test_a_machine_with_another_locale(place: Place) -> None:
    """The client's does not exist there: the terminal gets the plainest that does."""
    client, _ = place.session(["sh", "-c", "echo $LC_CTYPE/${LANG-none}; cat"], locale={"LANG": "xx_XX.UTF-8"})
    client.sees("C.UTF-8/none")


def test_mosh_server_where_package_managers_put_it(place: Place) -> None:
    """PATH is short in a session without a login shell."""
    os.symlink(shutil.which("cat") or "", place.folder / "bin" / "cat")
    os.symlink("/bin/sh", place.folder / "bin" / "sh")
    (place.folder / "home" / ".local" / "bin").mkdir(parents=True)
    os.symlink(shutil.which("mosh-server") or "", place.folder / "home" / ".local" / "bin" / "mosh-server")
    place.env["PATH"] = f"{place.folder}/bin"
    client, _ = place.session()
    client.types("hello")
    client.sees("<hello>")


# Why mosh-server does not run


@pytest.mark.parametrize(
    ("serve", "env", "code", "words"),
    [
        (
            {"server": "mosh-sevrer"},
            {},
            "no-mosh-server",
            "mosh-sevrer cannot be run there: install mosh on that machine",
        ),
        ({"server": "echo what is; sh -c 'exit 3'"}, {}, "mosh-server", "there: what is"),
        ({"server": "false"}, {}, "mosh-server", "false there: exit status 1"),
        ({"server": f"echo {NO_UTF8} >&2; false"}, {}, "no-utf8", "no UTF-8 locale, which mosh-server needs"),
    ],
)
def test_a_refusal(
    place: Place, serve: dict[str, Any], env: dict[str, str], code: str | None, words: str | None
) -> None:
    """A sentence and a code, and an agent that leaves."""
    client = place.client()
    client.env = {**place.env, **env}
    answer = client.begin(**serve)
    assert answer["code"] == code
    assert words in answer["error"]
    until(lambda: client.lost, client)
    assert client.lost == [("ssh", "it ended")]
    assert client.processes["ssh"].wait(PATIENCE) == 0
    assert place.left() == []


def test_no_place_for_a_join_socket(place: Place) -> None:
    """Temporary files may be forbidden; a session that cannot be joined is better than none."""
    place.env["TMPDIR"] = "/proc/nowhere"
    client, answer = place.start()
    assert (answer["door"], answer["why"]) == (None, "No such file or directory")
    client.loop.say("ssh", frame.SERVE, {"stun": []})
    client.leave()


# How it ends


def test_a_dead_mosh_server_is_told(place: Place) -> None:
    """At once, and the agent leaves."""
    client, answer = place.start()
    os.kill(answer["pid"], signal.SIGKILL)
    before = time.monotonic()
    assert client.hears(frame.REPORT) == {"ended": True}
    assert time.monotonic() - before < 1
    until(lambda: client.lost, client)
    wait_until(lambda: place.left() == [])


def test_leaving_ends_mosh_server(place: Place) -> None:
    """The client's mosh-client was killed: nobody else knows the key."""
    client, answer = place.session()
    client.types("hello")
    client.sees("<hello>")
    client.leave()
    wait_until(lambda: not lives(answer["pid"]) and place.left() == [])


def test_a_terminated_agent_takes_mosh_server_along(place: Place) -> None:
    """Nobody could reach it any more."""
    _, answer = place.start()
    os.kill(agent_of(answer), signal.SIGTERM)
    wait_until(lambda: place.left() == [])
    wait_until(lambda: not lives(answer["pid"]))


def test_a_killed_agent_takes_mosh_server_along(any_place: Place) -> None:
    """The system does so when memory runs out; mosh-server would stay for ever, and the person's shell with it."""
    _, answer = any_place.start()
    wait_until(lambda: list(descendants(answer["pid"])))
    shell = list(descendants(answer["pid"]))
    os.kill(agent_of(answer), signal.SIGKILL)
    wait_until(lambda: not any(map(lives, [answer["pid"], *shell])))


def test_a_hang_up_does_nothing(place: Place) -> None:
    """The SSH session's end, by another way."""
    client, answer = place.start()
    os.kill(agent_of(answer), signal.SIGHUP)
    os.kill(agent_of(answer), signal.SIGINT)
    client.joins(answer, "again")


def test_a_client_that_thinks_better_of_it(place: Place) -> None:
    """It is gone before the second stage came: nobody has the key any more."""
    client = place.client()
    process = client.start("ssh", pack.mosh_agent_command(SERVE))
    answer = client.hears(frame.SERVING)
    client.loop.drop_stream("ssh")
    assert process.wait(PATIENCE) == 0
    wait_until(lambda: not lives(answer["pid"]))


def test_a_join_socket_that_is_gone_is_told(place: Place) -> None:
    """The session has ended: trying again is of no use."""
    client = place.client()
    process = client.join({"door": f"{place.folder}/nowhere/join", "host": os.uname().nodename}, "again")
    assert process.wait(PATIENCE) == pack.NO_JOIN_SOCKET
    assert process.stderr and process.stderr.read() == b""


def test_another_machine_of_the_same_name_is_told(place: Place) -> None:
    """A cluster's name leads to any of its machines: that there is no join socket says nothing about the session."""
    client = place.client()
    process = client.join({"door": f"{place.folder}/nowhere/join", "host": "login2"}, "again")
    assert process.wait(PATIENCE) == pack.OTHER_MACHINE


# What goes wrong


def test_serve_may_not_come_twice(place: Place) -> None:
    """A stream that asks for anything but to leave ends; the session goes on."""
    client, answer = place.start()
    client.join(answer, "second")
    client.loop.say("second", frame.SERVE, SERVE)
    until(lambda: client.lost, client)
    assert [name for name, _ in client.lost] == ["second"]
    client.joins(answer, "third")


def test_streams_are_bounded(place: Place) -> None:
    """However many join: the one that has waited longest gives way."""
    client, answer = place.start()
    before = len(os.listdir(f"/proc/{agent_of(answer)}/fd"))
    pairs = [socket.socketpair() for _ in range(20)]
    held = [ask_to_join(answer["door"], b"s%d" % at, [pair[0].fileno()] * 2) for at, pair in enumerate(pairs)]
    held.append(ask_to_join(answer["door"], b"BAD NAME", [pairs[0][0].fileno()] * 2))
    last = ask_to_join(answer["door"], b"last", [pairs[0][0].fileno()] * 2)
    until(lambda: pairs[0][1].recv(2000, socket.MSG_PEEK).count(b"versions") > 1, client)
    assert len(os.listdir(f"/proc/{agent_of(answer)}/fd")) <= before + 3 * MAX_MOSH_STREAMS
    for sock in [last, *held, *(end for pair in pairs for end in pair)]:
        sock.close()
    client.joins(answer, "again")


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ([["192.0.2.1", 40111], ["2001:db8::1", 3478]], [("192.0.2.1", 40111), ("2001:db8::1", 3478)]),
        ([["192.0.2.1", 0], ["192.0.2.1", 65536], ["192.0.2.1", True], ["192.0.2.1", "80"]], []),
        ([["name.example", 80], ["", 80], ["192.0.2.1%eth0", 80], [None, 80], [1, 80]], []),
        ([[], ["192.0.2.1"], "no", None, 7, {"a": 1}, ["192.0.2.1", 80, 1]], []),
        ([["192.0.2.1", port] for port in range(1, 20)], [("192.0.2.1", port) for port in range(1, MAX_NAMED + 1)]),
    ],
)
def test_what_is_no_address_is_left_out(named: list[Any], found: list[tuple[str, int]]) -> None:
    """Whatever a client's JSON holds, and however many."""
    assert mosh_agent._addresses(named) == found


@pytest.mark.parametrize(
    ("waited", "heard", "is_dropped"),
    [(STALE_STREAM + 1, 10.0, True), (STALE_STREAM, 10.0, False), (STALE_STREAM + 1, 20.0, False)],
)
def test_a_stream_is_given_up_when_another_one_lives(
    monkeypatch: pytest.MonkeyPatch, waited: float, heard: float, is_dropped: bool
) -> None:
    """A silent network concerns them all, and ends none."""
    running = Running(Wanted(), keeper=-1, family=6, port=1, pid=os.getpid())
    agent = mosh_agent.MoshAgent(SECRET, running)
    streams = {
        "old": SimpleNamespace(waited=lambda now: waited, heard=heard),
        "new": SimpleNamespace(waited=lambda now: 0.0, heard=20.0),
    }
    dropped: list[str] = []
    monkeypatch.setattr(agent._loop.pair, "streams", streams)
    monkeypatch.setattr(agent._loop, "drop_stream", dropped.append)
    agent._check()
    assert dropped == (["old"] if is_dropped else [])
    agent._loop._selector.close()


def test_it_is_small(place: Place) -> None:
    """A person may leave many sessions behind: megabytes of memory, and what sshd waits for is tiny."""
    client, answer = place.session()
    client.types("hello")
    client.sees("<hello>")
    assert resident(agent_of(answer)) < SMALL_DATAGRAM
    assert resident(client.processes["ssh"].pid) < 4 << 20


def cpu(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
