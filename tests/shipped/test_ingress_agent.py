"""The agent as it is shipped: a process that a shell starts from its source text, spoken to over its pipes."""

from __future__ import annotations

import array
import contextlib
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.shim.scene import MOSH_SIZED, free_udp_ports
from tests.until import wait_until
from tunneld.core.stream import frame
from tunneld.core.stream.carrier import MAX_CONTROL
from tunneld.core.stream.flow import MAX_FLOWS_OF_SOURCE
from tunneld.core.stream.frame import Frame, FrameDecoder, message
from tunneld.shipped import pack
from tunneld.shipped.ingress_agent import MAX_AGENT_STREAMS, REPORT_EVERY, IngressAgent, _leave, _source

PATIENCE = 20.0  # seconds until a test gives up
WRONG_PORTS: list[Any] = [[], [1], [1, 2, 3], [2, 1], [0, 1], [1, 65536], [1, 10**30], ["1", "2"], [1, True], [[], {}]]
HELLO = frame.PREAMBLE + message(frame.HELLO, {"versions": [1]}).encode()


class Program:
    """A process that a shell started from one of our programs, and the frames that it has said."""

    def __init__(self, program: bytes, env: dict[str, str], *, before: str = "") -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", before + pack.command(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
        )
        self.decoder = FrameDecoder()
        self.frames: list[Frame] = []
        self.received = 0
        self.write(program)

    def write(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def until(self, is_so: Callable[[], Any]) -> Any:
        """Read frames until this is true; its value."""
        end = time.monotonic() + PATIENCE
        assert self.process.stdout
        while not (found := is_so()):
            assert select.select([self.process.stdout], [], [], end - time.monotonic())[0], "nothing more was said"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"it ended: {self.last_words()}"
            came = self.decoder.feed(data)
            self.frames += came
            self.received += (new := sum(one.kind == frame.DATAGRAM for one in came))
            if new:
                self.write(Frame(frame.ACK, number=self.received).encode())
        return found

    def said(self, kind: int) -> Frame:
        """Wait for the next frame of this kind."""
        found: Frame = self.until(lambda: next((one for one in self.frames if one.kind == kind), None))
        self.frames.remove(found)
        return found

    def greet(self) -> None:
        self.said(frame.HELLO)
        self.write(HELLO)

    def last_words(self) -> str:
        """Wait for its end; the last line on standard error."""
        assert self.process.stderr
        self.process.wait(PATIENCE)
        lines = self.process.stderr.read().decode().strip().splitlines()
        return lines[-1] if lines else ""

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@dataclass
class Relay:
    """A place where agents run: an environment, and everything that was started in it."""

    folder: Path
    env: dict[str, str]
    port: int = field(default_factory=lambda: free_udp_ports(3))
    programs: list[Program] = field(default_factory=list)
    path: str = ""

    def start(self, program: bytes | None = None, *, before: str = "") -> Program:
        self.programs.append(Program(program or pack.ingress_agent_program(), self.env, before=before))
        return self.programs[-1]

    def serve(self, *, bind: str = "127.0.0.1", silence: float = 60, program: bytes | None = None) -> Program:
        """An agent whose ingress is open."""
        agent = self.start(program)
        agent.greet()
        agent.write(serve(self.port, bind=bind, silence=silence))
        self.path = frame.body(agent.said(frame.SERVING))["join"]
        return agent

    def join(self, name: str) -> Program:
        stream = self.start(pack.join_program(self.path, name))
        stream.greet()
        return stream

    def left(self) -> list[str]:
        return [entry.name for entry in self.folder.iterdir()]


def reporting_often() -> bytes:
    """The agent with pauses between its reports that are a hundredth as long."""
    text, pause = zlib.decompress(pack.ingress_agent_program()).decode(), "REPORT_EVERY = "
    assert f"{pause}{REPORT_EVERY}" in text
    return zlib.compress(text.replace(f"{pause}{REPORT_EVERY}", f"{pause}{REPORT_EVERY / 100}").encode())


def serve(port: int, *, bind: str = "127.0.0.1", silence: float = 60) -> bytes:
    return message(frame.SERVE, {"bind": bind, "ports": [port, port + 2], "silence": silence}).encode()


def relay_with(python: str, tmp_path: Path) -> Iterator[Relay]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(python)
    with tempfile.TemporaryDirectory(prefix="agent-") as short:  # Unix sockets are made below it
        made = Relay(Path(short), {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "TMPDIR": short})
        yield made
        for program in made.programs:
            program.end()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    yield from relay_with(os.path.realpath(sys.executable), tmp_path)


@pytest.fixture
def any_relay(any_python: str, tmp_path: Path) -> Iterator[Relay]:
    """A relay with the Python of these tests, and one with the oldest that an agent runs on."""
    yield from relay_with(any_python, tmp_path)


def client(port: int, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.connect((host, port))
    return sock


def rss(process: subprocess.Popen[bytes]) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fds(process: subprocess.Popen[bytes]) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def state(process: subprocess.Popen[bytes]) -> str:
    """What the system says that it does (proc(5)): R runs or could, S waits."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


# What it is for


def test_a_datagram_and_its_answer(any_relay: Relay) -> None:
    """In at the ingress, out as a frame; back as a frame, out at the ingress."""
    agent = any_relay.serve()
    with client(any_relay.port + 1) as mosh:
        mosh.send(MOSH_SIZED)
        came = agent.said(frame.DATAGRAM)
        assert (came.flow >> 16, came.number, came.payload) == (any_relay.port + 1, 0, MOSH_SIZED)
        agent.write(Frame(frame.DATAGRAM, came.flow, 0, b"\x80answer").encode())
        assert mosh.recv(2000) == b"\x80answer"


def test_further_streams_join(any_relay: Relay) -> None:
    """Small datagrams then take these instead of the control stream, and the answer may come over either."""
    any_relay.serve()
    streams = [any_relay.join(f"stream-{number}") for number in (1, 2)]
    for stream in streams:
        stream.write(Frame(frame.PING).encode())
        stream.said(frame.PONG)
    with client(any_relay.port) as mosh:
        mosh.send(MOSH_SIZED)
        first, second = (stream.said(frame.DATAGRAM) for stream in streams)
        assert first == second
        for stream in streams:
            stream.write(Frame(frame.DATAGRAM, first.flow, 0, b"\x80once").encode())
        streams[0].write(Frame(frame.DATAGRAM, first.flow, 1, b"\x80then").encode())
        assert [mosh.recv(2000), mosh.recv(2000)] == [b"\x80once", b"\x80then"]


def test_ipv6(relay: Relay) -> None:
    """An IPv6 address is bound as it is."""
    agent = relay.serve(bind="::1")
    with client(relay.port, "::1") as mosh:
        mosh.send(MOSH_SIZED)
        agent.write(Frame(frame.DATAGRAM, agent.said(frame.DATAGRAM).flow, 0, b"six").encode())
        assert mosh.recv(2000) == b"six"


def test_shell_noise_does_no_harm(relay: Relay) -> None:
    """Whatever a start-up file prints, a zero byte included."""
    agent = relay.start(before="printf 'motd\\n\\0tunnel\\0'; ")
    agent.greet()
    assert agent.decoder.noise == b"motd\n\0tunnel\0"


# How it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing(relay: Relay, number: signal.Signals) -> None:
    """No folder, no word, no port."""
    agent = relay.serve()
    assert len(relay.left()) == 1
    agent.process.send_signal(number)
    agent.process.send_signal(number)
    assert agent.last_words() == ""
    assert agent.process.returncode == 0
    assert relay.left() == []


def test_a_second_signal_does_not_interrupt_the_cleaning_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first one on, all that could end it are ignored."""
    ignored: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda number, how: ignored.append(number) if how is signal.SIG_IGN else None)
    with pytest.raises(SystemExit):
        _leave()
    assert {signal.SIGTERM, signal.SIGHUP, signal.SIGINT} <= set(ignored)


def test_the_end_of_its_input_ends_it(any_relay: Relay) -> None:
    """The SSH session is over; so is the process of a stream that had joined."""
    agent = any_relay.serve()
    stream = any_relay.join("stream-1")
    assert agent.process.stdin
    agent.process.stdin.close()
    assert agent.last_words() == ""
    assert agent.process.returncode == 0
    assert any_relay.left() == []
    assert stream.process.wait(PATIENCE) == 0


def test_silence_ends_it(relay: Relay) -> None:
    """A daemon that is gone without a word."""
    agent = relay.serve(silence=0.3)
    assert agent.last_words() == "tunneld agent: the daemon has been silent for 0.3 s"
    assert relay.left() == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (Frame(frame.ACK, number=1).encode(), "acknowledges datagrams that were never sent"),
        (Frame(frame.SERVE, payload=b"[]").encode(), "does not carry a JSON object"),
        (Frame(frame.SERVE, payload=b"[" * 16000).encode(), "does not carry a JSON object"),
        (b"\x01" + b"\xff" * 10, "announces 65535 bytes"),
        (message(frame.SERVE, {}).encode(), "SERVE lacks bind, ports or silence"),
        (message(frame.SERVE, {"bind": 1, "ports": [1, 2], "silence": 1}).encode(), "SERVE lacks bind"),
        (message(frame.SERVE, {"bind": "", "ports": [1, 2], "silence": "1"}).encode(), "SERVE lacks bind"),
        (message(frame.SERVE, {"bind": "", "ports": [1, 2], "silence": 0}).encode(), "silence is out of bounds"),
        (message(frame.SERVE, {"bind": "", "ports": [1, 2], "silence": 10**400}).encode(), "silence is out of bounds"),
        (Frame(frame.SERVE, payload=b'{"bind":"","ports":[1,2],"silence":1e999}').encode(), "silence is out of bounds"),
        *(
            (message(frame.SERVE, {"bind": "", "ports": ports, "silence": 1}).encode(), "not a first and a last one")
            for ports in WRONG_PORTS
        ),
    ],
)
def test_a_malformed_control_stream_ends_it(relay: Relay, wrong: bytes, why: str) -> None:
    """In one line, which the daemon shows as the reason."""
    agent = relay.start()
    agent.greet()
    agent.write(wrong)
    words = agent.last_words()
    assert words.startswith("tunneld agent: ")
    assert why in words


