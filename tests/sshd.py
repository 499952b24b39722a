"""A real OpenSSH server on loopback, with its own keys; the machine's own sshd and its files are not touched."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
START_TIMEOUT = 10.0  # seconds; it takes about 50 ms


@dataclass(slots=True)
class Sshd:
    """A running sshd: its port, the key that may log in, and what it has logged so far (`LogLevel VERBOSE`)."""

    folder: Path
    port: int
    user: str
    user_key: Path
    host_key: asyncssh.SSHKey
    known_hosts: Path
    pid: int
    log: list[str] = field(default_factory=list)
    logged: asyncio.Event = field(default_factory=asyncio.Event)

    async def log_says(self, words: str) -> str:
        """Wait for a log line that contains `words`; returns it."""
        while True:
            for line in self.log:
                if words in line:
                    return line
            self.logged.clear()
            await self.logged.wait()

    def known_on(self, port: int) -> Path:
        """A known_hosts file for clients that reach this server through another port."""
        return write_known_hosts(self.folder / f"known_hosts.{port}", self.host_key, port=port)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop sshd and its sessions for this block, as on a suspended machine; the kernel still answers for them."""
        processes = [*descendants(self.pid), self.pid]
        try:
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def running_sshd(
    folder: Path, *, options: Iterable[str] = (), key_options: str = "", address: str = "127.0.0.1"
) -> AsyncIterator[Sshd]:
    """Start sshd for this block; at the end sshd and all its sessions are killed.

    `options` are lines of sshd_config that override ours; `key_options` go before the key in authorized_keys.
    """
    assert SSHD is not None, "openssh-server is not installed"
    _make_folders(folder)
    user_key, host_key = make_key(folder / "user_key"), make_key(folder / "host_key")
    public = user_key.export_public_key("openssh").decode().strip()
    (folder / "authorized_keys").write_text(f"{key_options} {public}\n".lstrip())
    port = free_port(address)
    (folder / "sshd_config").write_text("\n".join([*options, *_settings(folder, port=port, address=address)]) + "\n")
    write_known_hosts(folder / "known_hosts", host_key, port=port, address=address)
    process = await asyncio.create_subprocess_exec(
        SSHD,
        "-D",
        "-e",
        "-f",
        str(folder / "sshd_config"),
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    server = Sshd(
        folder=folder,
        port=port,
        user=getpass.getuser(),
        user_key=folder / "user_key",
        host_key=host_key.convert_to_public(),
        known_hosts=folder / "known_hosts",
        pid=process.pid,
    )
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(_collect(process, server))
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await server.log_says("Server listening on")
            yield server
        finally:
            for pid in [*descendants(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await process.wait()
            reading.cancel()


async def _collect(process: asyncio.subprocess.Process, server: Sshd) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        server.log.append(line.decode(errors="replace").rstrip())
        server.logged.set()


def _make_folders(folder: Path) -> None:
    Path("/run/sshd").mkdir(exist_ok=True)  # privilege separation: sshd as root does not start without it
    folder.mkdir(parents=True, exist_ok=True)


def _settings(folder: Path, *, port: int, address: str) -> list[str]:
    return [
        f"Port {port}",
        f"ListenAddress {address}",
        f"HostKey {folder}/host_key",
        f"PidFile {folder}/pid",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        "StrictModes no",
        "UsePAM no",
        "PermitRootLogin yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "LogLevel VERBOSE",
        "PrintMotd no",
        # Nothing is written to the home folder of the user who runs the tests. Debian's bash reads the start-up files
        # there when sshd starts it, unless SHLVL says that it is not the first shell. Those files are slow and no part
        # of a test.
        f"SetEnv SHLVL=2 HOME={folder}",
        "MaxStartups 1000",
    ]


def make_key(path: Path) -> asyncssh.SSHKey:
    """A fresh ed25519 key, written to `path` and `path`.pub, readable to its owner only."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.write_bytes(key.export_private_key("openssh"))
    path.chmod(0o600)
    path.with_name(path.name + ".pub").write_bytes(key.export_public_key("openssh"))
    return key


def lock_key(path: Path, passphrase: str) -> None:
    """Encrypt a key file with a passphrase, by ssh-keygen: asyncssh needs bcrypt for it, which may be missing."""
    subprocess.run(["ssh-keygen", "-q", "-p", "-a", "1", "-P", "", "-N", passphrase, "-f", str(path)], check=True)


def write_known_hosts(path: Path, key: asyncssh.SSHKey, *, port: int, address: str = "127.0.0.1") -> Path:
    public = key.export_public_key("openssh").decode()
    path.write_text(f"[{address}]:{port} {public}")
    return path


def free_port(address: str = "127.0.0.1", *, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket(type=kind) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def standing_still(pids: Iterable[int]) -> Iterator[None]:
    """Stop these processes (SIGSTOP) for this block, and let them continue at its end."""
    stopped = list(pids)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):  # it ended with one that goes on already
                os.kill(pid, signal.SIGCONT)


def descendants(pid: int) -> Iterator[int]:
    """Every process below `pid`, deepest first; sshd's sessions are in process groups of their own."""
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, tasks.read_text().split()):
                yield from descendants(child)
                yield child
