"""Our own SSH server, as the relay and as the host. Its clients are asyncssh and OpenSSH's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from tests.ssh.peers import dialled, echo, exchange, listening, to_server
from tests.sshd import free_port, make_key
from tests.tunnel.supervised import Gate, is_free, taken
from tests.until import until
from tunneld.demo import ssh_server
from tunneld.demo.ssh_server import Server, Settings, permits, serve
from tunneld.profile import Keepalive, Relay
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError

Connection = asyncssh.SSHClientConnection


async def test_a_program_has_raw_pipes_and_its_own_exit_status(connection: Connection) -> None:
    """Standard output and standard error are apart, nothing is translated, and the status comes back."""
    done = await connection.run("cat; echo oops >&2; exit 3", input=bytes(range(256)) * 5000, encoding=None)
    assert (done.stdout, done.stderr, done.exit_status) == (bytes(range(256)) * 5000, b"oops\n", 3)


async def test_a_program_that_a_signal_ends_says_which(connection: Connection) -> None:
    """As RFC 4254, 6.10 has it."""
    assert (await connection.run("kill -TERM $$")).exit_signal[0] == "TERM"  # type: ignore[index]


async def test_a_program_that_does_not_read_holds_its_sender(connection: Connection) -> None:
    """Two megabytes into a program that reads them late."""
    done = await connection.run("sleep 0.2; wc -c", input="x" * 2_000_000)
    assert int(str(done.stdout)) == 2_000_000


async def test_a_program_may_leave_its_input_unread(server: Server, connection: Connection) -> None:
    """It ends with its exit status, and the connection stays: the next program gets all of its input."""
    for _ in range(5):
        assert (await connection.run("exit 3", input="x" * 5_000_000)).exit_status == 3
        assert (await connection.run("exec <&-; sleep 0.05; exit 4", input="x" * 500_000)).exit_status == 4
    assert (await connection.run("wc -c", input="x" * 2_000_000)).stdout == "2000000\n"
    await until(lambda: not server.programs, what="no program runs any more")


async def test_what_a_program_leaves_in_the_background_stays(server: Server, connection: Connection) -> None:
    """As with sshd: the channel ends with the program, and only a channel that ends first takes the others along."""
    done = await connection.run("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!")
    child = int(str(done.stdout))
    connection.abort()
    await connection.wait_closed()
    await until(lambda: not server.programs, what="the server is done with the program")
    try:
        with pytest.raises(TimeoutError):  # a kill takes effect a moment later
            await until(lambda: is_zombie(child), what="the child has ended", timeout=0.1)
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_signal_of_the_client_reaches_the_program(connection: Connection) -> None:
    """And all that the program has started, since the signal goes to the whole process group."""
    process = await connection.create_process("trap 'exit 5' TERM; (echo ready; exec sleep 1000)")
    assert await process.stdout.readline() == "ready\n"
    process.terminate()
    assert (await process.wait()).exit_status == 5


async def test_a_program_that_cannot_start_is_told(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """126, as a shell says it; here the home is missing."""
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    assert (await connection.run("true")).exit_status == 126


async def test_the_whole_process_group_ends_with_the_channel(server: Server, connection: Connection) -> None:
    """Also what the program has started, and also when it ignores the hang-up."""
    process = await connection.create_process("trap '' HUP; sleep 1000 & echo $!; wait")
    child = int(await process.stdout.readline())
    connection.abort()
    await until(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child), what="the child has ended")
    await until(lambda: not server.programs, what="the server knows that")


def is_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


async def test_a_program_knows_the_connection_it_came_through(key: Path, public: str, tmp_path: Path) -> None:
    """mosh-server binds to the server's address in SSH_CONNECTION, which can be set."""
    settings = Settings(authorized_keys=public, server_address="127.0.0.2", environment={"MARK": "here"})
    async with serve(settings) as server:
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            told = str((await connection.run("echo $SSH_CONNECTION $MARK")).stdout)
    assert re.fullmatch(rf"127\.0\.0\.1 \d+ 127\.0\.0\.2 {server.port} here\n", told)


