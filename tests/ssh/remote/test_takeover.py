"""Taking the ports back from our own stale session on a relay that runs OpenSSH, and holding a channel for the new."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.ssh.peers import dialled, to_server, to_sshd
from tests.sshd import Sshd, descendants, free_port, running_sshd
from tests.until import until
from tunneld.demo.ssh_server import Server, Settings, serve
from tunneld.profile import Relay, TcpAddress
from tunneld.ssh.remote import takeover
from tunneld.ssh.remote.takeover import Holder, Mark, Marks, Takeover, hold_session, key_of, machine_id

KEY = "0123456789abcdef" * 2
OURS = Mark(KEY, "ours", displaces=False)
PIDFD_GETFD = 438  # pidfd_getfd(2), on every architecture
Connection = asyncssh.SSHClientConnection


@contextlib.asynccontextmanager
async def session(sshd: Sshd, mark: Mark, port: int) -> AsyncIterator[tuple[Takeover, Connection]]:
    """A session that has claimed `port`, and listens there."""
    async with dialled(to_sshd(sshd)) as connection:
        took = await claimed(connection, mark, port)
        await listen(connection, port)
        yield took, connection


async def claimed(connection: Connection, mark: Mark, port: int) -> Takeover:
    return await Holder(connection, mark, [TcpAddress("127.0.0.1", port)]).start()


async def listen(connection: Connection, port: int) -> None:
    await connection.create_server(lambda *_: asyncssh.SSHTCPSession(), "127.0.0.1", port, encoding=None)


def record(sshd: Sshd) -> Path:
    return sshd.folder / ".local/state/tunneld/sessions" / KEY


async def test_the_next_session_takes_the_port_over(sshd: Sshd) -> None:
    """The first one's sshd is gone, and with it its listener, before the second asks for its own."""
    port = free_port()
    async with session(sshd, OURS, port) as (first, stale), session(sshd, OURS, port) as (second, _):
        await stale.wait_closed()
    assert first == Takeover(False, "", {}, recorded=True)
    assert second == Takeover(True, "ended our own stale session on the relay", {}, recorded=True)


async def test_a_successor_takes_over_from_its_predecessor(sshd: Sshd) -> None:
    """The daemon has started anew, and its first session finds the last one of the old daemon."""
    port = free_port()
    async with session(sshd, OURS, port), session(sshd, Mark(KEY, "later", displaces=True), port) as (second, _):
        assert second.ended


async def test_a_clones_session_is_left_alone(sshd: Sshd) -> None:
    """And it is said whose it seems to be, and who has the port."""
    port = free_port()
    async with session(sshd, Mark(KEY, "theirs", displaces=True), port), dialled(to_sshd(sshd)) as connection:
        took = await claimed(connection, OURS, port)
        assert not took.ended
        assert "another machine with this one's machine id" in took.note
        assert took.held_by == {f"127.0.0.1:{port}": f"user {sshd.user} (our own account)"}
        with pytest.raises(asyncssh.ChannelListenError):
            await listen(connection, port)


async def test_a_foreign_session_of_the_same_account_is_left_alone(sshd: Sshd) -> None:
    """It has left no record under our key: another host's, or a person's `ssh -R`."""
    port = free_port()
    async with session(sshd, Mark("f" * 32, "other", True), port), dialled(to_sshd(sshd)) as connection:
        took = await claimed(connection, Mark(KEY, "ours", displaces=True), port)
        assert (took.ended, took.note) == (False, "")
        assert took.held_by == {f"127.0.0.1:{port}": f"user {sshd.user} (our own account)"}


async def test_a_number_that_another_session_has_now_is_left_alone(sshd: Sshd) -> None:
    """The record names its process, but not its start."""
    port = free_port()
    async with session(sshd, OURS, port) as (_, other):
        words = record(sshd).read_text().split()
        record(sshd).write_text(" ".join([*words[:2], str(int(words[2]) - 1), *words[3:]]))
        async with dialled(to_sshd(sshd)) as connection:
            took = await claimed(connection, OURS, port)
            assert (took.ended, took.note, took.recorded) == (False, "", True)
        assert not other.is_closed()


async def test_a_session_on_record_is_one_that_serves_a_connection(sshd: Sshd) -> None:
    """Never sshd itself."""
    async with session(sshd, OURS, free_port()):
        assert int(record(sshd).read_text().split()[1]) in set(descendants(sshd.pid))


