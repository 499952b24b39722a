"""Why a listener was refused, on the relay or here."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable

from tunneld.core.supervise.failures import Failure
from tunneld.ssh.connect.failure import SessionError, classify, safe
from tunneld.ssh.connect.hop import Hop

# sshd answers a refused request with one bit. Only what its configuration forbids comes with a debug message
# ("Server has disabled port forwarding.", "... streamlocal forwarding.", serverloop.c), so silence means busy.
_FORBIDDEN = re.compile(r"forwarding|permitlisten|not permitted|denied|prohibited", re.IGNORECASE)
# This one is sent at each login and says what is allowed.
_ALLOWED = re.compile(r"key options:|agent-forwarding")


def refused_there(listen: str, debug: Iterable[str], hop: Hop) -> SessionError:
    """The relay said no to a listener; `debug` is what it said with it."""
    reason = next((text for text in debug if _FORBIDDEN.search(text) and not _ALLOWED.search(text)), None)
    if reason is None:
        return SessionError(Failure.FORWARD_BUSY, f"{hop.address} cannot listen on {listen}: it is taken")
    text = (
        f"{hop.address} does not allow {hop.user or 'the user'} to listen on {listen} "
        f"({safe(reason)}): see AllowTcpForwarding and PermitListen in its sshd_config, permitlisten in "
        "authorized_keys; ports below 1024 are root's"
    )
    return SessionError(Failure.FORWARD_FORBIDDEN, text)


def refused_here(listen: str, error: OSError, hop: Hop) -> SessionError:
    """This host said no to a listener of its own."""
    if error.errno == errno.EADDRINUSE:
        return SessionError(Failure.FORWARD_BUSY, f"this host cannot listen on {listen}: another program holds it")
    if error.errno in (errno.EACCES, errno.EPERM):
        text = (
            f"this host does not allow tunneld to listen on {listen}: ports below 1024 and foreign folders are root's"
        )
        return SessionError(Failure.FORWARD_FORBIDDEN, text)
    if (
        error.errno in (errno.EADDRNOTAVAIL, errno.ENOENT, errno.ENOTDIR, errno.EINVAL)
        or error.errno is None
        or error.errno < 0
    ):
        text = f"this host cannot listen on {listen}: {safe(error.strerror or str(error))}"
        return SessionError(Failure.FORWARD_FORBIDDEN, text)
    return classify(error, hop)
