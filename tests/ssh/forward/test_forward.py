"""Forwards in every direction, against a real sshd and our own server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_REQUEST_SUCCESS
from asyncssh.packet import SSHPacket

from tests.ssh.peers import KEEPALIVE, dialled, echo, exchange, listening, to_server, to_sshd
from tests.sshd import Sshd, free_port, running_sshd
from tests.until import until
from tunneld.core.supervise import canary
from tunneld.core.supervise.failures import Failure
from tunneld.demo.ssh_server import Settings, serve
from tunneld.profile import Direction, Forward, ForwardAddress, TcpAddress, UnixAddress
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.forward import forward as forward_module
from tunneld.ssh.forward import opened as opened_module
from tunneld.ssh.forward.dynamic import serve_socks
from tunneld.ssh.forward.forward import open_forward
from tunneld.ssh.forward.opened import OpenForward
from tunneld.ssh.forward.pipe import PipeEnd

Connection = asyncssh.SSHClientConnection
Opens = Callable[..., Awaitable[OpenForward]]
ANY = TcpAddress("127.0.0.1", 0)


def to(port: int) -> TcpAddress:
    return TcpAddress("127.0.0.1", port)


def port_of(opened: OpenForward) -> int:
    assert isinstance(opened.listening, TcpAddress)
    return opened.listening.port


@pytest.fixture
async def forward(log: Any) -> AsyncIterator[Opens]:
    """Opens a forward that is closed after the test, whatever became of its connection."""
    every: list[OpenForward] = []

    async def opens(
        connection: Connection,
        listen: ForwardAddress,
        target: ForwardAddress | None,
        direction: Direction = Direction.REMOTE,
    ) -> OpenForward:
        opened = await open_forward(connection, Forward(listen, target, direction), log)
        every.append(opened)
        return opened

    yield opens
    for each in every:
        await each.close()


async def refusal(connection: Connection, wanted: Forward, log: Any) -> SessionError:
    with pytest.raises(SessionError) as caught:
        await open_forward(connection, wanted, log)
    return caught.value


# Every kind, through a real sshd


@pytest.mark.parametrize("direction", [Direction.REMOTE, Direction.LOCAL])
@pytest.mark.parametrize("listen_on", ["tcp", "unix"])
@pytest.mark.parametrize("target", ["tcp", "unix"])
async def test_bytes_cross_a_forward_both_ways(
    direction: Direction, listen_on: str, target: str, sshd: Sshd, tmp_path: Path, forward: Opens
) -> None:
    """TCP and Unix on either side, more than all buffers hold, and the end of file after it."""
    data = os.urandom(6_000_000)
    listen: ForwardAddress = ANY if listen_on == "tcp" else UnixAddress(str(tmp_path / "listen"))
    where = {} if target == "tcp" else {"path": str(tmp_path / "target")}
    async with dialled(to_sshd(sshd)) as connection, listening(echo, **where) as port:
        wanted: ForwardAddress = to(port) if target == "tcp" else UnixAddress(str(tmp_path / "target"))
        opened = await forward(connection, listen, wanted, direction)
        if listen_on == "tcp":
            back = await exchange(port_of(opened), data=data)
        else:
            back = await exchange(path=tmp_path / "listen", data=data)
        assert back == data
        assert opened.total == 1
        await until(lambda: opened.connections == 0)


async def test_curl_goes_through_a_dynamic_forward(sshd: Sshd, forward: Opens) -> None:
    """A real SOCKS client, with a name that the relay resolves."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfound")

    async with dialled(to_sshd(sshd)) as connection, listening(answer) as port:
        opened = await forward(connection, ANY, None, Direction.DYNAMIC)
        for proxy in ("socks5h", "socks5", "socks4", "socks4a"):
            found = await run(
                "curl", "-sS", "-x", f"{proxy}://127.0.0.1:{port_of(opened)}", f"http://localhost:{port}/"
            )
            assert found == b"found", proxy


