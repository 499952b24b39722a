"""Why a listener was refused, on the relay or here."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.failure import SessionError, classify
from tunneld.ssh.connect.hop import Hop

# sshd answers a refused request with one bit. Only if its configuration forbids the listener does it send a debug
# message first ("Server has disabled port forwarding.", "... streamlocal forwarding.", serverloop.c). So silence means
# busy.
_FORBIDDEN = re.compile(r"forwarding|permitlisten|not permitted|denied|prohibited", re.IGNORECASE)
# sshd sends these at each login (auth.c, auth_log_authopts); they say what is allowed, and are no reason for a refusal.
_ALLOWED = re.compile(r"key options:|agent-forwarding")


def refused_there(listen: str, debug_messages: Iterable[str], hop: Hop) -> SessionError:
    """Why the relay has refused a listener: FORWARD_FORBIDDEN, or FORWARD_BUSY if it gave no reason.

    Args:
        listen: the address that was asked for.
        debug_messages: what the relay has sent since it was asked; a late message of the login may be among them.
        hop: the relay.
    """
    reason = next((text for text in debug_messages if _FORBIDDEN.search(text) and not _ALLOWED.search(text)), None)
    if reason is None:
        return SessionError(Failure.FORWARD_BUSY, f"{hop.address} cannot listen on {listen}: it is taken")
    text = (
        f"{hop.address} does not allow {hop.user or 'the user'} to listen on {listen} "
        f"({one_line(reason, LONGEST_QUOTE)}): see AllowTcpForwarding and PermitListen in its sshd_config, "
        "permitlisten in authorized_keys; only root may use ports below 1024"
    )
    return SessionError(Failure.FORWARD_FORBIDDEN, text)


def refused_here(listen: str, error: OSError, hop: Hop) -> SessionError:
    """Why this host has refused us a listener: FORWARD_BUSY, FORWARD_FORBIDDEN, or what `classify` says."""
    if error.errno == errno.EADDRINUSE:
        return SessionError(Failure.FORWARD_BUSY, f"this host cannot listen on {listen}: another program holds it")
    if error.errno in (errno.EACCES, errno.EPERM):
        text = (
            f"this host does not allow tunneld to listen on {listen}: only root may use ports below 1024, and other "
            "users' folders"
        )
        return SessionError(Failure.FORWARD_FORBIDDEN, text)
    if (
        error.errno in (errno.EADDRNOTAVAIL, errno.ENOENT, errno.ENOTDIR, errno.EINVAL)
        or error.errno is None
        or error.errno < 0
    ):
        text = f"this host cannot listen on {listen}: {one_line(error.strerror or str(error), LONGEST_QUOTE)}"
        return SessionError(Failure.FORWARD_FORBIDDEN, text)
    return classify(error, hop)
