"""Why a dial, a login, a listen or a session failed: a class for the machine, one line for the person.

`classify` is the only place that looks at asyncssh's and the system's errors. Both tables are read from the top: the
first row whose type, text and phase fit gives the class and the words. The words may use `{relay}` (host and port as
dialled), `{user}`, `{detail}` (the error's own text, made safe to print) and what `Hop` knows.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from typing import NamedTuple

import asyncssh
from asyncssh.packet import PacketDecodeError  # asyncssh makes a ProtocolError of it, except in answers to requests

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.core.supervise.failures import Failure
from tunneld.errors import TunneldError
from tunneld.ssh.connect.hop import Hop, Phase


class SessionError(TunneldError):
    """The session cannot be had, or is over. `failure` is the class that says how to go on.

    The text is one line for the user.
    """

    exit_code = 69  # EX_UNAVAILABLE

    def __init__(self, failure: Failure, text: str) -> None:
        super().__init__(text)
        self.failure = failure


class Row(NamedTuple):
    """Which errors it is about, and what they mean."""

    error: type[BaseException]
    says: str  # a regular expression that must match within the error's text; empty fits all
    phase: Phase | None  # None fits all
    failure: Failure
    words: str


_ANY = None
_UNKNOWN_KEY = (
    "the host key of {relay} is unknown ({shown_key} is not in {known_hosts}): "
    "compare it with the relay's own, then add it: {add_key}"
)
_CHANGED_KEY = (
    "the host key of {relay} has CHANGED (it shows {shown_key}, {known_hosts} has another key): someone may be "
    "listening in; if the relay was set up anew, remove the old key: {remove_key}"
)
_DENIED = "{relay} denied {user} with every key offered ({keys}): add one of these to ~/.ssh/authorized_keys there"
_NO_KEY = "{relay} asks {user} for a key, and there is none to offer: set relay.identity, or load a key into the agent"
_GREETING = (
    "{relay} closed the connection before it greeted: too many connections at once (MaxStartups), a penalty for "
    "earlier failures (PerSourcePenalties), or a firewall; wait, then look at the relay's sshd log"
)
_SILENT = "{relay} accepts connections but does not greet within {seconds} s: is there an SSH server at that port?"

ROWS: tuple[Row, ...] = (
    # Host keys
    Row(asyncssh.HostKeyNotVerifiable, "revoked", _ANY, Failure.HOST_KEY,
        "the host key of {relay} is marked as revoked in {known_hosts}: do not connect; ask the relay's administrator"),
    Row(asyncssh.HostKeyNotVerifiable, "CA key is not trusted", _ANY, Failure.HOST_KEY,
        "the host certificate of {relay} is signed by a key that {known_hosts} does not trust: if you do, add that key "
        "there as @cert-authority"),
    Row(asyncssh.HostKeyNotVerifiable, "expired|not yet valid|principal|certificate", _ANY, Failure.HOST_KEY,
        "the host certificate of {relay} is not acceptable: {detail}"),
    Row(asyncssh.HostKeyNotVerifiable, "known$", _ANY, Failure.HOST_KEY, _CHANGED_KEY),
    Row(asyncssh.HostKeyNotVerifiable, "", _ANY, Failure.HOST_KEY, _UNKNOWN_KEY),
    Row(asyncssh.KeyExchangeFailed, "server host key", _ANY, Failure.HOST_KEY,
        "{relay} has no host key of a kind that {known_hosts} lists for it: if it was set up anew, remove the old key "
        "({remove_key}) and add the new one ({add_key})"),
    # Login
    Row(asyncssh.PermissionDenied, "no key", _ANY, Failure.AUTHENTICATION, _NO_KEY),
    Row(asyncssh.PermissionDenied, "", _ANY, Failure.AUTHENTICATION, _DENIED),
    Row(asyncssh.IllegalUserName, "", _ANY, Failure.AUTHENTICATION, "{relay} does not accept the user name {user}"),
    Row(asyncssh.DisconnectError, "[Tt]oo many authentication failures", _ANY, Failure.AUTHENTICATION,
        "{relay} ended the login after too many keys ({keys}): name the right key as relay.identity"),
    Row(asyncssh.KeyImportError, "[Pp]assphrase", _ANY, Failure.AUTHENTICATION,
        "a private key needs a passphrase, and tunneld never asks: load it into an agent (ssh-add) or use another one"),
    Row(asyncssh.KeyImportError, "", _ANY, Failure.AUTHENTICATION, "a key file cannot be read: {detail}"),
    Row(asyncssh.KeyEncryptionError, "", _ANY, Failure.AUTHENTICATION, "a private key cannot be decrypted: {detail}"),
    # Time-outs
    Row(asyncssh.ConnectionLost, "not responding to keepalive", _ANY, Failure.NETWORK,
        "{relay} has gone silent: it answered no keepalive"),
    Row(TimeoutError, "", Phase.CONNECTING, Failure.NETWORK,
        "{relay} does not answer within {seconds} s: is it up, and does a firewall let port {port} through?"),
    Row(TimeoutError, "", Phase.GREETING, Failure.REFUSED, _SILENT),
    Row(TimeoutError, "", Phase.LOGIN, Failure.REFUSED, "{relay} greets but does not finish the login of {user} "
        "within {seconds} s: it may be overloaded, or wait for a name server"),
    Row(asyncssh.ConnectionLost, "Login timeout", _ANY, Failure.REFUSED, "{relay} does not finish the login of {user}"),
    # The relay hangs up
    Row(asyncssh.ConnectionLost, "", Phase.GREETING, Failure.REFUSED, _GREETING),
    Row(ConnectionResetError, "", Phase.GREETING, Failure.REFUSED, _GREETING),
    Row(asyncssh.ConnectionLost, "", Phase.LOGIN, Failure.REFUSED,
        "{relay} closed the connection during the login of {user}: look at its sshd log"),
    Row(asyncssh.ConnectionLost, "", _ANY, Failure.NETWORK, "the connection to {relay} is lost"),
    Row(asyncssh.ServiceNotAvailable, "", _ANY, Failure.REFUSED, "{relay} offers no login: {detail}"),
    # Protocol
    Row(asyncssh.ProtocolError, "[Bb]anner line", _ANY, Failure.REFUSED, "what answers at {relay} is no SSH server"),
    Row(asyncssh.ProtocolNotSupported, "", _ANY, Failure.PROTOCOL, "{relay} speaks another SSH version: {detail}"),
    Row(asyncssh.KeyExchangeFailed, "", _ANY, Failure.PROTOCOL, "{relay} has no method in common with us: {detail}"),
    Row(asyncssh.MACError, "", _ANY, Failure.PROTOCOL, "data from {relay} arrived damaged: {detail}"),
    Row(asyncssh.CompressionError, "", _ANY, Failure.PROTOCOL, "data from {relay} does not decompress: {detail}"),
    Row(asyncssh.ProtocolError, "", _ANY, Failure.PROTOCOL, "{relay} broke the SSH protocol: {detail}"),
    Row(PacketDecodeError, "", _ANY, Failure.PROTOCOL, "{relay} sent an answer that cannot be read: {detail}"),
    Row(asyncssh.DisconnectError, "[Tt]oo many connections", _ANY, Failure.REFUSED,
        "{relay} has too many connections: {detail}"),
    Row(asyncssh.DisconnectError, "", _ANY, Failure.NETWORK, "{relay} ended the connection: {detail}"),
    # The way through a jump host
    Row(asyncssh.ChannelOpenError, "prohibited|not permitted|disabled", _ANY, Failure.REFUSED,
        "the jump host {via} does not allow connections to {relay}: {detail}"),
    Row(asyncssh.ChannelOpenError, "SSH connection closed", _ANY, Failure.NETWORK,
        "the connection to the jump host {via} is lost"),
    Row(asyncssh.ChannelOpenError, "", _ANY, Failure.NETWORK, "the jump host {via} cannot reach {relay}: {detail}"),
    Row(asyncssh.ChannelListenError, "", _ANY, Failure.FORWARD_BUSY, "{relay} refuses to listen: {detail}"),
    # Names, files, configuration
    Row(socket.gaierror, "Temporary failure", _ANY, Failure.NETWORK,
        "no name server answers for {host}: is this machine's network up?"),
    Row(socket.gaierror, "", _ANY, Failure.NETWORK, "there is no address for {host}: is the name right? ({detail})"),
    Row(asyncssh.ConfigParseError, "", _ANY, Failure.PROTOCOL, "ssh_config cannot be read: {detail}"),
    Row(FileNotFoundError, "", _ANY, Failure.AUTHENTICATION,
        "there is no file {file}, which the profile or ssh_config names: correct its path there"),
    Row(IsADirectoryError, "", _ANY, Failure.AUTHENTICATION, "{file} is a folder, not a file"),
    Row(ValueError, "", _ANY, Failure.PROTOCOL, "the SSH settings are not usable: {detail}"),
)  # fmt: skip

# The system's errors by number. An attempt to connect to several addresses may report several errors: the first row
# that is among them counts.
NUMBERS: dict[int, tuple[Failure, str]] = {
    errno.ECONNREFUSED: (Failure.CLOSED, "nothing listens at {relay}: does sshd run there, and on that port?"),
    errno.ECONNRESET: (Failure.NETWORK, "the connection to {relay} was reset"),
    errno.ECONNABORTED: (Failure.NETWORK, "the connection to {relay} was aborted"),
    errno.EPIPE: (Failure.NETWORK, "the connection to {relay} is lost"),
    errno.ETIMEDOUT: (Failure.NETWORK, "{relay} no longer answers: the network gave up"),
    errno.EHOSTUNREACH: (Failure.NETWORK, "there is no route to {relay}: the host is unreachable"),
    errno.ENETUNREACH: (Failure.NETWORK, "there is no route to {relay}: is this machine's network up?"),
    errno.ENETDOWN: (Failure.NETWORK, "there is no route to {relay}: this machine's network is down"),
    errno.EHOSTDOWN: (Failure.NETWORK, "there is no route to {relay}: the host is down"),
    errno.EADDRNOTAVAIL: (Failure.NETWORK, "there is no route to {relay}: this machine has no fitting address"),
    errno.EMFILE: (Failure.NETWORK, "tunneld has too many open files: raise its limit (LimitNOFILE=)"),
    errno.ENFILE: (Failure.NETWORK, "this machine has too many open files"),
    errno.EACCES: (Failure.NETWORK, "this machine does not allow a connection to {relay}, or reading {file}: {detail}"),
    errno.EPERM: (Failure.NETWORK, "this machine forbids a connection to {relay}: a firewall here?"),
}  # fmt: skip

NOWHERE = Hop(host="the relay", port=0)


def classify(error: BaseException, hop: Hop = NOWHERE) -> SessionError:
    """What `error` means for the session with `hop`.

    Raises:
        BaseException: `error` itself, if it is no failure but a cancellation or the end of the process.
    """
    if isinstance(error, SessionError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return classify(error.exceptions[0], hop)
    if not isinstance(error, Exception) or isinstance(error, asyncio.CancelledError):
        raise error
    failure, words = _look_up(error, hop)
    return SessionError(failure, words.format_map(_details(error, hop)))


def _look_up(error: Exception, hop: Hop) -> tuple[Failure, str]:
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror | FileNotFoundError | IsADirectoryError):
        by_number = _by_number(error, hop)
        if by_number is not None:
            return by_number
    text = _text(error, hop)
    for row in ROWS:
        if isinstance(error, row.error) and row.phase in (_ANY, hop.phase) and re.search(row.says, text):
            return row.failure, row.words
    if isinstance(error, OSError):
        return Failure.NETWORK, "the connection to {relay} failed: {detail}"
    return Failure.PROTOCOL, f"unexpected {type(error).__name__} in the connection to {{relay}}: {{detail}}"


def _by_number(error: OSError, hop: Hop) -> tuple[Failure, str] | None:
    if isinstance(error, PermissionError) and error.filename:
        return Failure.AUTHENTICATION, "tunneld may not read {file}: check its owner and mode"
    if error.errno == errno.ECONNRESET and hop.phase is Phase.GREETING:
        return Failure.REFUSED, _GREETING
    # asyncio joins the errors of several addresses into one without a number ("Multiple exceptions: [Errno 111] ...").
    numbers = {error.errno, *map(int, re.findall(r"\[Errno (\d+)\]", str(error)))}
    return next((found for number, found in NUMBERS.items() if number in numbers), None)


def _text(error: Exception, hop: Hop) -> str:
    """The error's text, or a word that a row can tell apart.

    To asyncssh a changed host key and an unknown one are the same, and so are a refused key and none at all.
    """
    if isinstance(error, asyncssh.HostKeyNotVerifiable) and hop.host_known and "not trusted for" in str(error):
        return "known"
    if isinstance(error, asyncssh.PermissionDenied) and not hop.offered_keys:
        return "no key"
    return str(error)


def _details(error: Exception, hop: Hop) -> dict[str, str]:
    return {
        "relay": hop.address,
        "host": hop.host,
        "port": str(hop.port),
        "user": hop.user or "the user",
        "via": hop.via or "before it",
        "seconds": f"{hop.time_limit:g}",
        "keys": ", ".join(hop.offered_keys) or "none",
        "known_hosts": hop.known_hosts,
        "shown_key": hop.shown_key or "its key",
        "add_key": hop.add_key,
        "remove_key": hop.remove_key,
        "file": one_line(str(getattr(error, "filename", None) or "a file"), LONGEST_QUOTE),
        "detail": one_line(getattr(error, "strerror", None) or str(error), LONGEST_QUOTE) or type(error).__name__,
    }
