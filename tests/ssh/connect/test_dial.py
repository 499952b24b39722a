"""Dialling real servers: who is let in, who is refused, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.ssh.peers import KEEPALIVE, agent, dialled, listening, to_server, to_sshd
from tests.sshd import Sshd, descendants, free_port, lock_key, make_key, running_sshd, standing_still, write_known_hosts
from tests.until import until
from tunneld.core.destination import Destination
from tunneld.core.supervise.failures import Failure
from tunneld.demo.ssh_server import Server, Settings, serve
from tunneld.profile import Keepalive, Relay
from tunneld.ssh.connect import dial as dial_module
from tunneld.ssh.connect.ciphers import AES_FIRST
from tunneld.ssh.connect.client import why_ended
from tunneld.ssh.connect.dial import dial, parse_jump
from tunneld.ssh.connect.failure import SessionError


async def failing(relay: Relay) -> SessionError:
    """The error of a dial that must fail."""
    with pytest.raises(SessionError) as caught:
        await dial(relay, KEEPALIVE)
    return caught.value


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, and never speak."""
    await reader.read(-1)


async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the SSH greeting and nothing more."""
    writer.write(b"SSH-2.0-Half_1.0\r\n")
    await reader.read(-1)


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close before the greeting, as sshd does beyond MaxStartups."""


