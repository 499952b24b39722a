"""Canaries through a real sshd and our own server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.ssh.peers import dialled, echo, exchange, listening, to_server, to_sshd
from tests.sshd import Sshd, free_port, running_sshd
from tests.tunnel.supervised import line, nothing_left
from tests.until import until
from tunneld.core.supervise import canary as core
from tunneld.core.supervise.canary import Finding, Step, Verdict, Visit
from tunneld.core.supervise.failures import Failure
from tunneld.demo.ssh_server import Settings, serve
from tunneld.profile import Forward, ForwardAddress, TcpAddress, UnixAddress
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward.forward import open_forward
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.remote.canary_visit import WatchedVisit, _is_stuck, addresses_on_relay, look

Connection = asyncssh.SSHClientConnection
ANY = TcpAddress("127.0.0.1", 0)
ONLY_LISTENERS = "AllowTcpForwarding remote"
NO_PYTHON = "ForceCommand exit 127"


def to(port: int) -> TcpAddress:
    return TcpAddress("127.0.0.1", port)


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A target that speaks first, and then waits for its client."""
    writer.write(b"SSH-2.0-target\r\n")
    await reader.read()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A target that has had enough."""


async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A target that neither speaks nor leaves when its client does."""
    await writer.wait_closed()


@contextlib.asynccontextmanager
async def opened(
    connection: Connection, listen: ForwardAddress, target: ForwardAddress, log: Any
) -> AsyncIterator[OpenForward]:
    forward = await open_forward(connection, Forward(listen, target), log)
    try:
        yield forward
    finally:
        await forward.close()


async def find(connection: Connection, listen: ForwardAddress, target: ForwardAddress, log: Any) -> Finding:
    """What a first visit finds, which leaves nothing behind."""
    async with opened(connection, listen, target, log) as forward:
        finding = await look(connection, forward)
        assert (forward.total, forward.failed, forward.connections) == (0, 0, 0)
        return finding


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience: what these tests wait for never comes."""
    for name in ("OPEN_TIMEOUT", "ARRIVAL_TIMEOUT", "SPEECH_TIMEOUT"):
        monkeypatch.setattr(core, name, 0.3)


@pytest.mark.parametrize("options", [[], [ONLY_LISTENERS]], ids=["by channel", "by program"])
@pytest.mark.parametrize("listen_on", ["tcp", "unix"])
@pytest.mark.parametrize("target", ["tcp", "unix"])
async def test_a_target_that_speaks_first_is_heard(
    options: Iterable[str], listen_on: str, target: str, tmp_path: Path, log: Any
) -> None:
    """Its first bytes prove the whole way, there and back; then the visit leaves at once."""
    left = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        left.set()

    if options and listen_on == "unix":
        options = [*options, "AllowStreamLocalForwarding remote"]
    listen: ForwardAddress = ANY if listen_on == "tcp" else UnixAddress(str(tmp_path / "listen"))
    where = {} if target == "tcp" else {"path": str(tmp_path / "target")}
    async with (
        running_sshd(tmp_path / "sshd", options=options) as sshd,
        listening(serve_one, **where) as port,
        dialled(to_sshd(sshd)) as connection,
    ):
        wanted: ForwardAddress = to(port) if target == "tcp" else UnixAddress(str(tmp_path / "target"))
        finding = await find(connection, listen, wanted, log)
        assert (finding.verdict, finding.text) == (Verdict.PASSES, "")
        assert finding.rtt is not None
        assert 0 < finding.rtt < 5
        async with asyncio.timeout(1):
            await left.wait()


@pytest.mark.parametrize("family", ["127.0.0.1", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize("options", [[], [ONLY_LISTENERS]], ids=["by channel", "by program"])
async def test_a_listener_of_any_family_is_found(family: str, options: list[str], tmp_path: Path, log: Any) -> None:
    """A wildcard is asked for on its own family's loopback address."""
    options = [*options, "GatewayPorts clientspecified"]
    async with (
        running_sshd(tmp_path / "sshd", options=options) as sshd,
        listening(greet) as port,
        dialled(to_sshd(sshd)) as connection,
    ):
        finding = await find(connection, TcpAddress(family, 0), to(port), log)
    assert finding.verdict is Verdict.PASSES


