"""What the tests of `ssh/` share: a real sshd, a server of our own, and ways to reach them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import structlog
from asyncssh.constants import MSG_CHANNEL_OPEN_CONFIRMATION
from asyncssh.packet import UInt32
from structlog.testing import capture_logs

from tests.ssh.peers import dialled, to_server
from tests.sshd import Sshd, make_key, running_sshd
from tunneld.demo.ssh_server import Server, Settings, serve
from tunneld.profile import Relay

Log = Any


@pytest.fixture
def log() -> Log:
    return structlog.get_logger()


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """What was logged."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key's file; its public half lies beside it."""
    make_key(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def public(key: Path) -> str:
    """The line of that key for authorized_keys."""
    return key.with_name("key.pub").read_text()


@pytest.fixture
async def sshd(tmp_path: Path) -> AsyncIterator[Sshd]:
    """A real OpenSSH server with its usual permissions."""
    async with running_sshd(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
async def server(public: str, tmp_path: Path) -> AsyncIterator[Server]:
    """A server of our own that allows everything."""
    async with serve(Settings(authorized_keys=public, opens=True)) as running:
        (tmp_path / "known_hosts").write_text(running.known_hosts())
        yield running


@pytest.fixture
def relay(server: Server, key: Path, tmp_path: Path) -> Relay:
    """How to dial it."""
    return to_server(server, key, tmp_path / "known_hosts")


@pytest.fixture
async def connection(relay: Relay) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A dialled connection to it."""
    async with dialled(relay) as made:
        yield made


@pytest.fixture
def confirms_oddly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own server's word for a channel that it has opened has a tail that means nothing."""

    def confirm(connection: asyncssh.SSHServerConnection, *numbers: int) -> None:
        connection.send_packet(MSG_CHANNEL_OPEN_CONFIRMATION, *map(UInt32, numbers), b"?")

    monkeypatch.setattr(asyncssh.SSHServerConnection, "send_channel_open_confirmation", confirm)
