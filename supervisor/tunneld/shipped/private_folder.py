"""Folders that nobody but their user can reach into: for sockets, locks and records that others must not plant.

In a shared place such as /tmp somebody else may have made a folder, or a link, of the name that we are about to use.
"""

from __future__ import annotations

import os
import stat

ANY_USE = 0o077
"""What others may not do with a folder that is private: read it, write to it, enter it."""

WRITING = 0o022
"""What they may not do at least, where they are welcome to look."""


class NotPrivateError(PermissionError):
    """Somebody else could have made the folder, or can reach into it. The text is a sentence for the user."""


def is_own(found: os.stat_result, owners: tuple[int, ...] = ()) -> bool:
    """Whether it belongs to the user as whom we act (the effective user id), or to one of `owners`."""
    return found.st_uid == os.geteuid() or found.st_uid in owners


def is_private(found: os.stat_result, kind: int = stat.S_IFDIR) -> bool:
    """Whether it is of this kind (stat.S_IFDIR, stat.S_IFREG), our user's, and of no use to anybody else. `found` is of
    lstat or fstat: a link is never private."""
    return stat.S_IFMT(found.st_mode) == kind and is_own(found) and not found.st_mode & ANY_USE


def make_private(folder: str, *, owners: tuple[int, ...] = (), forbidden: int = ANY_USE) -> None:
    """Make a folder of mode 0700, and those above it where they are missing; check the one that is already there.

    Raises:
        NotPrivateError: it is no folder but a link, say; or it belongs neither to our user nor to one of `owners`; or
            its mode has a bit of `forbidden`.
        OSError: it cannot be made.
    """
    os.makedirs(folder, 0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise NotPrivateError(f"{folder} is no folder; remove it")
    if not is_own(found, owners) or found.st_mode & forbidden:
        raise NotPrivateError(f"{folder} belongs to, or is open to, somebody else; remove it, or chmod it to 0700")
