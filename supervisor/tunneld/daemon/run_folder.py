"""The folder of running tunnels: `NAME.sock` answers with a tunnel's status, `NAME.lock` keeps a second daemon out.

This module imports little, and no asyncio, because `tunneld status` starts with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
from pathlib import Path

from tunneld.errors import BusyError, RightsError, UnavailableError, UsageError
from tunneld.profile.address import LONGEST_SOCKET_PATH
from tunneld.shipped.private_folder import WRITING, NotPrivateError, make_private

SYSTEM_FOLDER = Path("/run/tunneld")

# The user as whom the system's services run. That folder belongs to this user then, and its group may look into it.
SERVICE_USER = "tunneld"


def own_directory() -> Path:
    """The folder for our sockets: what systemd gives (RuntimeDirectory=), else root's, the user's, or one in /tmp."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return SYSTEM_FOLDER
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(session, "tunneld") if session else Path(f"/tmp/tunneld-{os.geteuid()}")


def directories() -> list[Path]:
    """Where `tunneld status` looks: the user's own folder, then the system's."""
    return list(dict.fromkeys([own_directory(), SYSTEM_FOLDER]))


def prepare(folder: Path) -> Path:
    """Make the folder, for its owner only, and return it.

    Raises:
        RightsError: it cannot be made, or somebody else could put things into it.
    """
    try:
        make_private(str(folder), owners=_trusted(), forbidden=WRITING)
    except NotPrivateError as error:
        raise RightsError(str(error)) from None
    except OSError as error:
        raise RightsError(f"cannot make {folder}: {error.strerror}") from None
    return folder


def _trusted() -> tuple[int, ...]:
    """Whose folder we use beside our own: as root the service's, so that a tunnel is not run twice."""
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError):
            return (pwd.getpwnam(SERVICE_USER).pw_uid,)
    return ()


def socket_path(folder: Path, name: str) -> Path:
    """The path of a tunnel's status socket.

    Raises:
        UsageError: it is longer than the kernel allows.
    """
    path = folder / f"{name}.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise UsageError(
            f"{path} is too long for a socket (at most {LONGEST_SOCKET_PATH} bytes): give the profile a shorter name"
        )
    return path


class TunnelLock:
    """The right to run one tunnel. It is an flock(2), so the kernel releases it when this process ends in any way.

    The file stays behind. If it were removed, two daemons could each lock a file of the same name.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """
        Raises:
            BusyError: another daemon has the lock. The text names its process.
            UnavailableError: the file cannot be made.
        """
        self._file = _open(folder / f"{name}.lock")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 20, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise BusyError(
                f"{name} is already running, in process {holder or '(just starting)'}: stop that one, or ask it with "
                f"`tunneld status {name}`"
            ) from None
        if os.geteuid() == 0:  # else the service could not open the file that root leaves in its folder
            owner = os.stat(folder)
            os.fchown(self._file, owner.st_uid, owner.st_gid)
        os.ftruncate(self._file, 0)
        with contextlib.suppress(OSError):  # a full disk: only the message of a second daemon says less
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UnavailableError(f"cannot make {path}: {error.strerror}") from None


def forget(folder: Path, name: str) -> None:
    """Remove the files of a tunnel that shall not run again. If a daemon runs it, nothing is removed."""
    with contextlib.suppress(BusyError, OSError):
        lock = TunnelLock(folder, name)
        for left in (f"{name}.sock", f"{name}.lock"):
            (folder / left).unlink(missing_ok=True)
        lock.release()
        folder.rmdir()