def test_serve_may_not_come_twice(relay: Relay) -> None:
    """Ports are opened once in a life."""
    agent = relay.serve()
    agent.write(serve(relay.port))
    assert agent.last_words() == "tunneld agent: SERVE came twice"


@pytest.mark.parametrize("bind", ["nowhere.invalid", "192.0.2.1", "a\0b", "\ud800", "x" * 300, "..", ":::"])
def test_an_address_that_cannot_be_bound_is_told(relay: Relay, bind: str) -> None:
    """The daemon hears why, and the agent lives."""
    agent = relay.start()
    agent.greet()
    agent.write(serve(relay.port, bind=bind))
    assert frame.body(agent.said(frame.SERVING))["error"].startswith(f"UDP port {relay.port} on ")
    agent.write(Frame(frame.PING).encode())
    agent.said(frame.PONG)


def test_a_folder_that_cannot_be_made_is_told(relay: Relay) -> None:
    """Temporary files may be forbidden."""
    relay.env["TMPDIR"] = "/proc/nowhere"
    agent = relay.start()
    agent.greet()
    agent.write(serve(relay.port))
    assert frame.body(agent.said(frame.SERVING))["error"].startswith("no Unix socket in /proc/nowhere")


def test_what_others_left_in_the_temporary_folder_does_no_harm(relay: Relay) -> None:
    """Names that look like an agent's folder, made by anybody."""
    for rest in ("", "²-x", "٣-x", "0-x", f"{'9' * 30}-x", "1-x"):
        (relay.folder / f"tunneld-agent-{rest}").mkdir()
    (relay.folder / "tunneld-agent-999999-x").symlink_to("/nowhere")
    relay.serve()