@pytest.fixture
async def open_one(tmp_path: Path) -> AsyncIterator[Connection]:
    """A connection to a relay that starts our program through a shell that stays, after noise."""
    forced = 'command="echo noise; sh -c \\"$SSH_ORIGINAL_COMMAND\\"; true"'
    async with running_sshd(tmp_path / "sshd", key_options=forced) as sshd, dialled(to_sshd(sshd)) as connection:
        yield connection


async def test_a_wrapper_that_stays_does_no_harm(open_one: Connection) -> None:
    """Our sshd is found above it, and our line behind what it says."""
    port = free_port()
    assert (await claimed(open_one, OURS, port)).recorded
    assert (await claimed(open_one, OURS, port)) == Takeover(False, "", {}, recorded=True)


async def test_nothing_but_one_small_program_stays(sshd: Sshd) -> None:
    """Python is gone once the report is made."""
    async with session(sshd, OURS, free_port()):
        await until(lambda: "cat" in programs(sshd))
        assert not any(name.startswith("python") for name in programs(sshd))


def programs(sshd: Sshd) -> set[str]:
    found = set()
    for pid in descendants(sshd.pid):
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return found


# Relays that do not let us


@pytest.mark.parametrize(
    ("options", "key_options", "says"),
    [
        pytest.param(["MaxSessions 0"], "", "runs no commands for us", id="no sessions"),
        pytest.param(["SetEnv PATH=/nowhere"], "", "has no python3", id="no python"),
        pytest.param([], 'command="echo no >&2; exit 1"', "it said: no", id="another command"),
        pytest.param([], 'command="head -c 100000 /dev/zero; exec cat"', "did not run our program, so", id="noise"),
    ],
)
async def test_a_relay_that_does_not_run_it_is_no_fault(
    tmp_path: Path, options: list[str], key_options: str, says: str
) -> None:
    """The reason and the consequence are told, and the session goes on."""
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        sshd = await stack.enter_async_context(
            running_sshd(tmp_path / "sshd", options=options, key_options=key_options)
        )
        connection = await stack.enter_async_context(dialled(to_sshd(sshd)))
        took = await claimed(connection, OURS, port)
        await listen(connection, port)
    assert re.search(says, took.note)
    assert "ClientAliveInterval" in took.note
    assert not took.ended


async def test_one_that_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that hangs in its start-up files."""
    monkeypatch.setattr(takeover, "START_TIME", 0.2)
    silent = running_sshd(tmp_path / "sshd", key_options='command="exec cat"')
    async with silent as sshd, dialled(to_sshd(sshd)) as connection:
        assert "did not run our program within 0.2 s" in (await claimed(connection, OURS, 1)).note
        await listen(connection, free_port())


async def test_an_ssh_server_that_is_not_openssh_is_left_alone(connection: Connection) -> None:
    """Its process serves all of its connections."""
    took = await claimed(connection, OURS, 1)
    assert (took.ended, took.recorded) == (False, False)
    assert "does not show our own sshd process" in took.note


async def test_an_answer_that_makes_no_sense_is_no_report(key: Path, public: str, tmp_path: Path) -> None:
    """Whatever a relay writes after the word that begins a report."""
    for answer in (
        "[]",
        "{",
        "[" * 5000,
        '{"did": 7, "held": 8}',
        '{"did": [], "held": [[], [1, 2], ["x"]]}',
        '{"did": "endless", "recorded": "yes", "held": [null, [true, "root"]]}',
    ):
        (tmp_path / "answer").write_text(f"{takeover.REPORT_BEGINS}{answer}\n")
        forced = f'command="cat {tmp_path}/answer -"'
        async with serve(Settings(authorized_keys=f"{forced} {public}")) as server:
            (tmp_path / "known").write_text(server.known_hosts())
            async with dialled(to_server(server, key, tmp_path / "known")) as connection:
                took = await claimed(connection, OURS, 1)
                assert (took.ended, took.held_by, took.recorded) == (False, {}, False)


async def test_a_report_may_come_in_pieces() -> None:
    """Behind whatever start-up files print; only its line's end makes it whole."""
    holder = Holder(None, OURS, [])  # type: ignore[arg-type]
    for piece in (b"Welcome!\ntunn", b"eld-claim ", b'{"did": "ended", "recorded": true'):
        holder._received(piece)
        assert not holder._reported.is_set()
    holder._received(b"}\nmore")
    assert holder._reported.is_set()


async def test_where_the_answer_to_the_request_makes_no_sense_it_returns(
    connection: Connection, confirms_oddly: None
) -> None:
    """A relay that breaks the protocol here costs the takeover, and nothing else."""
    assert "runs no commands for us" in (await claimed(connection, OURS, 1)).note


# Holding


