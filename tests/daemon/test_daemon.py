"""The daemon as a process: signals, reload, a second daemon, and what `tunneld status` shows of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.isolated import TUNNELD
from tests.sshd import Sshd, descendants, free_port
from tests.tunnel.supervised import echoing, has_settled, is_free, line, sockets
from tests.until import until
from tests.virtual import Journal
from tunneld.daemon.daemon import Daemon
from tunneld.daemon.run_folder import TunnelLock
from tunneld.profile import Profile, load, load_all
from tunneld.status.snapshot import TunnelStatus, from_json
from tunneld.tunnel.tunnel import Tunnel


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the sockets, for this process and its children."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "run"


def write_profile(folder: Path, relay: Sshd, *forwards: tuple[int, int], name: str = "pi", more: str = "") -> Path:
    file = folder / f"{name}.toml"
    text = f"""
        [relay]
        host = "127.0.0.1"
        port = {relay.port}
        user = "{relay.user}"
        identity = "{relay.user_key}"
        known_hosts = "{relay.known_hosts}"
        ssh_config = false
        {more}
    """
    for listen, to in forwards:
        text += f"""
        [[forward]]
        listen = "127.0.0.1:{listen}"
        to = "127.0.0.1:{to}"
        """
    file.write_text("\n".join(each.strip() for each in text.splitlines()))
    return file


class Process:
    """`tunneld run ...` with a JSON log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []

    async def says(self, name: str, **about: Any) -> dict[str, Any]:
        """Read on until the next event of this name."""
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            while text := await self.process.stderr.readline():
                event: dict[str, Any] = json.loads(text) if text.startswith(b"{") else {"event": text.decode()}
                self.events.append(event)
                if event["event"] == name and about.items() <= event.items():
                    return event
        raise AssertionError(f"the daemon ended without {name}: {self.events}")

    async def ends(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def tunneld(*arguments: str | Path) -> AsyncIterator[Process]:
    command = [*TUNNELD, *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def daemon(*profiles: Path) -> contextlib.AbstractAsyncContextManager[Process]:
    return tunneld("run", *profiles, "--log-format", "json")


async def command(*arguments: str) -> tuple[int, str, str]:
    """Run a `tunneld` command: its exit code, its stdout, its stderr."""
    process = await asyncio.create_subprocess_exec(
        *TUNNELD, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, complaints = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), complaints.decode()


async def status_of(name: str) -> TunnelStatus:
    return from_json((await command("status", name, "--json"))[1])


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_exits_with_0(
    relay: Sshd, run_folder: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    """When the process has ended, the port is free and the socket is gone."""
    listen = free_port()
    async with daemon(write_profile(tmp_path, relay, (listen, 9))) as running:
        await running.says("session_established")
        await has_settled(relay)
        assert not is_free(listen)
        running.process.send_signal(ending)
        assert await running.ends() == 0
        assert is_free(listen)
        assert not (run_folder / "pi.sock").exists()
        await running.says("tunnel_stopped")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(
    relay: Sshd, run_folder: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    """The relay hangs, so draining takes long. A user who asks twice does not want to wait."""
    async with daemon(write_profile(tmp_path, relay, (free_port(), 9))) as running:
        await running.says("session_established")
        for pid in descendants(relay.pid):
            os.kill(pid, signal.SIGSTOP)
        running.process.send_signal(ending)
        await running.says("stop_requested")
        running.process.send_signal(ending)
        assert await running.ends() == -ending


async def test_two_tunnels_in_one_process(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """A tunnel whose relay is away does not delay the other one."""
    listen, away = free_port(), free_port()
    async with echoing() as target:
        one = write_profile(tmp_path, relay, (listen, target), name="one")
        other = write_profile(tmp_path, relay, (free_port(), 9), name="other")
        other.write_text(other.read_text().replace(f"port = {relay.port}", f"port = {away}"))
        async with daemon(one, other) as running:
            await running.says("session_established", tunnel="one")
            async with line(listen) as talking:
                assert await talking.echoes()
            code, out, _ = await command("status")
            assert code == 1
            assert "one: up for" in out
            assert "other: down for" in out
            running.process.terminate()
            assert await running.ends() == 0


async def test_a_reload_follows_what_changed_and_only_that(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """SIGHUP: a connection through the unchanged forward stays, the new forward listens, the other tunnel stays up."""
    stays, comes = free_port(), free_port()
    async with echoing() as target:
        changed = write_profile(tmp_path, relay, (stays, target), name="changed")
        same = write_profile(tmp_path, relay, (free_port(), 9), name="same")
        async with daemon(changed, same) as running:
            for _ in range(2):
                await running.says("session_established")
            async with line(stays) as talking:
                assert await talking.echoes()
                write_profile(tmp_path, relay, (stays, target), (comes, target), name="changed")
                running.process.send_signal(signal.SIGHUP)
                await running.says("profile_unchanged", tunnel="same")
                assert await talking.echoes()
            async with line(comes) as talking:
                assert await talking.echoes()
            assert (await status_of("changed")).sessions == 1
            assert (await status_of("same")).sessions == 1


async def test_an_invalid_profile_changes_nothing(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """Each problem is a line in the log, and the tunnel goes on as it was."""
    file = write_profile(tmp_path, relay, (free_port(), 9))
    async with daemon(file) as running:
        await running.says("session_established")
        file.write_text(file.read_text() + "\n[keepalive]\ninterval = -1\ncuont = 3\n")
        running.process.send_signal(signal.SIGHUP)
        told = [(await running.says("profile_rejected"))["problem"] for _ in range(2)]
        assert all(each.startswith(f"{file}:") for each in told)
        assert "interval" in told[0]
        assert "cuont" in told[1]
        file.unlink()
        running.process.send_signal(signal.SIGHUP)
        await running.says("profile_rejected")
        assert (await status_of("pi")).sessions == 1


async def test_a_second_daemon_is_told_who_runs_it(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """It ends with EX_TEMPFAIL and names the process; the first one does not notice."""
    file = write_profile(tmp_path, relay, (free_port(), 9))
    async with daemon(file) as first:
        await first.says("session_established")
        code, _, complaint = await command("run", str(file))
        assert code == 75
        assert complaint.startswith(f"tunneld: pi is already running, in process {first.process.pid}:")
        assert (await status_of("pi")).pid == first.process.pid


async def test_a_killed_daemons_place_is_taken(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """Its socket and lock are still there. Status says that nothing runs, and the next daemon starts."""
    file = write_profile(tmp_path, relay, (free_port(), 9))
    async with daemon(file) as first:
        await first.says("session_established")
        first.process.kill()
        await first.ends()
        assert (run_folder / "pi.sock").exists()
        for arguments in (("status",), ("status", "pi")):
            code, _, complaint = await command(*arguments)
            assert code == 69
            assert "running" in complaint
    async with daemon(file) as second:
        await second.says("session_established")
        assert (await status_of("pi")).pid == second.process.pid


async def test_the_status_of_a_tunnel_that_is_up(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """It has the state, the relay and the forward. The exit code is 0, and a path names the tunnel as well."""
    listen = free_port()
    file = write_profile(tmp_path, relay, (listen, 9))
    async with daemon(file) as running:
        await running.says("session_established")
        for name in ("pi", str(file)):
            code, out, _ = await command("status", name)
            assert code == 0
            first, second, third = out.splitlines()
            assert first.startswith("pi: up for ")
            assert second.startswith(f"  relay     {relay.user}@127.0.0.1:{relay.port}, 1 session from 1 attempt in ")
            expected = f"127.0.0.1:{listen} on the relay -> 127.0.0.1:9: listening, 0 connections (0 in all)"
            assert third.startswith(f"  forward   {expected}")  # a canary may have looked at the target by now


async def test_the_status_of_a_tunnel_that_needs_a_person(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """A refused login stands out, with what to do, and when tunneld tries again."""
    (relay.folder / "authorized_keys").write_text("")
    async with daemon(write_profile(tmp_path, relay, (free_port(), 9))) as running:
        await running.says("dial_failed")
        code, out, _ = await command("status", "pi")
        assert code == 1
        lines = out.splitlines()
        assert lines[0].startswith("pi: NEEDS YOU: authentication, down for ")
        assert "next try in 1 min" in lines[0]
        assert lines[-2].startswith("  last fault  ")
        assert "authorized_keys" in lines[-2]
        assert lines[-1].startswith("  to do ")


async def test_status_without_a_daemon_says_so(run_folder: Path) -> None:
    """Exit code 69 and one line, with and without a name."""
    code, out, complaint = await command("status", "pi")
    assert (code, out, complaint) == (69, "", "tunneld: pi is not running; start it with `tunneld run pi`\n")
    code, out, complaint = await command("status")
    assert (code, out) == (69, "")
    assert complaint.startswith("tunneld: no tunnel is running (looked in ")


# From here on, the daemon runs in this process: a process of its own would not show these things.


def crash() -> None:
    raise KeyError("a fault of ours")


def tunnel_of(held: Daemon, name: str) -> Tunnel:
    """The tunnel of a profile with one relay."""
    (tunnel,) = held._tunnels[name]._tunnels.values()
    return tunnel


async def test_a_crash_takes_no_other_tunnel_down_and_a_reload_mends_it(
    relay: Sshd, run_folder: Path, tmp_path: Path
) -> None:
    """A fault of ours ends one tunnel: it is FAILED, its traceback is in the log. The other stays; SIGHUP mends it."""
    journal = Journal()
    listen = free_port()
    async with echoing() as target:
        files = [
            write_profile(tmp_path, relay, (listen, target), name="good"),
            write_profile(tmp_path, relay, (free_port(), 9), name="bad"),
        ]
        held = Daemon(load_all([str(each) for each in files]), log=journal.log)
        broken = tunnel_of(held, "bad")
        broken._established = crash  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(held.run())
            failed = await journal.says("tunnel_failed", tunnel="bad")
            assert failed["exc_info"]
            status = broken.status()
            assert status.state.value == "failed"
            assert status.failure is not None
            assert "a fault of ours" in status.failure.text
            await journal.says("session_established", tunnel="good")
            async with line(listen) as talking:
                assert await talking.echoes()
                held.reload()
                await journal.says("session_established", tunnel="bad")
                assert await talking.echoes()
            held.stop()
        assert task.result() == 0


async def test_a_stop_overtakes_a_reload(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """A reload may find a new profile while the other tunnels drain. It is not started: nobody would stop it."""
    journal = Journal()
    first = write_profile(tmp_path, relay, (free_port(), 9), name="first")
    files = [first]
    held: Daemon

    def read(file: str) -> Profile:
        if file.endswith("second.toml"):
            loop.call_soon_threadsafe(held.stop)
        return load(file)

    loop = asyncio.get_running_loop()
    held = Daemon(load_all([str(first)]), log=journal.log, read=read, found=lambda: files)
    may_end = asyncio.Event()
    group = held._tunnels["first"]
    run = group.run

    async def drains_slowly() -> None:
        await run()
        await may_end.wait()

    group.run = drains_slowly  # type: ignore[method-assign]
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(held.run())
        await journal.says("session_established", tunnel="first")
        files.append(write_profile(tmp_path, relay, (free_port(), 9), name="second"))
        held.reload()
        await until(lambda: "second" in held._tunnels, what="the reload has come to the second profile")
        may_end.set()
    assert task.result() == 0
    assert held._tunnels["second"].status().attempts == 0


async def test_a_reload_after_a_stop_is_not_begun(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """systemd would take a daemon that stops for one that reloads."""
    journal, read = Journal(), list[str]()
    file = write_profile(tmp_path, relay, (free_port(), 9))

    def reading(name: str) -> Profile:
        read.append(name)
        return load(name)

    held = Daemon(load_all([str(file)]), log=journal.log, read=reading)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(held.run())
        await journal.says("session_established")
        held.stop()
        held.reload()
    assert read == []


async def test_a_reload_leaves_a_profile_out_that_conflicts(relay: Sshd, run_folder: Path, tmp_path: Path) -> None:
    """A new profile that wants a port of a running tunnel is told; a later reload, without the conflict, runs it."""
    journal = Journal()
    taken, free = free_port(), free_port()
    files = [write_profile(tmp_path, relay, (taken, 9), name="first")]
    held = Daemon(load_all([str(files[0])]), log=journal.log, found=lambda: files)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(held.run())
        await journal.says("session_established", tunnel="first")
        files.append(write_profile(tmp_path, relay, (taken, 9), name="second"))
        held.reload()
        rejected = await journal.says("profile_rejected")
        assert f"127.0.0.1:{taken} is taken by forward[1] of first" in rejected["problem"]
        await journal.says("profile_unchanged", tunnel="first")
        assert list(held._tunnels) == ["first"]
        write_profile(tmp_path, relay, (free, 9), name="second")
        held.reload()
        await journal.says("session_established", tunnel="second")
        held.stop()


async def test_a_reload_leaves_a_tunnel_out_that_another_daemon_runs(
    relay: Sshd, run_folder: Path, tmp_path: Path
) -> None:
    """It is told who runs it; the others go on, and a later reload takes it up."""
    journal = Journal()
    files = [write_profile(tmp_path, relay, (free_port(), 9), name="first")]
    held = Daemon(load_all([str(files[0])]), log=journal.log, found=lambda: files)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(held.run())
        await journal.says("session_established", tunnel="first")
        lock = TunnelLock(run_folder, "second")
        files.append(write_profile(tmp_path, relay, (free_port(), 9), name="second"))
        held.reload()
        assert f"already running, in process {os.getpid()}" in (await journal.says("profile_rejected"))["problem"]
        lock.release()
        held.reload()
        await journal.says("session_established", tunnel="second")
        held.stop()


async def test_when_every_tunnel_has_crashed_the_daemon_ends_with_a_fault(
    relay: Sshd, run_folder: Path, tmp_path: Path
) -> None:
    """If the process went on, doing nothing, systemd would not start it again."""
    journal, before = Journal(), sockets()
    held = Daemon(load_all([str(write_profile(tmp_path, relay, (free_port(), 9)))]), log=journal.log)
    tunnel_of(held, "pi")._established = crash  # type: ignore[method-assign]
    assert await held.run() == 70
    for _ in range(5):
        await asyncio.sleep(0)
    assert sockets() - before == set()
