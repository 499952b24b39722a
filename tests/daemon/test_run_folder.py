"""Where running tunnels are found, and the lock that keeps a second daemon out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunneld.daemon import run_folder
from tunneld.daemon.run_folder import (
    SYSTEM_FOLDER,
    TunnelLock,
    directories,
    forget,
    own_directory,
    prepare,
    socket_path,
)
from tunneld.errors import BusyError, RightsError, UnavailableError, UsageError

HOLD = """
import pathlib, sys
from tunneld.daemon.run_folder import TunnelLock
lock = TunnelLock(pathlib.Path(sys.argv[1]), "pi")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names no folder, and the system's real one, which these tests only name."""
    monkeypatch.setattr(run_folder, "SYSTEM_FOLDER", Path("/run/tunneld"))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def user(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_root_uses_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system daemon is where system daemons are, whatever session root has."""
    user(monkeypatch, 0)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    assert str(SYSTEM_FOLDER) == "/run/tunneld"
    assert own_directory() == SYSTEM_FOLDER
    assert directories() == [SYSTEM_FOLDER]


def test_a_user_uses_their_session_and_looks_at_the_system_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tunneld status` finds a user's own tunnels first, then the machine's."""
    user(monkeypatch, 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert own_directory() == Path("/run/user/1000/tunneld")
    assert directories() == [Path("/run/user/1000/tunneld"), Path("/run/tunneld")]


def test_a_user_without_a_session_uses_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """From cron or a bare su there is no XDG_RUNTIME_DIR."""
    user(monkeypatch, 1000)
    assert own_directory() == Path("/tmp/tunneld-1000")


def test_systemd_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """RuntimeDirectory= wins over everything, and its first folder counts."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/tunneld:/run/other")
    user(monkeypatch, 1000)
    assert own_directory() == Path("/run/tunneld")


def test_the_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    """A new folder is 0700, and preparing it again is fine."""
    folder = prepare(prepare(tmp_path / "deep" / "tunneld"))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_write_is_refused(tmp_path: Path) -> None:
    """In /tmp somebody else may have been first."""
    folder = tmp_path / "tunneld"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(RightsError, match="is open to, somebody else"):
        prepare(folder)


def test_somebody_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it looks tidy."""
    folder = prepare(tmp_path / "tunneld")
    user(monkeypatch, os.geteuid() + 1)
    with pytest.raises(RightsError, match="belongs to"):
        prepare(folder)


def test_a_link_is_no_folder(tmp_path: Path) -> None:
    """A link planted in /tmp leads nowhere."""
    (tmp_path / "real").mkdir()
    (tmp_path / "tunneld").symlink_to(tmp_path / "real")
    with pytest.raises(RightsError, match="is no folder"):
        prepare(tmp_path / "tunneld")


def test_a_name_too_long_for_a_socket_is_said() -> None:
    """The kernel takes 107 bytes of a path; its own words would be `AF_UNIX path too long`."""
    longest = "x" * (107 - len("/run/tunneld/.sock"))
    assert len(str(socket_path(Path("/run/tunneld"), longest))) == 107
    with pytest.raises(UsageError, match="shorter name"):
        socket_path(Path("/run/tunneld"), longest + "x")
    with pytest.raises(UsageError, match="shorter name"):
        socket_path(Path("/run/tunneld"), longest[:-1] + "ä")  # two bytes


def test_a_tunnel_that_runs_keeps_its_files(tmp_path: Path) -> None:
    """Whoever disables a service must not take the lock of a daemon that runs beside it."""
    (tmp_path / "pi.sock").touch()
    lock = TunnelLock(tmp_path, "pi")
    forget(tmp_path, "pi")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pi.lock", "pi.sock"]
    lock.release()
    (tmp_path / "other.lock").touch()
    forget(tmp_path, "pi")
    assert [path.name for path in tmp_path.iterdir()] == ["other.lock"]
    forget(tmp_path, "other")
    assert not tmp_path.exists()


def test_a_second_daemon_is_told_who_holds_the_tunnel(tmp_path: Path) -> None:
    """The lock names its process, and the kernel releases it with that process, even a killed one."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"pi is already running, in process {holder.pid}"):
            TunnelLock(tmp_path, "pi")
        TunnelLock(tmp_path, "other").release()
        holder.kill()
        holder.wait()
    TunnelLock(tmp_path, "pi").release()


def test_a_lock_is_released(tmp_path: Path) -> None:
    """After a clean end the next daemon gets it, in the same process too."""
    for _ in range(2):
        lock = TunnelLock(tmp_path, "pi")
        with pytest.raises(BusyError, match=f"in process {os.getpid()}"):
            TunnelLock(tmp_path, "pi")
        lock.release()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """The lock is a file of ours, or there is none."""
    (tmp_path / "pi.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UnavailableError, match="symbolic links"):
        TunnelLock(tmp_path, "pi")
    assert not (tmp_path / "victim").exists()


def test_readers_import_neither_asyncio_nor_ssh() -> None:
    """`tunneld status` answers at once because it loads nothing heavy."""
    code = (
        "import tunneld.cli.status, sys; print([m for m in ('asyncio', 'asyncssh', 'structlog') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert run_folder.__doc__


def test_root_shares_the_services_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, root does not run what the service runs; and what root leaves there, the service can take."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    folder = tmp_path / "tunneld"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(RightsError, match="belongs to"):
        prepare(folder)
    monkeypatch.setattr(run_folder, "SERVICE_USER", "nobody")
    lock = TunnelLock(prepare(folder), "pi")
    assert (folder / "pi.lock").stat().st_uid == 65534
    lock.release()


def test_a_user_does_not_trust_the_services_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root looks for the service's user."""
    folder = tmp_path / "tunneld"
    folder.mkdir()
    monkeypatch.setattr(run_folder, "SERVICE_USER", "root")
    user(monkeypatch, os.geteuid() + 1)
    with pytest.raises(RightsError, match="belongs to"):
        prepare(folder)