# Streams that go wrong


def test_a_malformed_stream_ends_that_stream_alone(relay: Relay) -> None:
    """The agent counts it and goes on."""
    agent = relay.serve(program=reporting_often())
    stream = relay.join("stream-1")
    stream.write(Frame(frame.ACK, number=9).encode())
    assert stream.process.wait(PATIENCE) == 0
    agent.until(lambda: any(b'"streams_malformed":1' in one.payload for one in agent.frames))


def test_garbage_at_the_join_socket_is_turned_away(relay: Relay) -> None:
    """Nothing, no files, wrong names, one file, files that are no streams: none of it stays or does harm."""
    agent = relay.serve()
    before = fds(agent.process)
    null, regular, folder = (os.open(path, os.O_RDONLY) for path in (os.devnull, __file__, relay.folder))
    here, there = socket.socketpair()
    pair = here.fileno()
    for data, files in [
        (b"", []),
        (b"x", []),
        (b"x" * 60000, []),
        (b"\xff", [pair, pair]),
        (b"stream-1", []),
        (b"stream-1", [pair]),
        (b"stream-1", [null, null]),
        (b"stream-1", [regular, regular]),
        (b"stream-1", [pair, folder]),
        (b"control", [pair, pair]),
        (b"stream-1", [pair] * 100),  # a stream, as far as its first two go
    ]:
        ask_to_join(relay.path, data, files).close()
    agent.write(Frame(frame.PING).encode())
    agent.said(frame.PONG)
    wait_until(lambda: fds(agent.process) <= before + 3)
    for fd in (null, regular, folder):
        os.close(fd)
    here.close()
    there.close()
    wait_until(lambda: fds(agent.process) == before)