async def ssh(server: Server, key: Path, known_hosts: Path, *words: str) -> tuple[int, str]:
    """OpenSSH's own client."""
    process = await asyncio.create_subprocess_exec(
        "ssh", "-n", "-F", "none", "-p", str(server.port), "-i", str(key), "-o", f"UserKnownHostsFile={known_hosts}",
        "-o", "BatchMode=yes", *words, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_terminal_is_a_real_one(server: Server, key: Path, tmp_path: Path) -> None:
    """`ssh -tt` gets a controlling terminal with a size, and the exit status."""
    command = 'tty; stty size; echo "$TERM" >/dev/tty; exit 4'
    status, output = await ssh(server, key, tmp_path / "known_hosts", "-tt", "127.0.0.1", command)
    assert status == 4
    terminal, size, kind = output.splitlines()
    assert terminal.startswith("/dev/pts/") and len(size.split()) == 2 and kind


async def test_a_server_without_terminals_refuses_one(key: Path, public: str, tmp_path: Path) -> None:
    """Programs on pipes run all the same."""
    async with serve(Settings(authorized_keys=public, terminals=False)) as server:
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.run("true", term_type="xterm", request_pty="force")
            assert (await connection.run("echo here")).stdout == "here\n"


@pytest.mark.skipif(shutil.which("mosh-server") is None, reason="mosh is not installed")
async def test_a_real_mosh_server_starts_as_the_mosh_script_asks(server: Server, key: Path, tmp_path: Path) -> None:
    """The terminal's session ends when mosh-server has gone into the background."""
    command = ("-tt", "127.0.0.1", "--", "mosh-server new -c 8 -s -l LANG=C.UTF-8 -- true")
    status, output = await ssh(server, key, tmp_path / "known_hosts", *command)
    assert status == 0
    assert re.search(r"^MOSH CONNECT \d+ \S{22}\r?$", output, re.MULTILINE)


async def test_a_key_that_is_not_listed_stays_out(server: Server, tmp_path: Path) -> None:
    """There is no other way to log in."""
    make_key(tmp_path / "stranger")
    with pytest.raises(SessionError):
        await dial(to_server(server, tmp_path / "stranger", tmp_path / "known_hosts"), Keepalive())


async def test_a_forced_command_is_all_that_runs(key: Path, public: str, tmp_path: Path) -> None:
    """`command=` and `no-pty` of authorized_keys."""
    async with serve(Settings(authorized_keys=f'command="echo forced",no-pty {public}')) as server:
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            assert (await connection.run("echo mine")).stdout == "forced\n"


async def test_direct_forwards_go_only_where_they_may(key: Path, public: str, tmp_path: Path) -> None:
    """One target is allowed. Another port of the same machine is not, although something listens there."""
    async with contextlib.AsyncExitStack() as stack:
        port, other = [await stack.enter_async_context(listening(echo)) for _ in range(2)]
        settings = Settings(authorized_keys=public, opens=(("127.0.0.1", port),))
        server = await stack.enter_async_context(serve(settings))
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            reader, writer = await connection.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_connection("127.0.0.1", other)


async def test_a_server_that_forbids_listeners_has_none(key: Path, public: str, tmp_path: Path) -> None:
    """Neither a port nor a path: as the host's sshd in the demo."""
    async with serve(Settings(authorized_keys=public, listeners=False)) as server:
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            with pytest.raises(asyncssh.ChannelListenError):
                await listen(connection, 0)
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.create_unix_server(lambda: asyncssh.SSHUNIXSession(), str(tmp_path / "socket"))


async def test_a_key_with_permitlisten_has_that_port_and_no_path(key: Path, public: str, tmp_path: Path) -> None:
    """The option of authorized_keys holds for each listener of the key."""
    port = free_port()
    async with serve(Settings(authorized_keys=f'permitlisten="127.0.0.1:{port}" {public}')) as server:
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            await listen(connection, port)
            with pytest.raises(asyncssh.ChannelListenError):
                await listen(connection, 0)
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.create_unix_server(lambda: asyncssh.SSHUNIXSession(), str(tmp_path / "socket"))


async def test_paths_are_opened_only_where_everything_may_be(key: Path, public: str, tmp_path: Path) -> None:
    """A list of hosts and ports names no path."""
    settings = Settings(authorized_keys=public, opens=(("127.0.0.1", 22),))
    async with listening(echo, path=tmp_path / "socket"), serve(settings) as server:
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_unix_connection(str(tmp_path / "socket"))


async def test_openssh_can_forward_through_it(server: Server, key: Path, tmp_path: Path) -> None:
    """`ssh -R` and `ssh -L` against our server, ends of file included."""
    remote, local = free_port(), free_port()
    async with listening(echo) as port:
        process = await asyncio.create_subprocess_exec(
            "ssh", "-N", "-F", "none", "-p", str(server.port), "-i", str(key), "-o", "ExitOnForwardFailure=yes",
            "-o", f"UserKnownHostsFile={tmp_path}/known_hosts",
            "-R", f"127.0.0.1:{remote}:127.0.0.1:{port}", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}", "127.0.0.1",
        )  # fmt: skip
        try:
            data = os.urandom(3_000_000)
            for listen in (remote, local):
                await until(lambda listen=listen: not is_free(listen), what="ssh listens")  # type: ignore[misc]
                assert await exchange(listen, data=data) == data
        finally:
            process.terminate()
            await process.wait()