async def test_it_holds_until_the_connection_ends(sshd: Sshd) -> None:
    """Its channel is the one that keeps sshd from closing an unused connection."""
    async with dialled(to_sshd(sshd)) as connection, asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        holder = Holder(connection, OURS, [])
        await holder.start()
        holding = tasks.create_task(holder.hold())
        await until(lambda: "cat" in programs(sshd))
        assert not holding.done()
        connection.abort()


async def test_it_leaves_when_told(sshd: Sshd) -> None:
    """By an end of file; the connection stays."""
    async with dialled(to_sshd(sshd)) as connection:
        holder = Holder(connection, OURS, [])
        await holder.start()
        holder.close()
        await until(lambda: "cat" not in programs(sshd))
        async with asyncio.timeout(10):
            await holder.hold()
        assert not connection.is_closed()


async def test_a_cancelled_hold_leaves(sshd: Sshd) -> None:
    """The cancellation arrives, and the program goes."""
    async with dialled(to_sshd(sshd)) as connection, asyncio.TaskGroup() as tasks:
        holder = Holder(connection, OURS, [])
        await holder.start()
        holding = tasks.create_task(holder.hold())
        await asyncio.sleep(0)  # a task that is cancelled before its first step does nothing at all
        await until(lambda: "cat" in programs(sshd))
        holding.cancel()
        await until(lambda: "cat" not in programs(sshd))
        assert not connection.is_closed()


async def test_a_cancelled_start_leaves_nothing(sshd: Sshd) -> None:
    """Whenever it comes: before the channel is open, while Python starts, when the report is under way."""
    for turns in (0, 1, 5, 50, 70, 100):
        async with dialled(to_sshd(sshd)) as connection, asyncio.TaskGroup() as tasks:
            holder = Holder(connection, OURS, [])
            starting = tasks.create_task(holder.start())
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled():
                holder.close()
            await until(lambda: not programs(sshd) - {"sshd", "sshd-session"})
            assert not connection.is_closed()


async def test_where_our_program_does_not_run_cat_holds(tmp_path: Path) -> None:
    """The channel is needed all the same: sshd's Nagle, and UnusedConnectionTimeout."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/cat").symlink_to("/bin/cat")
    async with contextlib.AsyncExitStack() as stack:
        options = [f"SetEnv PATH={tmp_path}/bin"]
        sshd = await stack.enter_async_context(running_sshd(tmp_path / "sshd", options=options))
        connection = await stack.enter_async_context(dialled(to_sshd(sshd)))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        holder = Holder(connection, OURS, [])
        assert "has no python3" in (await holder.start()).note
        holding = tasks.create_task(holder.hold())
        await until(lambda: "cat" in programs(sshd))
        holding.cancel()


def nodelay(server: int) -> bool:
    """Whether any process below the server has TCP_NODELAY on its connection to a client."""
    return any(_nodelay(copy) for pid in descendants(server) for copy in sockets_of(pid))


def _nodelay(copy: socket.socket) -> bool:
    with copy, contextlib.suppress(OSError):  # a listener or a Unix socket
        copy.getpeername()
        return bool(copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return False


def sockets_of(pid: int) -> Iterator[socket.socket]:
    """Copies of another process's sockets."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError):  # it is gone
        handle = os.pidfd_open(pid)
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    yield socket.socket(fileno=libc.syscall(PIDFD_GETFD, handle, int(name), 0))
        finally:
            os.close(handle)


@pytest.mark.skipif(os.geteuid() != 0, reason="looks at another process's socket")
async def test_sshd_stops_delaying_once_a_session_is_held(sshd: Sshd) -> None:
    """sshd sets TCP_NODELAY when a session starts, and only then: without it Nagle holds small packets back."""
    async with dialled(to_sshd(sshd)) as connection, asyncio.TaskGroup() as tasks:
        await connection.create_server(lambda *_: asyncssh.SSHTCPSession(), "127.0.0.1", 0, encoding=None)
        assert not nodelay(sshd.pid)
        holding = tasks.create_task(hold_session(connection))
        await until(lambda: nodelay(sshd.pid))
        holding.cancel()


