"""Dialling as a service that was lent its files: real logins, with the files themselves out of sight."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sshd import Sshd, make_key, running_sshd, write_known_hosts
from tests.tunnel.supervised import relay_of
from tunneld.core.supervise.failures import Failure
from tunneld.profile import Keepalive, Relay, lent_files
from tunneld.profile.lent_files import credential_id
from tunneld.ssh.connect import known_hosts
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError


@pytest.fixture
async def sshd(tmp_path: Path) -> AsyncIterator[Sshd]:
    async with running_sshd(tmp_path / "relay") as server:
        yield server


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that systemd would make; nothing else helps."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


def lend(path: Path, credentials: Path, text: str = "") -> Path:
    """A copy under the credential's name; the file itself is gone, if there was one."""
    copy = credentials / credential_id(path)
    copy.write_text(text or path.read_text())
    path.unlink(missing_ok=True)
    return path


async def test_key_and_known_hosts_are_read_from_their_copies(sshd: Sshd, credentials: Path) -> None:
    """The profile goes on naming the files themselves."""
    for path in (sshd.user_key, sshd.known_hosts):
        lend(path, credentials)
    async with await dial(relay_of(sshd), Keepalive()):
        pass


async def test_the_usual_files_are_lent_too(sshd: Sshd, credentials: Path, tmp_path: Path) -> None:
    """A profile that names no file: ssh_config, known_hosts and key of whoever enabled the service."""
    ssh = tmp_path / "home/.ssh"
    lend(ssh / "id_ed25519", credentials, sshd.user_key.read_text())
    lend(ssh / "known_hosts", credentials, sshd.known_hosts.read_text())
    lend(ssh / "config", credentials, f"Host pi-relay\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n")
    async with await dial(Relay("pi-relay"), Keepalive()):
        pass


async def test_a_lent_host_key_that_is_wrong_is_mended_in_the_file_itself(sshd: Sshd, credentials: Path) -> None:
    """The advice names the file that a person edits, and that the service has a copy of it."""
    other = make_key(sshd.folder / "other")
    write_known_hosts(sshd.known_hosts, other.convert_to_public(), port=sshd.port)
    lend(sshd.known_hosts, credentials)
    with pytest.raises(SessionError) as refused:
        await dial(relay_of(sshd), Keepalive())
    assert refused.value.failure is Failure.HOST_KEY
    assert f"ssh-keygen -f {sshd.known_hosts} -R" in str(refused.value)
    assert str(refused.value).endswith("; then restart the service, which has a copy of that file")
    assert str(credentials) not in str(refused.value)


async def test_a_hidden_home_is_no_place_for_a_host_key(
    sshd: Sshd, credentials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service cannot see it, so that what is added there helps nobody: the machine's own file does."""
    everyones = tmp_path / "ssh_known_hosts"
    monkeypatch.setattr("tunneld.ssh.connect.dial.GLOBAL_FILES", (everyones,))
    monkeypatch.setattr(known_hosts, "_is_hidden", lambda file: file.is_relative_to(tmp_path / "home"))
    with pytest.raises(SessionError, match=f"ssh-keyscan -p {sshd.port} 127.0.0.1 >> {everyones}$"):
        await dial(replace(relay_of(sshd), known_hosts=None), Keepalive())


async def test_a_key_that_was_gone_at_the_start_is_said(sshd: Sshd, credentials: Path) -> None:
    """The drop-in puts a comment in its place, so that the service starts, and tells; the certificate may be gone."""
    for end in ("", "-cert.pub"):
        lend(sshd.user_key.with_name(f"{sshd.user_key.name}{end}"), credentials, lent_files.ABSENT)
    with pytest.raises(SessionError, match=f"there was no key file {sshd.user_key} when the service started") as gone:
        await dial(relay_of(sshd), Keepalive())
    assert gone.value.failure is Failure.AUTHENTICATION


async def test_a_certificate_that_was_gone_at_the_start_is_done_without(sshd: Sshd, credentials: Path) -> None:
    """The key alone may be enough."""
    lend(sshd.user_key.with_name(f"{sshd.user_key.name}-cert.pub"), credentials, lent_files.ABSENT)
    lend(sshd.user_key, credentials)
    async with await dial(relay_of(sshd), Keepalive()):
        pass


async def test_a_known_hosts_that_cannot_be_read_is_needed_only_if_no_other_helps(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's user may not read a file of the machine's; what it was lent is enough."""
    closed, read = tmp_path / "closed", Path.read_text
    closed.touch()

    def reading(path: Path, *arguments: str, **named: str) -> str:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", reading)
    monkeypatch.setattr("tunneld.ssh.connect.dial.USER_FILES", (sshd.known_hosts,))
    monkeypatch.setattr("tunneld.ssh.connect.dial.GLOBAL_FILES", (closed,))
    async with await dial(replace(relay_of(sshd), known_hosts=None), Keepalive()):
        pass
    sshd.known_hosts.unlink()
    with pytest.raises(SessionError, match=f"tunneld may not read {closed}"):
        await dial(replace(relay_of(sshd), known_hosts=None), Keepalive())