async def run(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output


async def test_a_socks_client_hears_that_its_target_refuses(connection: Connection, forward: Opens) -> None:
    """Code 5 of RFC 1928, and a close; the forward goes on."""
    opened = await forward(connection, ANY, None, Direction.DYNAMIC)
    request = b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + free_port().to_bytes(2, "big")
    assert await exchange(port_of(opened), data=request) == b"\x05\x00" + b"\x05\x05\x00\x01" + bytes(6)
    assert opened.failed == 1


async def test_a_socks_client_may_speak_early(connection: Connection, forward: Opens) -> None:
    """What it sends before it is answered reaches the target, and so does its end of file."""
    async with listening(echo) as port:
        opened = await forward(connection, ANY, None, Direction.DYNAMIC)
        request = b"\x05\x01\x00" + b"\x05\x01\x00\x03\x09localhost" + port.to_bytes(2, "big") + b"early"
        assert (await exchange(port_of(opened), data=request)).endswith(bytes(6) + b"early")


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.0\r\n\r\n", b"\x05\x01\x02", b"\x05", b"\x04\x02" + bytes(20), b""])
async def test_a_client_that_speaks_no_socks_is_let_go(noise: bytes, connection: Connection, forward: Opens) -> None:
    """Its connection closes, nothing else happens."""
    opened = await forward(connection, ANY, None, Direction.DYNAMIC)
    await exchange(port_of(opened), data=noise)
    await until(lambda: opened.connections == 0)
    assert not connection.is_closed()


async def test_a_socks_forward_that_closes_as_a_client_arrives(connection: Connection, forward: Opens) -> None:
    """The client is let go, and the session does not end by it."""
    opened = await forward(connection, ANY, None, Direction.DYNAMIC)
    gone = PipeEnd()
    gone.abort()
    await serve_socks(connection, opened, gone)
    assert not connection.is_closed()


# Refused listens


async def test_a_port_that_is_taken_is_busy(sshd: Sshd, log: Any) -> None:
    """All that sshd tells; who holds it is for the takeover to find out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with dialled(to_sshd(sshd)) as connection:
            error = await refusal(connection, Forward(to(taken.getsockname()[1]), to(22)), log)
    assert error.failure is Failure.FORWARD_BUSY
    assert str(error).endswith("it is taken")


@pytest.mark.parametrize(
    ("options", "key_options", "listen"),
    [
        (["AllowTcpForwarding no"], "", "127.0.0.1:0"),
        (["AllowTcpForwarding local"], "", "127.0.0.1:0"),
        (["PermitListen 127.0.0.1:1"], "", "127.0.0.1:2222"),
        ([], "restrict", "127.0.0.1:0"),
        ([], 'restrict,port-forwarding,permitlisten="127.0.0.1:1"', "127.0.0.1:2222"),
        ([], 'permitlisten="localhost:2222"', "127.0.0.1:2222"),
        (["AllowStreamLocalForwarding no"], "", "/tmp/never-made"),
    ],
)
async def test_what_sshd_does_not_allow_is_forbidden(
    options: list[str], key_options: str, listen: str, tmp_path: Path, log: Any
) -> None:
    """It is told from a busy port by the debug message beside the refusal."""
    host, _, port = listen.rpartition(":")
    address: ForwardAddress = TcpAddress(host, int(port)) if host else UnixAddress(listen)
    async with contextlib.AsyncExitStack() as stack:
        sshd = await stack.enter_async_context(
            running_sshd(tmp_path / "sshd", options=options, key_options=key_options)
        )
        connection = await stack.enter_async_context(dialled(to_sshd(sshd)))
        error = await refusal(connection, Forward(address, to(22)), log)
    assert error.failure is Failure.FORWARD_FORBIDDEN, str(error)
    assert listen in str(error)


async def test_our_own_server_honours_permitlisten(key: Path, public: str, tmp_path: Path, log: Any) -> None:
    """asyncssh alone does not; the refusal reads as sshd's does."""
    async with serve(Settings(authorized_keys=f'permitlisten="127.0.0.1:2222" {public}')) as server:
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            error = await refusal(connection, Forward(to(2223), to(22)), log)
            assert error.failure is Failure.FORWARD_FORBIDDEN
            error = await refusal(connection, Forward(UnixAddress(str(tmp_path / "s")), to(22)), log)
            assert error.failure is Failure.FORWARD_FORBIDDEN


async def test_two_refusals_at_once_are_not_mixed_up(tmp_path: Path, log: Any) -> None:
    """One busy and one forbidden, asked for side by side."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        options = [f"PermitListen 127.0.0.1:{busy}"]
        async with contextlib.AsyncExitStack() as stack:
            sshd = await stack.enter_async_context(running_sshd(tmp_path / "sshd", options=options))
            connection = await stack.enter_async_context(dialled(to_sshd(sshd)))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            first = tasks.create_task(refusal(connection, Forward(to(free_port()), to(22)), log))
            second = tasks.create_task(refusal(connection, Forward(to(busy), to(22)), log))
    assert first.result().failure is Failure.FORWARD_FORBIDDEN
    assert second.result().failure is Failure.FORWARD_BUSY


@pytest.mark.parametrize("direction", [Direction.REMOTE, Direction.LOCAL])
async def test_on_a_connection_that_is_gone_it_is_the_network(
    direction: Direction, connection: Connection, log: Any
) -> None:
    """Not the port's fault."""
    connection.abort()
    await connection.wait_closed()
    error = await refusal(connection, Forward(ANY, to(22), direction), log)
    assert error.failure is Failure.NETWORK


async def test_a_connection_lost_while_asking_is_the_network(sshd: Sshd, log: Any) -> None:
    """The relay dies before it answers."""
    connection = await dial(to_sshd(sshd), KEEPALIVE)
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(refusal(connection, Forward(ANY, to(22)), log))
        await asyncio.sleep(0)
        connection.abort()
    assert asking.result().failure is Failure.NETWORK


@pytest.mark.parametrize("listen", [ANY, TcpAddress("127.0.0.1", 2222), UnixAddress("/run/x")], ids=str)
async def test_an_answer_that_makes_no_sense_is_the_relays_fault(
    listen: ForwardAddress, connection: Connection, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the session as any other failure does, and is no fault of tunneld's."""
    junk = asyncio.get_running_loop().create_future()
    junk.set_result((MSG_REQUEST_SUCCESS, SSHPacket(b"\x01\x02")))
    monkeypatch.setattr(connection, "_make_global_request", lambda *_: junk)
    error = await refusal(connection, Forward(listen, to(22)), log)
    assert error.failure is Failure.PROTOCOL


async def test_a_local_port_that_is_taken_is_busy(connection: Connection, log: Any) -> None:
    """It is this host's port then."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = Forward(to(taken.getsockname()[1]), to(22), Direction.LOCAL)
        error = await refusal(connection, wanted, log)
    assert error.failure is Failure.FORWARD_BUSY
    assert "this host" in str(error)


async def test_a_local_address_that_is_not_ours_is_forbidden(connection: Connection, log: Any) -> None:
    """192.0.2.1 belongs to nobody (RFC 5737)."""
    error = await refusal(connection, Forward(TcpAddress("192.0.2.1", 0), to(22), Direction.LOCAL), log)
    assert error.failure is Failure.FORWARD_FORBIDDEN


async def test_a_dead_local_socket_is_replaced_and_a_live_one_is_not(
    connection: Connection, tmp_path: Path, log: Any, forward: Opens
) -> None:
    """A daemon that was killed leaves its socket; another program's stays its own."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
        wanted = Forward(UnixAddress(str(path)), to(22), Direction.LOCAL)
        assert (await refusal(connection, wanted, log)).failure is Failure.FORWARD_BUSY
    opened = await forward(connection, wanted.listen, wanted.to, wanted.direction)
    assert path.stat().st_mode & 0o777 == 0o600
    await opened.close()
    assert not path.exists()
    path.write_text("somebody's notes")
    assert (await refusal(connection, wanted, log)).failure is Failure.FORWARD_BUSY
    assert path.read_text() == "somebody's notes"


# Targets


async def test_a_dead_target_closes_that_connection_and_is_logged_once(
    sshd: Sshd, events: list[Any], forward: Opens
) -> None:
    """The peer sees a close, the log one line until the target answers again."""
    port = free_port()
    async with dialled(to_sshd(sshd)) as connection:
        opened = await forward(connection, ANY, to(port))
        for _ in range(3):
            assert await exchange(port_of(opened), data=b"") == b""
        assert opened.target_error is not None and "refused" in opened.target_error
        async with listening(echo, port=port):
            assert await exchange(port_of(opened)) == b"hello"
        assert opened.target_error is None
    assert [event["event"] for event in events] == ["target_failed", "target_answers"]
    assert (opened.total, opened.failed, opened.connections) == (4, 3, 0)


async def test_a_target_that_never_answers_is_given_up(
    connection: Connection, forward: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue swallows the SYN, as a firewall does; the peer is not held for minutes."""
    monkeypatch.setattr(forward_module, "TARGET_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as clients:
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        opened = await forward(connection, ANY, to(full.getsockname()[1]))
        assert await exchange(port_of(opened), data=b"") == b""
    assert opened.target_error == "no answer within 0.2 s"


def test_a_canary_waits_longer_for_a_target_than_its_forward_does() -> None:
    """So the forward's own reason is what the canary tells."""
    assert forward_module.TARGET_TIMEOUT == 10 < canary.ACCEPT_TIMEOUT


async def test_a_dead_target_of_a_local_forward_is_said_too(
    connection: Connection, events: list[Any], forward: Opens
) -> None:
    """There the relay is the one that cannot connect."""
    opened = await forward(connection, ANY, to(free_port()), Direction.LOCAL)
    with contextlib.suppress(ConnectionError):
        assert await exchange(port_of(opened), data=b"") == b""
    await until(lambda: opened.target_error)
    assert [event["event"] for event in events] == ["target_failed"]


async def test_a_target_that_speaks_first_is_heard(sshd: Sshd, forward: Opens) -> None:
    """An SSH server greets before its client does; nothing of it is lost."""

    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n")
        await reader.read(-1)

    async with dialled(to_sshd(sshd)) as connection, listening(greets) as port:
        for direction in (Direction.REMOTE, Direction.LOCAL):
            opened = await forward(connection, ANY, to(port), direction)
            for _ in range(20):
                assert await exchange(port_of(opened)) == b"SSH-2.0-x\r\n"


async def test_a_half_closed_connection_still_carries_the_answer(sshd: Sshd, forward: Opens) -> None:
    """The client has said all; the target answers long after."""
    said = asyncio.Event()

    async def answers_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(-1) == b"hello"
        await said.wait()
        writer.write(b"x" * 1_000_000)

    async with dialled(to_sshd(sshd)) as connection, listening(answers_late) as port:
        opened = await forward(connection, ANY, to(port))
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(exchange(port_of(opened)))
            await until(lambda: opened.connections == 1)
            said.set()
        assert len(asking.result()) == 1_000_000


async def test_a_reader_that_stops_holds_its_own_connection_only(sshd: Sshd, forward: Opens) -> None:
    """Memory stays bounded by the window, and the other connections go on."""

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(5) == b"hello":
            writer.write(b"hi")
            return
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async with dialled(to_sshd(sshd)) as connection, listening(floods) as port:
        opened = await forward(connection, ANY, to(port))
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(opened), limit=1)
        writer.write(b"flood")
        for _ in range(5):
            assert await exchange(port_of(opened)) == b"hi"
        writer.transport.abort()
        await until(lambda: opened.connections == 0)


async def test_a_target_that_resets_costs_its_own_connection_only(sshd: Sshd, forward: Opens) -> None:
    """Also when nobody reads what it said: the client's end of file then meets a dead socket."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as target, socket.socket() as client:
        target.setblocking(False)
        async with dialled(to_sshd(sshd)) as connection:
            opened = await forward(connection, ANY, to(target.getsockname()[1]))
            client.connect(("127.0.0.1", port_of(opened)))
            accepted, _ = await loop.sock_accept(target)
            accepted.setblocking(False)
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(0.1):  # no longer taken: every buffer on the way is full
                        await loop.sock_sendall(accepted, bytes(65536))
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()  # a reset
            client.shutdown(socket.SHUT_WR)
            await until(lambda: opened.connections == 0)
            assert not connection.is_closed()


# Bounds and closing


async def test_connections_beyond_the_bound_are_refused_and_logged_once(
    connection: Connection, events: list[Any], forward: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those within it go on, and a place that becomes free is given again."""
    monkeypatch.setattr(opened_module, "MOST_CONNECTIONS", 2)
    async with listening(echo) as port:
        opened = await forward(connection, ANY, to(port))
        streams = [await asyncio.open_connection("127.0.0.1", port_of(opened)) for _ in range(2)]
        await until(lambda: opened.connections == 2)
        for _ in range(3):
            assert await exchange(port_of(opened), data=b"") == b""
        assert opened.refused == 3
        for _, writer in streams:
            writer.close()
        await until(lambda: opened.connections == 0)
        assert await exchange(port_of(opened)) == b"hello"
    assert [event["event"] for event in events] == ["connections_refused"]


@pytest.mark.parametrize("direction", [Direction.REMOTE, Direction.LOCAL])
async def test_closing_frees_the_port_at_once_and_ends_what_runs(
    direction: Direction, sshd: Sshd, forward: Opens
) -> None:
    """Also with a connection in the middle of something."""
    async with dialled(to_sshd(sshd)) as connection, listening(echo) as port:
        opened = await forward(connection, ANY, to(port), direction)
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(opened))
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        await opened.close()
        with socket.create_server(("127.0.0.1", port_of(opened)), reuse_port=False):
            pass
        with contextlib.suppress(ConnectionError):
            assert await reader.read(-1) == b""
        writer.close()
        assert opened.connections == 0
        assert not connection.is_closed()


async def test_closing_ends_what_was_on_its_way_to_the_target(
    sshd: Sshd, forward: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that answers only after the forward was closed is not reached by it any more."""
    asked, may_go_on = asyncio.Event(), asyncio.Event()
    connect = forward_module._connect

    async def connects_late(target: ForwardAddress | None, end: PipeEnd) -> None:
        asked.set()
        await may_go_on.wait()
        await connect(target, end)

    monkeypatch.setattr(forward_module, "_connect", connects_late)
    async with dialled(to_sshd(sshd)) as connection, listening(echo) as port:
        opened = await forward(connection, ANY, to(port))
        exchanged = asyncio.get_running_loop().create_task(exchange(port_of(opened)))
        await asked.wait()
        await opened.close()
        may_go_on.set()
        with contextlib.suppress(ConnectionError):
            assert await exchanged == b""
        assert not connection.is_closed()


async def test_a_forward_can_be_opened_again_where_one_was(sshd: Sshd, forward: Opens) -> None:
    """What a reload does: close, then open on the same port to another target."""
    async with dialled(to_sshd(sshd)) as connection, listening(echo) as port:
        opened = await forward(connection, ANY, to(free_port()))
        await opened.close()
        opened = await forward(connection, opened.listening, to(port))
        assert await exchange(port_of(opened)) == b"hello"


async def test_closing_after_the_connection_is_gone_returns(connection: Connection, forward: Opens) -> None:
    """The relay cannot answer any more."""
    opened = await forward(connection, ANY, to(22))
    connection.abort()
    await connection.wait_closed()
    await opened.close()


async def test_the_end_of_the_session_ends_its_connections(server: Any, connection: Connection, forward: Opens) -> None:
    """Cut by the relay: the target's side closes as well, and nothing is counted as open."""
    ended = asyncio.Event()

    async def notes_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        ended.set()

    async with listening(notes_the_end) as port:
        opened = await forward(connection, ANY, to(port))
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(opened))
        await until(lambda: opened.connections == 1)
        server.drop()
        await ended.wait()
        await until(lambda: opened.connections == 0)
        writer.close()


async def test_a_wildcard_is_never_asked_for_by_accident(sshd: Sshd, forward: Opens) -> None:
    """127.0.0.1 is asked for by name: `localhost` and the empty name would bind whatever family is free."""
    async with dialled(to_sshd(sshd)) as connection:
        opened = await forward(connection, ANY, to(22))
        listeners = await run("ss", "-Hltn", f"sport = :{port_of(opened)}")
        assert listeners.decode().split()[3] == f"127.0.0.1:{port_of(opened)}"


async def test_what_a_forward_does_survives_many_short_connections(sshd: Sshd, forward: Opens) -> None:
    """A hundred at a time, each answered, none left."""
    async with dialled(to_sshd(sshd)) as connection, listening(echo) as port:
        opened = await forward(connection, ANY, to(port))
        await until(lambda: opened.connections == 0)
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(exchange(port_of(opened), data=b"%d" % n)) for n in range(100)]
        assert [task.result() for task in asked] == [b"%d" % n for n in range(100)]
        await until(lambda: opened.connections == 0)