@pytest.mark.usefixtures("quick")
async def test_a_silent_target_passes_by_accepting(sshd: Sshd, log: Any) -> None:
    """A web server waits for its client: it is not parked on, and the time told is that of the accept."""
    async with dialled(to_sshd(sshd)) as connection, listening(echo) as port:
        finding = await find(connection, ANY, to(port), log)
    assert (finding.verdict, finding.text) == (Verdict.PASSES, "it accepts, and waits for the client to speak")
    assert finding.rtt is not None
    assert finding.rtt < 0.3


@pytest.mark.usefixtures("quick")
async def test_a_target_that_used_to_speak_and_is_silent_is_dead(sshd: Sshd, log: Any) -> None:
    """A frozen sshd still accepts: its kernel does."""
    async with dialled(to_sshd(sshd)) as connection, contextlib.AsyncExitStack() as target:
        port = await target.enter_async_context(listening(greet))
        async with opened(connection, ANY, to(port), log) as forward:
            assert (await look(connection, forward)).verdict is Verdict.PASSES
            await target.aclose()
            async with listening(ignore, port=port):
                finding = await look(connection, forward)
                assert (finding.verdict, "as it used to" in finding.text) == (Verdict.TARGET, True)
                await until(lambda: forward.connections == 0)


async def test_a_dead_target_is_told_from_a_dead_tunnel(sshd: Sshd, log: Any, events: list[Any]) -> None:
    """The visit came through to this host; the reason is the system's, and is logged once."""
    async with dialled(to_sshd(sshd)) as connection, opened(connection, ANY, to(free_port()), log) as forward:
        for _ in range(2):
            assert await look(connection, forward) == Finding(Verdict.TARGET, "Connection refused")
        assert (forward.total, forward.failed) == (0, 0)
        assert forward.target_error == "Connection refused"
    assert [each["event"] for each in events] == ["target_failed"]


async def test_a_target_that_hangs_up_is_dead(sshd: Sshd, log: Any) -> None:
    """It accepts, and the visit ends without a word."""
    async with dialled(to_sshd(sshd)) as connection, listening(hang_up) as port:
        finding = await find(connection, ANY, to(port), log)
    assert finding == Finding(Verdict.TARGET, "it accepts, and hangs up without a word")


@pytest.mark.parametrize("options", [[], [ONLY_LISTENERS]], ids=["by channel", "by program"])
async def test_a_listener_that_is_gone_is_broken(options: list[str], tmp_path: Path, log: Any) -> None:
    """The session lives, and its port does not: the relay itself says so."""
    async with (
        running_sshd(tmp_path / "sshd", options=options) as sshd,
        dialled(to_sshd(sshd)) as connection,
        opened(connection, ANY, to(9), log) as forward,
    ):
        forward.listening = to(free_port())
        finding = await look(connection, forward)
    assert finding == Finding(Verdict.BROKEN, "nothing listens there on the relay any more")


@pytest.mark.parametrize("other", [greet, hang_up])
async def test_a_port_that_somebody_else_answers_is_broken(other: Any, sshd: Sshd, log: Any) -> None:
    """Bytes that did not come through this host are not our target's."""
    async with (
        dialled(to_sshd(sshd)) as connection,
        listening(other) as port,
        listening(greet) as target,
        opened(connection, ANY, to(target), log) as forward,
    ):
        forward.listening = to(port)
        finding = await look(connection, forward)
    assert finding == Finding(Verdict.BROKEN, "something else answers there on the relay")


@pytest.mark.usefixtures("quick")
async def test_a_listener_whose_connections_do_not_come_is_broken(sshd: Sshd, log: Any) -> None:
    """Only once the relay has answered something else: a slow line is not a broken forward."""
    async with (
        dialled(to_sshd(sshd)) as connection,
        listening(ignore) as port,
        listening(greet) as target,
        opened(connection, ANY, to(target), log) as forward,
    ):
        forward.listening = to(port)
        finding = await look(connection, forward)
    assert finding == Finding(Verdict.BROKEN, "the relay accepts connections there that never come to this host")


