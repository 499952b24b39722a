"""What the tests of the demo share with those of `ssh/`: our own server, its keys, and a connection to it."""

from __future__ import annotations

from tests.ssh.conftest import connection, key, public, relay, server

__all__ = ["connection", "key", "public", "relay", "server"]
