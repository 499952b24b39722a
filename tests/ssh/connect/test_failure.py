"""Failures as a table: what asyncssh or the system raises, what it means, and what the user reads."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import asyncssh
import pytest
from asyncssh.packet import PacketDecodeError

from tunneld.core.printable import LONGEST_QUOTE
from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.failure import NUMBERS, ROWS, SessionError, classify
from tunneld.ssh.connect.hop import Hop, Phase

C, G, L, R = Phase.CONNECTING, Phase.GREETING, Phase.LOGIN, Phase.RUNNING


def system(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), name)


CASES: list[tuple[BaseException, Phase, Failure, str]] = [
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), C, Failure.NETWORK, "no address for relay"),
    (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), C, Failure.NETWORK, "no name server"),
    (system(errno.ECONNREFUSED), C, Failure.CLOSED, "nothing listens at relay.example:2022"),
    (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 101] x"), C, Failure.CLOSED, "nothing"),
    (system(errno.ENETUNREACH), C, Failure.NETWORK, "this machine's network"),
    (system(errno.EHOSTUNREACH), C, Failure.NETWORK, "unreachable"),
    (system(errno.ENETDOWN), C, Failure.NETWORK, "is down"),
    (system(errno.EHOSTDOWN), C, Failure.NETWORK, "is down"),
    (system(errno.EADDRNOTAVAIL), C, Failure.NETWORK, "no fitting address"),
    (system(errno.ETIMEDOUT), R, Failure.NETWORK, "no longer answers"),
    (system(errno.ECONNRESET), R, Failure.NETWORK, "was reset"),
    (system(errno.ECONNRESET), G, Failure.REFUSED, "MaxStartups"),
    (system(errno.ECONNABORTED), R, Failure.NETWORK, "aborted"),
    (system(errno.EPIPE), R, Failure.NETWORK, "lost"),
    (system(errno.EMFILE), C, Failure.NETWORK, "LimitNOFILE"),
    (system(errno.ENFILE), C, Failure.NETWORK, "open files"),
    (system(errno.EPERM), C, Failure.NETWORK, "firewall"),
    (system(errno.EACCES), C, Failure.NETWORK, "does not allow"),
    (system(errno.EACCES, "/k"), C, Failure.AUTHENTICATION, "may not read /k"),
    (system(errno.ENOENT, "/k"), C, Failure.AUTHENTICATION, "no file /k"),
    (system(errno.EISDIR, "/k"), C, Failure.AUTHENTICATION, "/k is a folder"),
    (system(errno.EIO), R, Failure.NETWORK, "failed: Input/output error"),
    (TimeoutError(), C, Failure.NETWORK, "does not answer within 15 s"),
    (TimeoutError(), G, Failure.REFUSED, "does not greet within 15 s"),
    (TimeoutError(), L, Failure.REFUSED, "does not finish the login of tunnel"),
    (asyncssh.ConnectionLost("Login timeout expired"), L, Failure.REFUSED, "does not finish the login"),
    (asyncssh.ConnectionLost("Server not responding to keepalive"), R, Failure.NETWORK, "answered no keepalive"),
    (asyncssh.ConnectionLost("Connection lost"), G, Failure.REFUSED, "MaxStartups"),
    (asyncssh.ConnectionLost("Connection lost"), L, Failure.REFUSED, "during the login"),
    (asyncssh.ConnectionLost("Connection lost"), R, Failure.NETWORK, "is lost"),
    (asyncssh.HostKeyNotVerifiable("Host key is not trusted for host r"), L, Failure.HOST_KEY, "is unknown"),
    (asyncssh.HostKeyNotVerifiable("Host key is revoked for host r"), L, Failure.HOST_KEY, "revoked"),
    (asyncssh.HostKeyNotVerifiable("Host CA key is not trusted for host r"), L, Failure.HOST_KEY, "@cert-authority"),
    (asyncssh.HostKeyNotVerifiable("Certificate expired for host r"), L, Failure.HOST_KEY, "not acceptable"),
    (asyncssh.PermissionDenied("Permission denied for user tunnel"), L, Failure.AUTHENTICATION, "authorized_keys"),
    (asyncssh.IllegalUserName("no"), L, Failure.AUTHENTICATION, "user name tunnel"),
    (asyncssh.ProtocolError("Too many authentication failures"), L, Failure.AUTHENTICATION, "too many keys"),
    (asyncssh.KeyImportError("Passphrase must be specified"), C, Failure.AUTHENTICATION, "ssh-add"),
    (asyncssh.KeyImportError("Invalid private key"), C, Failure.AUTHENTICATION, "cannot be read"),
    (asyncssh.KeyEncryptionError("Unknown cipher"), C, Failure.AUTHENTICATION, "cannot be decrypted"),
    (asyncssh.KeyExchangeFailed("No matching server host key algorithm found"), L, Failure.HOST_KEY, "no host key of"),
    (asyncssh.KeyExchangeFailed("No matching encryption algorithm found"), L, Failure.PROTOCOL, "no method in common"),
    (asyncssh.ProtocolNotSupported("Unsupported SSH version"), G, Failure.PROTOCOL, "another SSH version"),
    (asyncssh.ProtocolError("Too many banner lines"), G, Failure.REFUSED, "no SSH server"),
    (asyncssh.ProtocolError("Invalid packet"), R, Failure.PROTOCOL, "broke the SSH protocol"),
    (PacketDecodeError("Incomplete packet"), R, Failure.PROTOCOL, "cannot be read: Incomplete packet"),
    (asyncssh.MACError("MAC verification failed"), R, Failure.PROTOCOL, "damaged"),
    (asyncssh.CompressionError("bad"), R, Failure.PROTOCOL, "does not decompress"),
    (asyncssh.ServiceNotAvailable("no"), L, Failure.REFUSED, "no login"),
    (asyncssh.DisconnectError(12, "Too many connections"), L, Failure.REFUSED, "too many connections"),
    (asyncssh.DisconnectError(11, "bye"), R, Failure.NETWORK, "ended the connection: bye"),
    (asyncssh.ChannelOpenError(1, "administratively prohibited"), C, Failure.REFUSED, "does not allow"),
    (asyncssh.ChannelOpenError(2, "Connection refused"), C, Failure.NETWORK, "bastion cannot reach"),
    (asyncssh.ChannelOpenError(2, "SSH connection closed"), C, Failure.NETWORK, "jump host bastion is lost"),
    (asyncssh.ChannelListenError("Failed to create listener"), R, Failure.FORWARD_BUSY, "refuses to listen"),
    (asyncssh.ConfigParseError("/c line 3: Invalid Port"), C, Failure.PROTOCOL, "/c line 3"),
    (ValueError('"x" matches no valid encryption algorithms'), C, Failure.PROTOCOL, "settings are not usable"),
    (LookupError("what?"), R, Failure.PROTOCOL, "unexpected LookupError"),
]


def hop(phase: Phase) -> Hop:
    return Hop(
        "relay.example", 2022, "tunnel", via="bastion", phase=phase, time_limit=15, offered_keys=("ED25519 SHA256:x",),
        known_hosts="/home/pi/.ssh/known_hosts", shown_key="ssh-ed25519 SHA256:y",
    )  # fmt: skip


@pytest.mark.parametrize(("error", "phase", "failure", "words"), CASES, ids=lambda value: str(value)[:40])
def test_an_error_becomes_its_class_and_one_clear_line(
    error: BaseException, phase: Phase, failure: Failure, words: str
) -> None:
    """Each error that asyncssh or the system can raise has its class, and says what is wrong on one line."""
    made = classify(error, hop(phase))
    assert made.failure is failure
    assert words in str(made)
    assert "\n" not in str(made) and "{" not in str(made)


def test_every_row_and_number_is_covered() -> None:
    """No row of either table is without a case, so that its words are known to read well."""
    said = {str(classify(error, hop(phase))) for error, phase, _, _ in CASES}
    said |= {str(classify(error, each)) for error, each in SPECIAL}
    for words in [row.words for row in ROWS] + [words for _, words in NUMBERS.values()]:
        longest = max(words.replace("{", "\0").replace("}", "\0").split("\0")[::2], key=len)
        assert any(longest in text for text in said), words


def test_a_changed_host_key_is_not_called_unknown() -> None:
    """Where known_hosts has another key for the host, the user is warned, and told how to remove the old one."""
    known = hop(L)
    known.host_known = True
    made = classify(asyncssh.HostKeyNotVerifiable("Host key is not trusted for host r"), known)
    assert "CHANGED" in str(made)
    assert "ssh-keygen -f /home/pi/.ssh/known_hosts -R '[relay.example]:2022'" in str(made)


def test_a_login_without_any_key_says_so() -> None:
    """Having nothing to offer is another mistake than offering the wrong key."""
    made = classify(asyncssh.PermissionDenied("no"), Hop("relay", user="pi"))
    assert made.failure is Failure.AUTHENTICATION
    assert "none to offer" in str(made)


SPECIAL = [
    (asyncssh.PermissionDenied("no"), Hop("relay", user="pi")),
    (asyncssh.HostKeyNotVerifiable("Host key is not trusted for host r"), Hop("relay", host_known=True)),
]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_cancellation_is_never_swallowed(error: BaseException) -> None:
    """What ends a task or the process passes through."""
    with pytest.raises(type(error)):
        classify(error)


def test_a_session_error_stays_as_it_is() -> None:
    """Classifying twice changes nothing."""
    error = SessionError(Failure.NETWORK, "text")
    assert classify(error) is error


def test_a_group_is_its_first_error() -> None:
    """A task group's wrapping does not hide what happened."""
    group = ExceptionGroup("tasks", [ConnectionRefusedError(errno.ECONNREFUSED, "no"), ValueError("x")])
    assert classify(group).failure is Failure.CLOSED


def test_a_relays_words_cannot_write_on_the_terminal() -> None:
    """Control characters and endless lines from the other side are cut away."""
    made = classify(asyncssh.DisconnectError(2, "\x1b[31mred\r\nline two " + "x" * 1000), hop(R))
    assert "\x1b" not in str(made) and "\n" not in str(made) and "\r" not in str(made)
    assert LONGEST_QUOTE <= len(str(made)) < 300
