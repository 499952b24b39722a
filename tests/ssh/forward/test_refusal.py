"""Why a listener was refused: by what sshd says beside its one bit, and by what this host's kernel says."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import asyncssh
import pytest
import structlog

from tests.ssh.peers import dialled, to_sshd
from tests.sshd import running_sshd
from tests.until import until
from tunneld.core.supervise.failures import Failure
from tunneld.profile import Forward, TcpAddress
from tunneld.ssh.connect.client import client_of
from tunneld.ssh.connect.failure import SessionError
from tunneld.ssh.connect.hop import Hop
from tunneld.ssh.forward.forward import open_forward
from tunneld.ssh.forward.refusal import refused_here, refused_there

RELAY = Hop("relay", 2022, "tunnel")
LISTEN = "127.0.0.1:2222"

# What OpenSSH 9.2 sends to a client that logs in with a key whose line in authorized_keys has options.
LOGIN = [
    "/home/tunnel/.ssh/authorized_keys:1: key options: agent-forwarding port-forwarding pty user-rc x11-forwarding",
    '/home/tunnel/.ssh/authorized_keys:1: key options: permitlisten="localhost:2222" port-forwarding',
    "/home/tunnel/.ssh/authorized_keys:1: key options: agent-forwarding command pty",
]
FORBIDDEN = "Server has disabled port forwarding."


def test_silence_means_that_the_port_is_taken() -> None:
    """sshd gives a reason only for what its configuration forbids."""
    error = refused_there(LISTEN, [], RELAY)
    assert error.failure is Failure.FORWARD_BUSY
    assert str(error) == "relay:2022 cannot listen on 127.0.0.1:2222: it is taken"


@pytest.mark.parametrize("message", LOGIN)
def test_a_message_of_the_login_is_no_reason(message: str) -> None:
    """It tells what the key may do, and comes late on a slow relay: the port is busy all the same."""
    assert refused_there(LISTEN, [message], RELAY).failure is Failure.FORWARD_BUSY


@pytest.mark.parametrize(
    "reason",
    [
        FORBIDDEN,
        "Server has disabled streamlocal forwarding.",
        "Remote forwarding is administratively prohibited",
        "permitlisten: not for you",
        "Denied by policy",
    ],
)
def test_a_reason_is_told_from_the_login(reason: str) -> None:
    """Wherever it stands among other messages; the user reads it, and which settings to look at."""
    error = refused_there(LISTEN, [*LOGIN, "Authentication done", reason, *LOGIN], RELAY)
    assert error.failure is Failure.FORWARD_FORBIDDEN
    assert str(error).startswith(f"relay:2022 does not allow tunnel to listen on {LISTEN} ({reason}): see Allow")


def test_a_reason_cannot_write_on_the_terminal() -> None:
    """It is the relay's own text."""
    error = refused_there(LISTEN, [f"\x1b[2J{FORBIDDEN}\n" + "x" * 1000], RELAY)
    assert "\x1b" not in str(error) and "\n" not in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (errno.EADDRINUSE, Failure.FORWARD_BUSY),
        (errno.EACCES, Failure.FORWARD_FORBIDDEN),
        (errno.EPERM, Failure.FORWARD_FORBIDDEN),
        (errno.EADDRNOTAVAIL, Failure.FORWARD_FORBIDDEN),
        (errno.ENOENT, Failure.FORWARD_FORBIDDEN),
        (errno.ENOTDIR, Failure.FORWARD_FORBIDDEN),
        (errno.EINVAL, Failure.FORWARD_FORBIDDEN),
        (socket.EAI_NONAME, Failure.FORWARD_FORBIDDEN),
        (errno.EMFILE, Failure.NETWORK),
    ],
)
def test_this_hosts_own_refusals_have_their_classes(number: int, failure: Failure) -> None:
    """A taken port may become free; a wrong address does not; and too few descriptors are no fault of the port."""
    error = refused_here(LISTEN, OSError(number, os.strerror(abs(number))), RELAY)
    assert error.failure is failure
    assert "this host" in str(error) or "LimitNOFILE" in str(error)


def test_an_error_without_a_number_is_a_wrong_address() -> None:
    """asyncio makes such errors of several others."""
    error = refused_here(LISTEN, OSError("could not bind on any address"), RELAY)
    assert error.failure is Failure.FORWARD_FORBIDDEN
    assert str(error).endswith(": could not bind on any address")


async def test_what_a_real_login_leaves_behind_is_no_reason(tmp_path: Path) -> None:
    """sshd says at the login what the key may do, and nothing with a port that is taken."""
    options = 'restrict,port-forwarding,permitlisten="*:*"'
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with (
            running_sshd(tmp_path / "sshd", key_options=options) as sshd,
            dialled(to_sshd(sshd)) as connection,
        ):
            await until(lambda: any("key options" in each for each in client_of(connection).debug_messages))
            error = await refusal(connection, taken.getsockname()[1])
    assert error.failure is Failure.FORWARD_BUSY


async def refusal(connection: asyncssh.SSHClientConnection, port: int) -> SessionError:
    wanted = Forward(TcpAddress("127.0.0.1", port), TcpAddress("127.0.0.1", 22))
    with pytest.raises(SessionError) as caught:
        await open_forward(connection, wanted, structlog.get_logger())
    return caught.value
