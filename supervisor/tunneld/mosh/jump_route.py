"""The way to DEST where it leads through a jump host: found while the session starts, with a place for its sockets.

It is made before the first ssh, which waits for it: whatever else our agent there needs is imported later.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence

from tunneld.mosh import jump_host
from tunneld.mosh.jump_host import JumpHost
from tunneld.shipped.join_socket import JoinSocket, root

LONGEST_ROOT = 46
"""Bytes: of the 103 that a Unix socket's path may have on BSD, our names take 40, and ssh adds 17 at first."""

SPECIAL = set(" \t\"'\\")
"""What ssh would take for more than a letter of a path."""


class JumpRoute:
    """`options` are the person's own for ssh, and `settings` are what `ssh -G` makes of them."""

    def __init__(
        self,
        options: Sequence[str],
        settings: Mapping[str, str],
        said: Callable[[list[str]], dict[str, str]] = jump_host.configuration,
    ) -> None:
        self._options = tuple(options)
        self._hop: JumpHost | None = None
        self._door: JoinSocket | None = None  # nobody comes in, but whoever knocks hears that its folder is in use
        self._finding = threading.Thread(target=self._find, args=(settings, said), name="way", daemon=True)
        self._finding.start()

    @property
    def hop(self) -> JumpHost | None:
        """The first hop; None where there is none. Waits until ssh has said so."""
        self._finding.join()
        return self._hop

    @property
    def first(self) -> Mapping[str, str]:
        """What `ssh -G` says of the first hop, where it is we who make it."""
        return self.hop.settings[0] if self.hop and not self.hop.theirs else {}

    def options(self, name: str, *, beside: bool = False, first: Sequence[str] = ()) -> tuple[str, ...]:
        """The options for the ssh that is to become the stream of this name; `first` are more, for its first hop."""
        if self.hop is None:
            return self._options
        return tuple(jump_host.through(self.hop, self._options, self.socket(name), beside=beside, first=first))

    def socket(self, name: str) -> str:
        """Where the first hop of this stream is shared."""
        return f"{self._door.folder}/{name}" if self._door else ""

    def is_shared(self, name: str) -> bool:
        """Whether it is, as far as one can see."""
        return self.hop is not None and (self.hop.theirs or os.path.exists(self.socket(name)))

    def close(self) -> None:
        """Remove the folder, and sockets in it that an ssh left behind."""
        self._finding.join()
        if self._door:
            self._door.close()

    def _find(self, settings: Mapping[str, str], said: Callable[[list[str]], dict[str, str]]) -> None:
        """In a thread: ssh takes five milliseconds, in which the session may have something else to do."""
        found = jump_host.find(self._options, settings, said)
        with contextlib.suppress(OSError):  # no folder: ssh makes the hop itself
            self._door = JoinSocket("jump", _place()) if found and not found.theirs else None
            self._hop = found


def _place() -> str:
    """Where a folder's path is short enough."""
    place = root(LONGEST_ROOT)
    return "/tmp" if set(place) & SPECIAL else place