def ask_to_join(path: str, data: bytes, files: list[int]) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    if data:
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else [])
    return sock


def test_streams_are_bounded(relay: Relay) -> None:
    """However many ask to join."""
    agent = relay.serve()
    before = fds(agent.process)
    pairs = [socket.socketpair() for _ in range(20)]
    held = [ask_to_join(relay.path, b"stream-%d" % at, [pair[0].fileno()] * 2) for at, pair in enumerate(pairs)]
    agent.write(Frame(frame.PING).encode())
    agent.said(frame.PONG)
    wait_until(lambda: fds(agent.process) == before + 3 * (MAX_AGENT_STREAMS - 1))
    for sock in [*held, *(end for pair in pairs for end in pair)]:
        sock.close()
    wait_until(lambda: fds(agent.process) == before)


def test_a_name_that_comes_again_replaces_its_stream(relay: Relay) -> None:
    """The daemon opened it anew; the old process leaves."""
    relay.serve()
    old, new = relay.join("stream-1"), relay.join("stream-1")
    assert old.process.wait(PATIENCE) == 0
    new.write(Frame(frame.PING).encode())
    new.said(frame.PONG)


def test_a_stream_that_was_replaced_is_not_read_any_more() -> None:
    """Both were readable in the same round of the loop; file descriptors have been given anew meanwhile."""
    agent = IngressAgent()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(there) for there in (attached(agent, "control"), attached(agent, "stream-1"))]
        old = agent._streams["stream-1"]
        peers.append(stack.enter_context(attached(agent, "stream-1")))
        agent._read(old)
        assert agent._streams["stream-1"] is not old
        for name in list(agent._streams):
            agent._detach(name)


def attached(agent: IngressAgent, name: str) -> socket.socket:
    """The other end of a stream that this agent has."""
    here, there = socket.socketpair()
    agent._attach(name, (here.detach(), os.open(os.devnull, os.O_WRONLY)), None)
    return there