@pytest.mark.usefixtures("quick")
async def test_a_relay_that_answers_nothing_is_not_judged(
    sshd: Sshd, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line may be slow, or dead: that is the keepalive's to say."""

    async def unheard(_: Connection) -> None:
        raise SessionError(Failure.NETWORK, "no answer")

    monkeypatch.setattr("tunneld.ssh.remote.canary_visit.wait_for_answer", unheard)
    async with (
        dialled(to_sshd(sshd)) as connection,
        listening(ignore) as port,
        opened(connection, ANY, to(9), log) as forward,
    ):
        forward.listening = to(port)
        assert await look(connection, forward) == Finding(Verdict.UNKNOWN, "no answer")


async def test_a_step_that_comes_with_the_relays_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was under way, behind a slow line's other data."""
    visit = WatchedVisit(ANY)

    async def answers(_: Connection) -> None:
        visit.saw(Step.REFUSED)

    monkeypatch.setattr(core, "OPEN_TIMEOUT", 0.01)
    monkeypatch.setattr("tunneld.ssh.remote.canary_visit.wait_for_answer", answers)
    assert await _is_stuck(None, visit) is False  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "key_options"),
    [
        ([ONLY_LISTENERS, NO_PYTHON], ""),
        ([NO_PYTHON], 'permitopen="192.0.2.1:1"'),
        ([], 'permitopen="192.0.2.1:1",command="echo not for you"'),
    ],
)
async def test_a_relay_that_lets_us_try_nothing_leaves_it_unknown(
    options: list[str], key_options: str, tmp_path: Path, log: Any
) -> None:
    """The tunnel is none the worse, and the text says what its owner could set."""
    async with (
        running_sshd(tmp_path / "sshd", options=options, key_options=key_options) as sshd,
        dialled(to_sshd(sshd)) as connection,
        listening(greet) as port,
    ):
        finding = await find(connection, ANY, to(port), log)
        assert (finding.verdict, "AllowTcpForwarding" in finding.text) == (Verdict.UNKNOWN, True)
        assert not connection.is_closed()


async def test_a_relay_that_refuses_a_channel_is_not_asked_for_it_again(tmp_path: Path, log: Any) -> None:
    """Its log would have a line for each."""
    async with (
        running_sshd(tmp_path / "sshd", options=[ONLY_LISTENERS]) as sshd,
        dialled(to_sshd(sshd)) as connection,
        listening(greet) as port,
        opened(connection, ANY, to(port), log) as forward,
    ):
        for _ in range(3):
            assert (await look(connection, forward)).verdict is Verdict.PASSES
    assert len([line for line in sshd.log if "refused local port forward" in line]) == 1


