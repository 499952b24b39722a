"""A login in few round trips: what is sent, in which order, and that everything else still logs in as before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.ssh.peers import KEEPALIVE, agent, dialled, to_server, to_sshd
from tests.sshd import Sshd, make_key, running_sshd
from tests.until import until
from tunneld.demo.ssh_server import Settings, serve
from tunneld.profile import Relay
from tunneld.ssh.connect import fast_login
from tunneld.ssh.connect.dial import dial
from tunneld.ssh.connect.failure import SessionError

MSG_SERVICE_ACCEPT = 6  # RFC 4253, section 12
MSG_USERAUTH_REQUEST = 50  # RFC 4252, section 6

DETAILED = ["LogLevel DEBUG1"]


def asked(sshd: Sshd) -> list[str]:
    """The ways to log in that the relay was asked for, in order."""
    return [line.rsplit(" method ", 1)[1].split()[0] for line in sshd.log if " method " in line]


def questions(sshd: Sshd) -> int:
    """How often it was asked whether a key would do."""
    return sum("Postponed publickey" in line for line in sshd.log)


async def test_one_key_is_one_request(tmp_path: Path) -> None:
    """Neither "without a key?" nor "would this key do?" is asked."""
    async with running_sshd(tmp_path / "sshd", options=DETAILED) as sshd, dialled(to_sshd(sshd)):
        await sshd.log_says("Accepted publickey")
        assert asked(sshd) == ["publickey"]
        assert questions(sshd) == 0


async def test_the_second_key_is_asked_for(tmp_path: Path, key: Path) -> None:
    """A refused first key is counted once, and the right one gets its turn, before others."""
    make_key(tmp_path / "third")
    async with (
        running_sshd(tmp_path / "sshd", options=DETAILED) as sshd,
        dialled(to_sshd(sshd, identity=(key, sshd.user_key, tmp_path / "third"))),
    ):
        await sshd.log_says("Accepted publickey")
        assert asked(sshd) == ["publickey"] * 3
        assert questions(sshd) == 1


async def test_an_rsa_key_signs_as_the_relay_can_verify(tmp_path: Path) -> None:
    """It waits for the relay's list of algorithms, but asks no question."""
    rsa = asyncssh.generate_private_key("ssh-rsa")
    (tmp_path / "rsa").write_bytes(rsa.export_private_key())
    async with running_sshd(tmp_path / "sshd", options=DETAILED) as sshd:
        (sshd.folder / "authorized_keys").write_bytes(rsa.export_public_key())
        async with dialled(to_sshd(sshd, identity=(tmp_path / "rsa",))):
            await sshd.log_says("Accepted publickey")
            assert asked(sshd) == ["publickey"]


async def test_a_certificate_logs_in_at_once(tmp_path: Path) -> None:
    """It comes before its key, and is signed for like one."""
    authority = make_key(tmp_path / "ca")
    options = [*DETAILED, f"TrustedUserCAKeys {tmp_path}/ca.pub"]
    async with running_sshd(tmp_path / "sshd", options=options) as sshd:
        key = make_key(tmp_path / "host")
        certificate = authority.generate_user_certificate(key, "pi-home", principals=[sshd.user])
        (tmp_path / "host-cert.pub").write_bytes(certificate.export_certificate())
        async with dialled(to_sshd(sshd, identity=(tmp_path / "host",))):
            assert "ED25519-CERT" in await sshd.log_says("Accepted publickey")
            assert asked(sshd) == ["publickey"]


async def test_a_relay_that_wants_two_keys_gets_them(tmp_path: Path, key: Path, public: str) -> None:
    """A partial success goes on with the next key."""
    options = [*DETAILED, "AuthenticationMethods publickey,publickey"]
    async with running_sshd(tmp_path / "sshd", options=options) as sshd:
        with (sshd.folder / "authorized_keys").open("a") as allowed:
            allowed.write(public)
        async with dialled(to_sshd(sshd, identity=(key, sshd.user_key))):
            await sshd.log_says("Accepted publickey")