async def test_a_listener_is_on_loopback_unless_the_server_says_otherwise(connection: Connection) -> None:
    """As with GatewayPorts no, whatever address a client asks for."""
    listener = await connection.create_server(lambda *_: asyncssh.SSHTCPSession(), "0.0.0.0", 0, encoding=None)
    process = await asyncio.create_subprocess_exec(
        "ss", "-Hltn", f"sport = :{listener.get_port()}", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output.split()[3] == f"127.0.0.1:{listener.get_port()}".encode()


async def listen(connection: Connection, port: int) -> asyncssh.SSHListener:
    return await connection.create_server(lambda *_: asyncssh.SSHTCPSession(), "127.0.0.1", port, encoding=None)


@contextlib.asynccontextmanager
async def through_a_wire(relay: Relay) -> AsyncIterator[tuple[Connection, Gate]]:
    """A connection that can fall silent."""
    known_hosts = relay.known_hosts
    assert known_hosts is not None and relay.port is not None
    async with Gate(relay.port) as gate:
        line = known_hosts.read_text().partition(" ")[2]
        known_hosts.write_text(known_hosts.read_text() + f"[127.0.0.1]:{gate.port} {line}")
        async with dialled(replace(relay, port=gate.port)) as connection:
            yield connection, gate
            connection.abort()


async def test_a_port_is_taken_from_a_connection_of_the_same_key_that_fell_silent(
    server: Server, relay: Relay, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked, says nothing for a while, and is dropped."""
    monkeypatch.setattr(ssh_server, "HOLDER_TIMEOUT", 0.1)
    port = free_port()
    async with through_a_wire(relay) as (silent, gate):
        await listen(silent, port)
        gate.stalled.set()
        assert len(server.connections) == 2
        await listen(connection, port)
        assert len(server.connections) == 1


async def test_a_port_stays_with_a_connection_of_the_same_key_that_answers(
    server: Server, relay: Relay, connection: Connection
) -> None:
    """Two hosts with one key: the first one keeps the port."""
    port = free_port()
    async with through_a_wire(relay) as (living, _):
        await listen(living, port)
        with pytest.raises(asyncssh.ChannelListenError):
            await listen(connection, port)
        assert len(server.connections) == 2


async def test_a_silent_connection_that_never_held_the_port_is_let_be(
    server: Server, relay: Relay, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program has the port, so there is nothing to take from the silent one, although it has the same key."""
    monkeypatch.setattr(ssh_server, "HOLDER_TIMEOUT", 0.1)
    async with through_a_wire(relay) as (silent, gate):
        await listen(silent, free_port())
        gate.stalled.set()
        with taken(port := free_port()), pytest.raises(asyncssh.ChannelListenError):
            await listen(connection, port)
        assert len(server.connections) == 2


async def test_a_port_stays_with_another_key_whether_it_answers_or_not(tmp_path: Path, key: Path, public: str) -> None:
    """A stranger's port is not taken, even if that connection is silent."""
    port, other = free_port(), tmp_path / "other"
    make_key(other)
    keys = public + other.with_name("other.pub").read_text()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(serve(Settings(authorized_keys=keys)))
        (tmp_path / "known").write_text(server.known_hosts())
        silent, gate = await stack.enter_async_context(through_a_wire(to_server(server, other, tmp_path / "known")))
        connection = await stack.enter_async_context(dialled(to_server(server, key, tmp_path / "known")))
        await listen(silent, port)
        gate.stalled.set()
        with pytest.raises(asyncssh.ChannelListenError):
            await listen(connection, port)
        assert len(server.connections) == 2


async def test_a_port_that_another_program_holds_stays_with_it(connection: Connection) -> None:
    with taken(port := free_port()), pytest.raises(asyncssh.ChannelListenError):
        await listen(connection, port)


async def test_many_clients_at_once(server: Server, relay: Relay) -> None:
    """More than wait in the kernel's queue of 100; all are gone afterwards."""
    async with asyncio.TaskGroup() as tasks:
        dialling = [tasks.create_task(dial(relay, Keepalive())) for _ in range(120)]
    assert len(server.connections) == 120
    for task in dialling:
        task.result().close()
    await until(lambda: not server.connections, what="every client is gone")


@pytest.mark.parametrize(
    ("pattern", "host", "port", "allowed"),
    [
        ("127.0.0.1:2222", "127.0.0.1", 2222, True),
        ("127.0.0.1:2222", "127.0.0.1", 2223, False),
        ("localhost:2222", "127.0.0.1", 2222, False),
        ("2222", "anything", 2222, True),
        ("*:*", "anything", 1, True),
        ("127.0.0.1:*", "127.0.0.1", 9, True),
        ("[::1]:22", "::1", 22, True),
        ("LOCALHOST:22", "localhost", 22, True),
        ("nonsense", "nonsense", 0, False),
    ],
)
def test_permitlisten_reads_as_in_sshd(pattern: str, host: str, port: int, allowed: bool) -> None:
    """[HOST:]PORT of sshd(8); names are compared, not resolved."""
    assert permits(pattern, host, port) is allowed