async def speaks_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Something else than SSH."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\n" * 2000)
    await reader.read(-1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs that a test can wait for."""
    monkeypatch.setattr(dial_module, "CONNECT_TIMEOUT", 0.3)
    monkeypatch.setattr(dial_module, "LOGIN_TIMEOUT", 0.3)


async def test_a_real_sshd_lets_us_in(sshd: Sshd) -> None:
    """The key is accepted, the host key checked, the cipher one that this CPU is good at, nothing compressed."""
    async with dialled(to_sshd(sshd)) as connection:
        assert connection.get_extra_info("send_cipher") in AES_FIRST
        assert connection.get_extra_info("send_compression") in (None, "none")
        assert (await connection.run("echo in")).stdout == "in\n"


async def test_a_certificate_beside_the_key_is_used(tmp_path: Path) -> None:
    """KEY-cert.pub is offered by itself: a relay that trusts the CA needs no line for each host."""
    authority = make_key(tmp_path / "ca")
    async with running_sshd(tmp_path / "sshd", options=[f"TrustedUserCAKeys {tmp_path}/ca.pub"]) as sshd:
        key = make_key(tmp_path / "host")
        certificate = authority.generate_user_certificate(key, "pi-home", principals=[sshd.user])
        (tmp_path / "host-cert.pub").write_bytes(certificate.export_certificate())
        async with dialled(to_sshd(sshd, identity=(tmp_path / "host",))) as connection:
            assert not connection.is_closed()
        assert "ED25519-CERT" in await sshd.log_says("Accepted publickey")


async def test_the_keepalive_of_the_profile_notices_a_stopped_relay(sshd: Sshd) -> None:
    """A relay that is there but silent is given up after interval x (count + 1)."""
    connection = await dial(to_sshd(sshd), Keepalive(interval=0.1, count=1))
    with stopped(sshd):
        await connection.wait_closed()
    error = why_ended(connection)
    assert error.failure is Failure.NETWORK
    assert "keepalive" in str(error)


@contextlib.contextmanager
def stopped(sshd: Sshd) -> Any:
    """Its sessions hold their breath."""
    with standing_still(descendants(sshd.pid)):
        yield


async def test_unacknowledged_data_has_the_keepalives_patience(relay: Relay) -> None:
    """The kernel gives up on a dead relay when the keepalive does."""
    async with dialled(relay, Keepalive(interval=5, count=2)) as connection:
        plain = connection.get_extra_info("socket")
        assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15000


async def test_an_unknown_host_key_comes_with_the_way_to_add_it(sshd: Sshd, tmp_path: Path) -> None:
    """The fingerprint, the file and the command are in the message."""
    error = await failing(to_sshd(sshd, known_hosts=tmp_path / "empty"))
    assert error.failure is Failure.HOST_KEY
    assert sshd.host_key.get_fingerprint() in str(error)
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1 >> {tmp_path}/empty" in str(error)


async def test_a_changed_host_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    """Another key than the known one ends the dial, whatever else is right."""
    other = asyncssh.generate_private_key("ssh-ed25519")
    error = await failing(to_sshd(sshd, known_hosts=write_known_hosts(tmp_path / "known", other, port=sshd.port)))
    assert error.failure is Failure.HOST_KEY
    assert "CHANGED" in str(error)


async def test_a_host_key_of_another_kind_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    """When known_hosts has only an ECDSA key, an Ed25519 key does not do."""
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    error = await failing(to_sshd(sshd, known_hosts=write_known_hosts(tmp_path / "known", other, port=sshd.port)))
    assert error.failure is Failure.HOST_KEY


async def test_a_revoked_host_key_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    """A line @revoked beats a line that trusts."""
    line = sshd.known_hosts.read_text().strip()
    (tmp_path / "known").write_text(f"{line}\n@revoked * {line.split(' ', 1)[1]}\n")
    error = await failing(to_sshd(sshd, known_hosts=tmp_path / "known"))
    assert error.failure is Failure.HOST_KEY
    assert "revoked" in str(error)


async def test_known_hosts_with_a_bad_line_still_counts(sshd: Sshd, tmp_path: Path) -> None:
    """As with ssh, a line that nobody understands does not hide the others."""
    (tmp_path / "known").write_text("nonsense\n|1|x|y ssh-ed25519 z\n" + sshd.known_hosts.read_text())
    async with dialled(to_sshd(sshd, known_hosts=tmp_path / "known")):
        pass


async def test_a_key_that_the_relay_does_not_know_is_refused(sshd: Sshd, key: Path) -> None:
    """The message names the user and the key's fingerprint, and holds no key."""
    error = await failing(to_sshd(sshd, identity=(key,)))
    assert error.failure is Failure.AUTHENTICATION
    assert sshd.user in str(error)
    assert asyncssh.read_public_key(f"{key}.pub").get_fingerprint() in str(error)
    assert "PRIVATE" not in str(error)


async def test_too_many_keys_are_told_from_a_wrong_one(tmp_path: Path) -> None:
    """sshd hangs up after MaxAuthTries; the advice is to name the right key."""
    for name in ("one", "two", "three"):
        make_key(tmp_path / name)
    async with running_sshd(tmp_path / "sshd", options=["MaxAuthTries 2"]) as sshd:
        identity = tuple(tmp_path / name for name in ("one", "two", "three"))
        error = await failing(to_sshd(sshd, identity=identity))
    assert error.failure is Failure.AUTHENTICATION
    assert "too many keys" in str(error)


async def test_a_missing_key_file_is_said_before_anything_is_dialled(tmp_path: Path) -> None:
    """It is an OSError, but no fault of the network."""
    error = await failing(Relay(host="127.0.0.1", port=1, identity=(tmp_path / "none",), ssh_config=False))
    assert error.failure is Failure.AUTHENTICATION
    assert f"no key file {tmp_path}/none" in str(error)


async def test_a_key_file_that_is_none_is_said(tmp_path: Path) -> None:
    """The text names the file and does not repeat what is in it."""
    (tmp_path / "bad").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n")
    error = await failing(Relay(host="127.0.0.1", port=1, identity=(tmp_path / "bad",), ssh_config=False))
    assert error.failure is Failure.AUTHENTICATION
    assert str(error) == f"{tmp_path}/bad is not a private key that can be used"


async def test_a_key_with_a_passphrase_is_never_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an agent, the message says what to do."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    make_key(tmp_path / "locked")
    lock_key(tmp_path / "locked", "open sesame")
    error = await failing(Relay(host="127.0.0.1", port=1, identity=(tmp_path / "locked",), ssh_config=False))
    assert error.failure is Failure.AUTHENTICATION
    assert "ssh-add" in str(error) and "sesame" not in str(error)


async def test_the_agent_holds_a_key_with_a_passphrase(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile names the file, the agent signs; its other keys are not offered."""
    locked = make_key(tmp_path / "locked")
    make_key(tmp_path / "other")
    append(sshd.folder / "authorized_keys", locked.export_public_key().decode())
    async with agent(tmp_path, monkeypatch):
        async with asyncssh.connect_agent() as keys:
            await keys.add_keys([str(tmp_path / "other")])
            await keys.add_keys([locked])
        lock_key(tmp_path / "locked", "open sesame")
        async with dialled(to_sshd(sshd, identity=(tmp_path / "locked",))):
            pass
    assert locked.get_fingerprint() in await sshd.log_says("Accepted publickey")
    assert not any("Failed publickey" in line for line in sshd.log)


def append(path: Path, *text: str) -> None:
    with path.open("a") as file:
        file.writelines(text)


async def test_without_an_identity_the_agent_is_asked(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual way of a person's own machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with agent(tmp_path, monkeypatch):
        async with asyncssh.connect_agent() as keys:
            await keys.add_keys([str(sshd.user_key)])
        async with dialled(to_sshd(sshd, identity=())):
            pass


async def test_without_any_key_the_message_says_so(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to offer is not the same as the wrong key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    error = await failing(to_sshd(sshd, identity=()))
    assert error.failure is Failure.AUTHENTICATION
    assert "none to offer" in str(error)


async def test_a_closed_port_is_a_class_of_its_own(tmp_path: Path) -> None:
    """Nothing listens: another class than silence."""
    error = await failing(Relay(host="127.0.0.1", port=free_port(), ssh_config=False, known_hosts=tmp_path / "none"))
    assert error.failure is Failure.CLOSED
    assert "nothing listens" in str(error)


async def test_a_name_without_address_is_a_network_failure() -> None:
    """`.invalid` never resolves (RFC 2606)."""
    error = await failing(Relay(host="relay.invalid", ssh_config=False))
    assert error.failure is Failure.NETWORK
    assert "relay.invalid" in str(error)


@pytest.mark.parametrize(
    ("peer", "failure", "words"),
    [
        (mute, Failure.REFUSED, "does not greet"),
        (greets, Failure.REFUSED, "does not finish the login"),
        (hangs_up, Failure.REFUSED, "before it greeted"),
        (speaks_http, Failure.REFUSED, "no SSH server"),
    ],
)
@pytest.mark.usefixtures("impatient")
async def test_a_half_dead_relay_is_told_by_how_far_it_gets(peer: Any, failure: Failure, words: str) -> None:
    """Accepts and never speaks; greets and nothing more; hangs up at once; speaks something else."""
    async with listening(peer) as port:
        error = await failing(Relay(host="127.0.0.1", port=port, ssh_config=False))
    assert error.failure is failure
    assert words in str(error)


@pytest.mark.usefixtures("impatient")
async def test_an_address_that_swallows_everything_times_out() -> None:
    """A listener whose queue is full drops SYNs, as a silent firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as clients:
        address = full.getsockname()
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        error = await failing(Relay(host="127.0.0.1", port=address[1], ssh_config=False))
    assert error.failure is Failure.NETWORK
    assert "does not answer within 0.3 s" in str(error)


async def test_a_bad_cipher_in_ssh_config_is_said(sshd: Sshd, tmp_path: Path) -> None:
    """A configuration that cannot work is no network failure."""
    config = tmp_path / "config"
    config.write_text("Host *\n  Port none\n")
    error = await failing(to_sshd(sshd, port=None, ssh_config=config))
    assert error.failure is Failure.PROTOCOL
    assert f"{config} line 2" in str(error)


async def test_no_cipher_in_common_is_a_protocol_failure(tmp_path: Path) -> None:
    """The message lists what both sides have."""
    config = tmp_path / "config"
    config.write_text("Host *\n  Ciphers aes128-ctr\n")
    async with running_sshd(tmp_path / "sshd", options=["Ciphers aes256-ctr"]) as sshd:
        error = await failing(to_sshd(sshd, ssh_config=config))
    assert error.failure is Failure.PROTOCOL
    assert "aes256-ctr" in str(error)


async def test_ssh_configs_ciphers_win(sshd: Sshd, tmp_path: Path) -> None:
    """What the user wrote for ssh holds for the tunnel."""
    config = tmp_path / "config"
    config.write_text("Host *\n  Ciphers aes256-ctr\n")
    async with dialled(to_sshd(sshd, ssh_config=config)) as connection:
        assert connection.get_extra_info("send_cipher") == "aes256-ctr"


async def test_an_alias_of_ssh_config_is_enough(sshd: Sshd, tmp_path: Path) -> None:
    """HostName, Port, User, IdentityFile and UserKnownHostsFile all come from there."""
    config = tmp_path / "config"
    config.write_text(
        f"Host pi-relay\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {tmp_path}/missing\n  IdentityFile {sshd.user_key}\n  UserKnownHostsFile {sshd.known_hosts}\n"
    )
    async with dialled(Relay(host="pi-relay", ssh_config=config)) as connection:
        assert connection.get_extra_info("username") == sshd.user


@pytest.mark.parametrize("also", ["", "GlobalKnownHostsFile none"])
async def test_user_known_hosts_none_does_not_turn_the_check_off(also: str, sshd: Sshd, tmp_path: Path) -> None:
    """asyncssh alone would trust every key then."""
    config = tmp_path / "config"
    config.write_text(f"Host *\n  UserKnownHostsFile none\n  {also}\n")
    error = await failing(to_sshd(sshd, known_hosts=None, ssh_config=config))
    assert error.failure is Failure.HOST_KEY


async def test_ssh_config_forwards_no_agent(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay's administrator could log in with it elsewhere."""
    config = tmp_path / "config"
    config.write_text("Host *\n  ForwardAgent yes\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with agent(tmp_path, monkeypatch):
        async with asyncssh.connect_agent() as keys:
            await keys.add_keys([str(sshd.user_key)])
        async with dialled(to_sshd(sshd, identity=(), ssh_config=config)) as connection:
            assert (await connection.run("echo ${SSH_AUTH_SOCK:-none}")).stdout == "none\n"


async def test_a_proxy_command_makes_the_connection(sshd: Sshd, tmp_path: Path) -> None:
    """Whatever the address means to it."""
    config, proxy = tmp_path / "config", tmp_path / "proxy.py"
    proxy.write_text(
        "import os, socket, sys, threading\n"
        "open(sys.argv[0] + '.pid', 'w').write(str(os.getpid()))\n"
        "there = socket.create_connection(('127.0.0.1', int(sys.argv[2])))\n"
        "def back():\n"
        "    while data := there.recv(65536):\n"
        "        os.write(1, data)\n"
        "threading.Thread(target=back, daemon=True).start()\n"
        "while data := os.read(0, 65536):\n"
        "    there.sendall(data)\n"
    )
    config.write_text(f"Host relay.invalid\n  ProxyCommand {sys.executable} {proxy} %h %p\n")
    known = write_known_hosts(tmp_path / "known", sshd.host_key, port=sshd.port, address="relay.invalid")
    async with dialled(to_sshd(sshd, host="relay.invalid", known_hosts=known, ssh_config=config)) as connection:
        assert (await connection.run("echo in")).stdout == "in\n"
    await until(lambda: not Path(f"/proc/{Path(f'{proxy}.pid').read_text()}").exists(), what="the proxy has ended")


async def test_without_ssh_config_the_users_file_is_not_read(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ssh_config = false` means just the profile."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  HostName 192.0.2.1\n  Ciphers aes256-ctr\n")
    async with dialled(to_sshd(sshd)) as connection:
        assert connection.get_extra_info("send_cipher") != "aes256-ctr"


# Jump hosts


@contextlib.asynccontextmanager
async def chain(length: int, key: Path, public: str, known_hosts: Path) -> AsyncIterator[list[Server]]:
    """Jump hosts of our own, and a relay behind them; all in one known_hosts."""
    async with contextlib.AsyncExitStack() as stack:
        settings = Settings(authorized_keys=public, opens=True)
        servers = [await stack.enter_async_context(serve(settings)) for _ in range(length + 1)]
        append(known_hosts, *(server.known_hosts() for server in servers))
        yield servers


@pytest.mark.parametrize("length", [1, 2])
async def test_a_relay_behind_jump_hosts(length: int, key: Path, public: str, tmp_path: Path) -> None:
    """Each is logged in to through the one before it, and all close with the connection."""
    async with chain(length, key, public, tmp_path / "known") as servers:
        jump = tuple(f"127.0.0.1:{server.port}" for server in servers[:-1])
        relay = replace(to_server(servers[-1], key, tmp_path / "known"), jump=jump)
        async with dialled(relay) as connection:
            assert [len(server.connections) for server in servers] == [1] * (length + 1)
            assert connection.get_extra_info("peername")[0] != "127.0.0.1"
        await until(lambda: not any(server.connections for server in servers))


async def test_proxy_jump_of_an_alias(key: Path, public: str, tmp_path: Path) -> None:
    """A chain that only ssh_config knows, one alias behind another."""
    async with chain(2, key, public, tmp_path / "known") as servers:
        names = ["outer", "inner", "relay"]
        config = tmp_path / "config"
        config.write_text(
            f"Host *\n  HostName 127.0.0.1\n  IdentityFile {key}\n  UserKnownHostsFile {tmp_path}/known\n"
            + "".join(f"Host {name}\n  Port {server.port}\n" for name, server in zip(names, servers, strict=True))
            + "Host inner\n  ProxyJump outer\nHost relay\n  ProxyJump inner\n"
        )
        async with dialled(Relay(host="relay", ssh_config=config)):
            assert all(len(server.connections) == 1 for server in servers)
        await until(lambda: not any(server.connections for server in servers))


async def test_a_proxy_jump_that_leads_back_ends(tmp_path: Path) -> None:
    """Two aliases that name each other are a mistake, not an endless dial."""
    config = tmp_path / "config"
    config.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    error = await failing(Relay(host="a", ssh_config=config))
    assert "loop" in str(error)


@pytest.mark.parametrize(("length", "arrives"), [(2, True), (3, False)])
async def test_a_chain_has_its_bound(
    length: int, arrives: bool, key: Path, public: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many jump hosts may be passed, and not one more; whoever was reached is let go."""
    monkeypatch.setattr(dial_module, "MOST_JUMPS", 2)
    async with chain(length, key, public, tmp_path / "known") as servers:
        jump = tuple(f"127.0.0.1:{server.port}" for server in servers[:-1])
        relay = replace(to_server(servers[-1], key, tmp_path / "known"), jump=jump)
        if arrives:
            async with dialled(relay):
                pass
        else:
            error = await failing(relay)
            assert f"more than 2 jump hosts, {jump[2]} the last" in str(error)
        await until(lambda: not any(server.connections for server in servers))


async def test_a_jump_host_keeps_the_key_that_ssh_config_has_for_it(key: Path, public: str, tmp_path: Path) -> None:
    """relay.identity is the relay's, and is offered to jump hosts that have no key of their own."""
    make_key(tmp_path / "jump_key")
    jump_public = (tmp_path / "jump_key.pub").read_text()
    async with (
        serve(Settings(authorized_keys=jump_public, opens=True)) as jump,
        serve(Settings(authorized_keys=public)) as server,
    ):
        append(tmp_path / "known", jump.known_hosts(), server.known_hosts())
        (tmp_path / "config").write_text(
            f"Host bastion\n  HostName 127.0.0.1\n  Port {jump.port}\n  IdentityFile {tmp_path}/jump_key\n"
        )
        relay = to_server(server, key, tmp_path / "known")
        async with dialled(replace(relay, jump=("bastion",), ssh_config=tmp_path / "config")):
            pass
        error = await failing(replace(relay, jump=(f"127.0.0.1:{jump.port}",)))
        assert error.failure is Failure.AUTHENTICATION
        assert f"127.0.0.1:{jump.port} denied" in str(error)


async def test_a_jump_hosts_key_is_checked_as_well(key: Path, public: str, tmp_path: Path) -> None:
    """A known relay behind an unknown jump host is not dialled."""
    async with chain(1, key, public, tmp_path / "known") as (jump, server):
        (tmp_path / "known").write_text(server.known_hosts())
        relay = replace(to_server(server, key, tmp_path / "known"), jump=(f"127.0.0.1:{jump.port}",))
        error = await failing(relay)
        assert error.failure is Failure.HOST_KEY
        assert f"127.0.0.1:{jump.port}" in str(error)


async def test_a_relays_key_is_checked_through_a_jump_host(key: Path, public: str, tmp_path: Path) -> None:
    """A jump host cannot play the relay; the advice is to look through it, and the jump is closed."""
    async with chain(1, key, public, tmp_path / "known") as (jump, server):
        (tmp_path / "known").write_text(jump.known_hosts())
        relay = replace(to_server(server, key, tmp_path / "known"), jump=(f"127.0.0.1:{jump.port}",))
        error = await failing(relay)
        assert error.failure is Failure.HOST_KEY
        assert f"ssh -J 127.0.0.1:{jump.port}" in str(error)
        await until(lambda: not jump.connections)


async def test_a_jump_host_that_cannot_reach_the_relay_says_so(server: Server, relay: Relay) -> None:
    """The relay's port is closed, seen from the jump host."""
    error = await failing(replace(relay, port=free_port(), jump=(f"127.0.0.1:{server.port}",)))
    assert error.failure is Failure.NETWORK
    assert "cannot reach" in str(error)
    await until(lambda: not server.connections)


async def test_a_jump_host_that_forbids_it_says_so(key: Path, public: str, tmp_path: Path) -> None:
    """AllowTcpForwarding no, as our own server plays it."""
    async with serve(Settings(authorized_keys=public, opens=False)) as jump:
        (tmp_path / "known").write_text(jump.known_hosts())
        relay = replace(to_server(jump, key, tmp_path / "known"), jump=(f"127.0.0.1:{jump.port}",), port=1)
        error = await failing(relay)
        assert error.failure is Failure.REFUSED
        assert "does not allow connections" in str(error)


@pytest.mark.usefixtures("impatient")
async def test_a_mute_relay_behind_a_jump_host_times_out(server: Server, relay: Relay) -> None:
    """The time-outs count behind a jump host too, and the jump host is let go."""
    async with listening(mute) as port:
        error = await failing(replace(relay, port=port, jump=(f"127.0.0.1:{server.port}",)))
        assert "does not greet" in str(error)
        await until(lambda: not server.connections)


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("bastion", Destination(None, "bastion", None)),
        ("me@bastion:2022", Destination("me", "bastion", 2022)),
        ("[2001:db8::1]:22", Destination(None, "2001:db8::1", 22)),
        ("ssh://me@bastion:22/", Destination("me", "bastion", 22)),
        ("me@home@bastion", Destination("me@home", "bastion", None)),
    ],
)
def test_jump_hosts_are_written_as_ssh_takes_them(text: str, destination: Destination) -> None:
    """[USER@]HOST[:PORT], and the URI form."""
    assert parse_jump(text) == destination


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no host"),
        ("me@", "names no host"),
        ("a:b:c", "names no host"),
        ("host:port", "'port' is not a port"),
        ("host:0", "'0' is not a port: write a number from 1 to 65535"),
        ("host:99999", "'99999' is not a port: write a number from 1 to 65535"),
    ],
)
def test_what_is_no_jump_host_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    """It names what is wrong, and what would be right, before anything is dialled."""
    with pytest.raises(SessionError, match=sentence) as refused:
        parse_jump(text)
    assert refused.value.failure is Failure.PROTOCOL
    assert f"the jump host {text!r}" in str(refused.value)


# Cancellation


async def test_a_dial_can_be_cancelled_at_any_point(key: Path, public: str, tmp_path: Path) -> None:
    """Cancelled after each turn of the event loop in turn: the cancellation arrives, and no connection stays."""
    async with chain(1, key, public, tmp_path / "known") as servers:
        jump = (f"127.0.0.1:{servers[0].port}",)
        relay = replace(to_server(servers[1], key, tmp_path / "known"), jump=jump)
        before = open_sockets()
        turns = 1
        while not await cancelled_after(turns, relay):
            turns += max(1, turns // 8)
            await until(lambda: not any(server.connections for server in servers))
        assert turns > 20
        await until(lambda: not any(server.connections for server in servers))
        gc.collect()
        await until(lambda: open_sockets() <= before)


async def cancelled_after(turns: int, relay: Relay) -> bool:
    """Dial, cancel after so many turns of the loop; whether the dial was over by then."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(dial(relay, KEEPALIVE))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            connection = await task
            connection.close()
            await connection.wait_closed()
            return True
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            connection = await task
            raise AssertionError(f"the cancellation after {turns} turns was swallowed")
    return False


def open_sockets() -> int:
    """How many sockets this process has."""
    found = 0
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{entry}").startswith("socket:")
    return found