async def test_an_agent_is_asked_before_it_signs(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may want its owner's consent for each signature."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with agent(tmp_path, monkeypatch):
        async with asyncssh.connect_agent() as keys:
            await keys.add_keys([str(sshd.user_key)])
        async with dialled(to_sshd(sshd, identity=())):
            await sshd.log_says("Accepted publickey")
            assert questions(sshd) == 1


class Invitation:
    """Our server's word that a login may begin, which it holds back until told."""

    def __init__(self) -> None:
        self.login_requests = 0  # that our side has sent
        self._send: Callable[[], None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether our side waits for it, or could."""
        return self._send is not None

    def hold(self, send: Callable[[], None]) -> None:
        self._send = send

    def give(self) -> None:
        assert self._send is not None
        self._send()


@pytest.fixture
def invitation(monkeypatch: pytest.MonkeyPatch) -> Invitation:
    """Held back by each server of ours, until the test gives it."""
    made = Invitation()
    answer, ask = asyncssh.SSHServerConnection.send_packet, asyncssh.SSHClientConnection.send_packet

    def answers(connection: asyncssh.SSHServerConnection, kind: int, *args: bytes, **settings: Any) -> None:
        if kind == MSG_SERVICE_ACCEPT:
            made.hold(lambda: answer(connection, kind, *args, **settings))
        else:
            answer(connection, kind, *args, **settings)

    def asks(connection: asyncssh.SSHClientConnection, kind: int, *args: bytes, **settings: Any) -> None:
        made.login_requests += kind == MSG_USERAUTH_REQUEST
        ask(connection, kind, *args, **settings)

    monkeypatch.setattr(asyncssh.SSHServerConnection, "send_packet", answers)
    monkeypatch.setattr(asyncssh.SSHClientConnection, "send_packet", asks)
    return made


async def requests_before(invitation: Invitation, relay: Relay) -> int:
    """How many logins our side asks for before it is invited; afterwards it gets in."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        dialling = tasks.create_task(dial(relay, KEEPALIVE))
        await until(lambda: invitation.is_held)
        for _ in range(100):  # turns of the event loop, in which our side says all that it has to say
            await asyncio.sleep(0)
        before = invitation.login_requests
        invitation.give()
        connection = await dialling
    connection.close()
    await connection.wait_closed()
    return before


async def test_the_login_does_not_wait_to_be_invited(invitation: Invitation, relay: Relay) -> None:
    """The request for the service and the signed login leave together."""
    assert await requests_before(invitation, relay) == 1


async def test_an_rsa_key_waits_for_the_relays_list(invitation: Invitation, tmp_path: Path) -> None:
    """The list of algorithms comes, at the latest, before the invitation."""
    rsa = asyncssh.generate_private_key("ssh-rsa")
    (tmp_path / "rsa").write_bytes(rsa.export_private_key())
    async with serve(Settings(authorized_keys=rsa.export_public_key().decode(), opens=True)) as server:
        (tmp_path / "known_hosts").write_text(server.known_hosts())
        relay = to_server(server, tmp_path / "rsa", tmp_path / "known_hosts")
        assert await requests_before(invitation, relay) == 0


async def test_a_server_that_was_not_tried_is_waited_for(
    invitation: Invitation, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might not read on."""
    monkeypatch.setattr(fast_login, "READ_ON", ("SSH-2.0-Other_",))
    assert await requests_before(invitation, relay) == 0


async def test_a_server_that_was_not_tried_lets_us_in(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the usual order."""
    monkeypatch.setattr(fast_login, "READ_ON", ("SSH-2.0-Other_",))
    async with dialled(relay) as connection:
        assert not connection.is_closed()


async def test_a_refused_key_is_an_error_of_authentication(tmp_path: Path, key: Path) -> None:
    """As it is in asyncssh's own order."""
    async with running_sshd(tmp_path / "sshd", options=DETAILED) as sshd:
        with pytest.raises(SessionError, match="denied"):
            await dial(to_sshd(sshd, identity=(key,)), KEEPALIVE)
        assert asked(sshd) == ["publickey"]
