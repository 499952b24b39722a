"""Which packets are sent beside those that say something, by the cipher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.ssh.peers import dialled, to_sshd
from tests.sshd import running_sshd
from tunneld.ssh.connect.no_ignores import MSG_IGNORE, is_aead


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The type of each packet that our side has sent."""
    types: list[int] = []
    send = asyncssh.SSHClientConnection.send_packet

    def send_packet(connection: asyncssh.SSHClientConnection, pkttype: int, *args: bytes, handler: Any = None) -> None:
        types.append(pkttype)
        send(connection, pkttype, *args, handler=handler)

    monkeypatch.setattr(asyncssh.SSHClientConnection, "send_packet", send_packet)
    return types


@pytest.mark.parametrize(
    ("cipher", "protected"),
    [
        ("aes256-cbc", True),
        ("aes256-ctr", True),
        ("aes128-gcm@openssh.com", False),
        ("aes256-gcm@openssh.com", False),
        ("chacha20-poly1305@openssh.com", False),
    ],
)
async def test_only_a_cipher_that_needs_no_protection_goes_without(
    cipher: str, protected: bool, sent: list[int], tmp_path: Path
) -> None:
    """In CBC mode the packet before each other one hides its IV (RFC 4251, section 9.3.1): there it must be sent."""
    (tmp_path / "config").write_text(f"Host *\n  Ciphers {cipher}\n")
    async with (
        running_sshd(tmp_path / "sshd", options=[f"Ciphers {cipher}"]) as sshd,
        dialled(to_sshd(sshd, ssh_config=tmp_path / "config")) as connection,
    ):
        assert connection.get_extra_info("send_cipher") == cipher
        sent.clear()
        assert (await connection.run("echo here")).stdout == "here\n"
        others = [each for each in sent if each != MSG_IGNORE]
        assert sent.count(MSG_IGNORE) == (len(others) if protected else 0)
        assert others


@pytest.mark.parametrize("cipher", [None, "", "none", "aes128-cbc", "3des-cbc", "aes128-ctr", b"aes128-gcm"])
def test_a_cipher_that_is_not_known_to_need_nothing_is_protected(cipher: object) -> None:
    """What asyncssh may say when it knows no cipher, or one that nobody has thought of."""
    assert not is_aead(cipher)
