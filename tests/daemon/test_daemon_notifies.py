"""The daemon as systemd sees it: `tunneld run` as a process, and a real socket that hears what the process says."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.test_daemon import command, status_of, tunneld, write_profile
from tests.datagrams import Inbox, inbox
from tests.sshd import Sshd, free_port
from tunneld.daemon.systemd_line import LINE_INTERVAL


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the sockets, for this process and its children."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def systemd(relay: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """A socket in the place of systemd's. Only later children are told, since sshd would say READY=1 too."""
    with inbox(tmp_path, "notify") as opened:
        monkeypatch.setenv("NOTIFY_SOCKET", opened.address)
        yield opened


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `run --all`."""
    folder = tmp_path / "config/tunneld/profiles"
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


async def test_ready_is_said_before_any_relay_answers(systemd: Inbox, tmp_path: Path, relay: Sshd) -> None:
    """A boot without network is no failure of the service. It is ready, and its status says what is missing."""
    file = write_profile(tmp_path, relay, (free_port(), 9))
    file.write_text(file.read_text().replace(f"port = {relay.port}", f"port = {free_port()}"))
    async with tunneld("run", file) as running:
        await systemd.hears("READY=1")
        assert "nothing listens at 127.0.0.1:" in await systemd.hears("STATUS=nothing listens")
        running.process.terminate()
        await systemd.hears("STOPPING=1")
        assert await running.ends() == 0


async def test_a_life_under_systemd(systemd: Inbox, tmp_path: Path, relay: Sshd) -> None:
    """Ready, up, reloaded with a mistake in the profile and without, stopped: systemd is told each, in this order."""
    listen = free_port()
    file = write_profile(tmp_path, relay, (listen, 9))
    right = file.read_text()
    async with tunneld("run", file, "--log-format", "json") as running:
        await systemd.hears("READY=1")
        async with asyncio.timeout(LINE_INTERVAL - 1):  # a change is told at once
            up = await systemd.hears("STATUS=up")
        assert up.endswith(f" to 127.0.0.1:{relay.port}; {listen} to 9")
        file.write_text(right + "\n[keepalive]\ninterval = -1\n")
        running.process.send_signal(signal.SIGHUP)
        assert "\nMONOTONIC_USEC=" in await systemd.hears("RELOADING=1")
        await systemd.hears("READY=1")
        assert f"; 1 problem in profiles: {file}:" in await systemd.hears("STATUS=up")
        file.write_text(right)
        running.process.send_signal(signal.SIGHUP)
        await systemd.hears("RELOADING=1")
        await systemd.hears("READY=1")
        assert "problem" not in await systemd.hears("STATUS=up")
        running.process.terminate()
        await systemd.hears("STOPPING=1")
        assert await running.ends() == 0
    assert sum(each == b"READY=1" for each in systemd.heard) == 3


async def test_signs_of_life_come_as_the_services_environment_asks(
    systemd: Inbox, tmp_path: Path, relay: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the variable a line would come after ten seconds; with it they come several times a second."""
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    async with tunneld("run", write_profile(tmp_path, relay, (free_port(), 9))), asyncio.timeout(LINE_INTERVAL - 1):
        for _ in range(4):
            await systemd.hears("WATCHDOG=1")


async def test_a_wrong_profile_is_the_services_status(systemd: Inbox, tmp_path: Path, relay: Sshd) -> None:
    """It ends with 78, after which systemd does not try again. `systemctl status` says why. It was never ready."""
    file = write_profile(tmp_path, relay, (free_port(), 9))
    file.write_text(file.read_text().replace("host =", "hots ="))
    async with tunneld("run", file) as running:
        told = await systemd.hears("STATUS=")
        assert told.startswith(f"STATUS={file}:")
        assert "hots" in told
        assert await running.ends() == 78
    assert b"READY=1" not in systemd.heard


async def test_one_process_for_all_leaves_out_what_is_wrong(
    systemd: Inbox, profiles: Path, relay: Sshd, tmp_path: Path
) -> None:
    """A wrong profile keeps no other down. It is told, and a reload runs it once it is right."""
    write_profile(profiles, relay, (free_port(), 9), name="good")
    wrong = write_profile(profiles, relay, (free_port(), 9), name="wrong")
    right = wrong.read_text()
    wrong.write_text(right.replace("host =", "hots ="))
    async with tunneld("run", "--all", "--log-format", "json") as running:
        await running.says("profile_rejected")
        await systemd.hears("READY=1")
        await running.says("session_established", tunnel="good")
        assert f"; 2 problems in profiles: {wrong}:" in await systemd.hears("STATUS=up")
        wrong.write_text(right)
        running.process.send_signal(signal.SIGHUP)
        await running.says("session_established", tunnel="wrong")
        assert await systemd.hears("STATUS=2 tunnels up") == "STATUS=2 tunnels up: good, wrong"
        assert (await status_of("wrong")).sessions == 1
        assert (await status_of("good")).sessions == 1
        running.process.terminate()
        assert await running.ends() == 0


async def test_two_profiles_in_each_others_way_run_as_far_as_they_can(
    systemd: Inbox, profiles: Path, relay: Sshd
) -> None:
    """Two want the same port on the same relay: the first has it, and the second is told."""
    listen = free_port()
    write_profile(profiles, relay, (listen, 9), name="first")
    second = write_profile(profiles, relay, (listen, 9), name="second")
    async with tunneld("run", "--all") as running:
        told = await systemd.hears("STATUS=up")
        assert f"1 problem in profiles: {second}:" in told
        running.process.terminate()
        assert await running.ends() == 0


async def test_all_of_nothing_is_a_wrong_profile(
    systemd: Inbox, profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any profile that can run, it ends with 78, as for a single one. A wrong command line ends with 64."""
    code, _, complaint = await command("run", "--all")
    assert code == 78
    assert "holds no profile" in complaint
    (profiles / "bad.toml").write_text("[relay]\n")
    assert (await command("run", "--all"))[0] == 78
    assert (await command("run"))[0] == 64
    assert (await command("run", "--all", "bad"))[0] == 64


@pytest.mark.parametrize(("folder", "socket"), [(0o700, 0o600), (0o750, 0o660)])
async def test_who_may_enter_the_folder_may_ask(
    tmp_path: Path, relay: Sshd, run_folder: Path, systemd: Inbox, folder: int, socket: int
) -> None:
    """A service's folder is open to its group, whatever the umask is. Any other folder is its owner's alone."""
    os.mkdir(run_folder)
    os.chmod(run_folder, folder)
    before = os.umask(0o077)
    try:
        async with tunneld("run", write_profile(tmp_path, relay, (free_port(), 9))):
            await systemd.hears("READY=1")
            assert (run_folder / "pi.sock").stat().st_mode & 0o777 == socket
            assert (run_folder / "pi.lock").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
