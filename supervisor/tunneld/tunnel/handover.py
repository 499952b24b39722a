"""How one session leaves its place to another: the connection that the next session is to live on."""

from __future__ import annotations

import asyncssh


class Handover:
    """Holds a connection between two sessions. Each tunnel has one, and drops what nobody took.

    A connection has one owner at every moment: whoever dialled it until `leave`, the handover until `take` or `drop`,
    and then the session that took it, which closes it at its end.
    """

    def __init__(self) -> None:
        self._successor: asyncssh.SSHClientConnection | None = None

    def leave(self, connection: asyncssh.SSHClientConnection) -> None:
        """Hand a connection that is logged in to the next session. If another one waits here already, this one ends."""
        if self._successor is None:
            self._successor = connection
        else:
            connection.abort()

    def take(self) -> asyncssh.SSHClientConnection | None:
        """The connection that was left here, if there is one. The caller owns it from now on."""
        successor, self._successor = self._successor, None
        return successor

    def drop(self) -> None:
        """End the connection that was left here, if there is one."""
        if (successor := self.take()) is not None:
            successor.abort()