async def test_a_session_held_by_cat_ends_with_the_connection(server: Server, connection: Connection) -> None:
    """And its program on the relay with it."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(hold_session(connection))
        await until(lambda: len(server.programs) == 1)
        server.drop()
    await until(lambda: not server.programs)


async def test_a_session_held_by_cat_can_be_cancelled(server: Server, connection: Connection) -> None:
    """The cancellation arrives, the channel closes, the connection stays."""
    async with asyncio.TaskGroup() as tasks:
        holding = tasks.create_task(hold_session(connection))
        await until(lambda: len(server.programs) == 1)
        holding.cancel()
    assert holding.cancelled()
    await until(lambda: not server.programs)
    assert not connection.is_closed()


async def test_a_channel_that_was_held_is_not_closed_from_here() -> None:
    """sshd would ask for signs of life on it, where nobody may answer, and end the connection (see RemoteProgram)."""
    notes: list[str] = []

    class Process:
        async def create_process(self, command: str, **settings: Any) -> Process:
            return self

        async def wait_closed(self) -> None:
            notes.append("held")

        @property
        def stdin(self) -> Process:
            return self

        def write_eof(self) -> None:
            notes.append("eof")

        def close(self) -> None:
            notes.append("closed")

    await hold_session(Process())  # type: ignore[arg-type]
    assert notes == ["held", "eof"]


async def test_where_programs_are_forbidden_it_returns(key: Path, public: str, tmp_path: Path) -> None:
    """A relay that only forwards is no fault."""
    async with serve(Settings(authorized_keys=public, programs=False)) as server:
        (tmp_path / "known").write_text(server.known_hosts())
        async with dialled(to_server(server, key, tmp_path / "known")) as connection:
            await hold_session(connection)


async def test_where_the_answer_makes_no_sense_it_returns(connection: Connection, confirms_oddly: None) -> None:
    """A relay that breaks the protocol here costs the session that is held, and nothing else."""
    await hold_session(connection)


async def test_where_sshd_has_no_sessions_it_returns(tmp_path: Path) -> None:
    """MaxSessions 0 forbids every session and leaves forwards alone."""
    async with contextlib.AsyncExitStack() as stack:
        sshd = await stack.enter_async_context(running_sshd(tmp_path / "sshd", options=["MaxSessions 0"]))
        connection = await stack.enter_async_context(dialled(to_sshd(sshd)))
        await hold_session(connection)
        assert not connection.is_closed()


async def test_a_held_session_keeps_an_unused_connection_open(tmp_path: Path) -> None:
    """UnusedConnectionTimeout (OpenSSH 9.2) closes a connection that has listeners alone."""
    async with contextlib.AsyncExitStack() as stack:
        sshd = await stack.enter_async_context(running_sshd(tmp_path / "sshd", options=["UnusedConnectionTimeout 1"]))
        held = await stack.enter_async_context(dialled(to_sshd(sshd)))
        unused = await stack.enter_async_context(dialled(to_sshd(sshd)))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        holding = tasks.create_task(hold_session(held))
        await unused.wait_closed()
        assert not held.is_closed()
        holding.cancel()


# Names


def test_a_key_names_machine_and_profile_and_tells_neither() -> None:
    """Thirty-two hexadecimal digits that differ with each of them."""
    keys = {key_of(profile, machine) for profile in ("pi", "vault") for machine in ("a" * 32, "b" * 32)}
    assert len(keys) == 4
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in keys)


def test_each_user_of_a_machine_has_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two users may have a profile of the same name, and one account on the relay."""
    ours = key_of("pi", "a" * 32)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert key_of("pi", "a" * 32) != ours


def test_a_machine_has_an_id(tmp_path: Path) -> None:
    """The first file that holds one; a machine without has its name."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert machine_id([first, second]) == os.uname().nodename
    first.write_text("uninitialized\n")
    second.write_text("b" * 32 + "\n")
    assert machine_id([first, second]) == "b" * 32
    first.write_text("a" * 32 + "\n")
    assert machine_id([first, second]) == "a" * 32


FIRST, SECOND = Relay("relay"), Relay("relay", port=2200)


def test_each_relay_has_a_name_of_its_own() -> None:
    """Two ways to one machine do not end one another's sessions; another process of the same profile finds them."""
    ours, theirs = Marks("pi"), Marks("pi")
    assert ours.of(FIRST).key != ours.of(SECOND).key
    assert ours.of(FIRST).key == theirs.of(FIRST).key != Marks("vault").of(FIRST).key
    assert ours.of(FIRST).instance == ours.of(SECOND).instance != theirs.of(FIRST).instance


def test_only_who_is_not_on_record_displaces_others() -> None:
    """From then on, another instance there is no predecessor but a clone."""
    marks = Marks("pi")
    marks.taken_over(FIRST, Takeover(False, "", recorded=False))
    assert marks.of(FIRST).displaces
    marks.taken_over(FIRST, Takeover(True, "", recorded=True))
    assert not marks.of(FIRST).displaces
    assert marks.of(SECOND).displaces