def test_a_stream_whose_peer_never_reads_is_ended(relay: Relay) -> None:
    """It asks and asks; the agent holds a bounded number of answers."""
    agent = relay.serve()
    stream = relay.join("stream-1")
    held = rss(agent.process)
    with contextlib.suppress(BrokenPipeError):
        for _ in range(100):
            stream.write(Frame(frame.PING).encode() * 1000)
    agent.write(Frame(frame.PING).encode())
    agent.said(frame.PONG)
    assert rss(agent.process) - held < 10 * MAX_CONTROL


def test_without_a_file_descriptor_it_does_not_spin(relay: Relay) -> None:
    """A process asks to join that it cannot admit: it waits, and admits that when it can."""
    agent = relay.serve(program=reporting_often())
    limits = resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (fds(agent.process), limits[1]))
    stream = relay.start(pack.join_program(relay.path, "stream-1"))
    wait_until(lambda: Path(f"/proc/{stream.process.pid}/comm").read_text() == "cat\n")  # it has asked to join
    for _ in range(3):
        agent.write(Frame(frame.PING).encode())
        agent.said(frame.PONG)
        wait_until(lambda: state(agent.process) == "S")  # it waits, which a process that spins never does
    resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, limits)
    stream.greet()


# Hostile senders


@pytest.mark.parametrize(
    ("one", "other", "is_one_source"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ],
)
def test_a_source_is_an_address_or_a_network_of_64_bits(one: str, other: str, is_one_source: bool) -> None:
    """Whoever has an IPv6 network has more addresses than any bound; the port never counts."""
    assert (_source((one, 1, 0, 0)) == _source((other, 2, 0, 0))) is is_one_source


def test_flows_of_one_source_are_bounded(relay: Relay) -> None:
    """However many ports it has; another address gets through."""
    agent = relay.serve()
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_FLOWS_OF_SOURCE + 6):
            stack.enter_context(client(relay.port)).send(MOSH_SIZED)
        other = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        other.bind(("127.0.0.2", 0))
        other.sendto(b"\0somebody else".ljust(32), ("127.0.0.1", relay.port))
        agent.until(lambda: any(b"somebody else" in each.payload for each in agent.frames))
    opened = {each.flow for each in agent.frames if each.kind == frame.DATAGRAM}
    assert len(opened) <= MAX_FLOWS_OF_SOURCE + 1


def test_two_thousand_hostile_datagrams(relay: Relay) -> None:
    """Random, oversize and mosh-like ones from many ports: no growth, no end, and a person still gets through."""
    agent = relay.serve()
    chance = random.Random(1)
    with client(relay.port) as person, contextlib.ExitStack() as stack:
        person.send(MOSH_SIZED)
        flow = agent.said(frame.DATAGRAM).flow
        agent.write(Frame(frame.DATAGRAM, flow, 0, b"\x80hi").encode())
        assert person.recv(100) == b"\x80hi"
        hostile = [stack.enter_context(client(relay.port + at % 3)) for at in range(200)]
        memory, files = rss(agent.process), fds(agent.process)
        for at in range(2000):
            junk = chance.randbytes(chance.choice([0, 1, 23, 24, 100, 1252, 1472, 1473, 9000]))
            hostile[at % 200].send(b"\0" + junk[1:] if at % 2 else junk)

        def gets_through() -> bool:
            person.send(b"\0" * 8 + b"still here".ljust(32))  # again and again: the flood may still fill the socket
            return any(b"still here" in one.payload for one in agent.frames)

        agent.until(gets_through)
        report = frame.body(agent.said(frame.REPORT))
    assert fds(agent.process) == files
    assert rss(agent.process) - memory < 2 << 20
    opened = {one.flow for one in agent.frames if one.kind == frame.DATAGRAM}
    assert len(opened) <= MAX_FLOWS_OF_SOURCE
    assert report