async def test_a_forward_that_is_full_is_not_judged(sshd: Sshd, log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """People hold all its connections; a canary is no reason to log that one was turned away."""
    monkeypatch.setattr("tunneld.ssh.forward.opened.MOST_CONNECTIONS", 1)
    async with (
        dialled(to_sshd(sshd)) as connection,
        listening(echo) as port,
        opened(connection, ANY, to(port), log) as forward,
    ):
        assert isinstance(forward.listening, TcpAddress)
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.listening.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        finding = await look(connection, forward)
        assert (finding.verdict, "1 connections run through it" in finding.text) == (Verdict.UNKNOWN, True)
        assert (forward.total, forward.refused, forward.connections, finding.is_final) == (1, 0, 1, False)
        writer.close()
        await writer.wait_closed()


async def test_gateway_ports_that_are_not_allowed_are_seen(tmp_path: Path, log: Any) -> None:
    """sshd then listens on loopback, says yes all the same, and nobody outside gets in."""
    async with (
        running_sshd(tmp_path / "sshd", options=["GatewayPorts no"]) as sshd,
        listening(greet) as port,
        dialled(to_sshd(sshd)) as connection,
    ):
        finding = await find(connection, TcpAddress("192.0.2.1", free_port()), to(port), log)
    assert (finding.verdict, "GatewayPorts" in finding.text) == (Verdict.PASSES, True)


@pytest.mark.parametrize("opens", [True, False], ids=["by channel", "by program"])
async def test_our_own_relay_can_be_asked(opens: bool, public: str, key: Path, tmp_path: Path, log: Any) -> None:
    """It runs the program where it opens nothing, as sshd does."""
    async with serve(Settings(authorized_keys=public, opens=opens)) as server, listening(greet) as port:
        (tmp_path / "known_hosts").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known_hosts")) as connection:
            assert (await find(connection, ANY, to(port), log)).verdict is Verdict.PASSES
            assert await find(connection, ANY, to(free_port()), log) == Finding(Verdict.TARGET, "Connection refused")


@pytest.mark.usefixtures("confirms_oddly")
async def test_a_relay_that_answers_oddly_leaves_it_unknown(public: str, key: Path, tmp_path: Path, log: Any) -> None:
    """What cannot be read is no answer, and no fault of ours."""
    async with serve(Settings(authorized_keys=public, opens=True)) as server, listening(greet) as port:
        (tmp_path / "known_hosts").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known_hosts")) as connection:
            assert (await find(connection, ANY, to(port), log)).verdict is Verdict.UNKNOWN


async def test_people_are_counted_and_a_canary_is_not(sshd: Sshd, log: Any) -> None:
    """Also while the canary flies: who comes from elsewhere is somebody."""
    async with (
        dialled(to_sshd(sshd)) as connection,
        listening(echo) as port,
        opened(connection, ANY, to(port), log) as forward,
    ):
        assert forward.visit_of("192.0.2.7") is None
        visit = Visit("127.0.0.1", lambda: None)
        with forward.visited_by(visit):
            assert forward.visit_of("192.0.2.7") is None
            assert await exchange(forward.listening.port) == b"hello"  # type: ignore[union-attr]
            assert (forward.total, forward.connections, forward.heard) == (0, 0, False)
            assert Step.ACCEPTED in visit.steps
            assert await exchange(forward.listening.port) == b"hello"  # type: ignore[union-attr]
        assert (forward.total, forward.heard) == (1, True)


async def test_a_person_who_was_taken_for_the_canary_stays(sshd: Sshd, log: Any) -> None:
    """The real one came second."""
    async with (
        dialled(to_sshd(sshd)) as connection,
        listening(echo) as port,
        opened(connection, ANY, to(port), log) as forward,
    ):
        assert isinstance(forward.listening, TcpAddress)
        there = forward.listening.port
        async with contextlib.AsyncExitStack() as people:
            with forward.visited_by(Visit("127.0.0.1", lambda: None)):
                person = await people.enter_async_context(line(there))
                assert await person.echoes()
                assert await exchange(there) == b"hello"
            assert await person.echoes()
            assert forward.connections == 1


@pytest.mark.parametrize("way", ["by channel", "by program"])
async def test_a_canary_may_be_cancelled_anywhere(way: str, public: str, key: Path, tmp_path: Path, log: Any) -> None:
    """Nothing stays open on the connection, here or at the target, wherever it was."""
    busy = 0

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy
        busy += 1
        try:
            await greet(reader, writer)
        finally:
            busy -= 1

    async with serve(Settings(authorized_keys=public, opens=way == "by channel")) as server:
        (tmp_path / "known_hosts").write_text(server.known_hosts())
        async with (
            dialled(to_server(server, key, tmp_path / "known_hosts")) as connection,
            listening(serve_one) as port,
            opened(connection, ANY, to(port), log) as forward,
            nothing_left(),
        ):
            for delay in (0, 0.001, 0.003, 0.01, 0.05, 0.1, 0.2):
                await cancelled_after(delay, look(connection, forward))
            await look(connection, forward)  # by now all that was under way has come
            await until(lambda: not busy and not forward.connections and not _channels(connection))


async def cancelled_after(seconds: float, work: Any) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        await asyncio.sleep(seconds)
        task.cancel()


def _channels(connection: Connection) -> int:
    return len(connection._channels)


@pytest.mark.parametrize(
    ("listening_on", "asked"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("127.0.0.9", ["127.0.0.9"]),
        ("::1", ["::1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        ("::", ["::1"]),
        ("192.0.2.1", ["192.0.2.1", "127.0.0.1"]),
        ("2001:db8::1", ["2001:db8::1", "::1"]),
        ("relay.example.net", ["relay.example.net"]),
    ],
)
def test_where_a_listener_is_asked_for(listening_on: str, asked: list[str]) -> None:
    """An address that sshd may not have taken as it was asked to is asked for in both places."""
    assert addresses_on_relay(TcpAddress(listening_on, 22)) == [TcpAddress(each, 22) for each in asked]
